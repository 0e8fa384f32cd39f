package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// rig is the API with answers of the test's own and no database.
type rig struct {
	http.Handler
	keys    auth.Keyring
	log     *lines
	metrics *telemetry.Metrics
}

// answers are those of a test; what is not set panics.
type answers struct {
	api.StrictServerInterface
	health func(context.Context) (api.HealthResponseObject, error)
	frame  func(context.Context, api.AppendFrameRequestObject) (api.AppendFrameResponseObject, error)
}

func (a answers) Health(ctx context.Context, _ api.HealthRequestObject) (api.HealthResponseObject, error) {
	return a.health(ctx)
}

func (a answers) AppendFrame(ctx context.Context, r api.AppendFrameRequestObject) (api.AppendFrameResponseObject, error) {
	return a.frame(ctx, r)
}

func fails(err error) answers {
	return answers{health: func(context.Context) (api.HealthResponseObject, error) { return nil, err }}
}

func healthy(context.Context) (api.HealthResponseObject, error) {
	return api.Health200JSONResponse{Body: api.Health{Status: "ok", Service: "runtime", Version: "1"}}, nil
}

// once remembers nonces in memory.
type once struct{ seen sync.Map }

func (o *once) Remember(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	_, known := o.seen.LoadOrStore(string(hash), true)
	return !known, nil
}

func newRig(t *testing.T, a answers) *rig { return newRigWith(t, server.Config{}, a) }

func newRigWith(t *testing.T, c server.Config, a answers) *rig {
	t.Helper()
	r := &rig{keys: auth.DevKeyring(), log: &lines{}, metrics: telemetry.NewMetrics()}
	h, err := server.New(c, server.Deps{
		Answers: a, Metrics: r.metrics, Logger: telemetry.NewLogger(r.log, slog.LevelDebug),
		Auth: &auth.Verifier{Keys: r.keys, Audience: "test", Nonces: &once{}},
	})
	require.NoError(t, err)
	r.Handler = h
	return r
}

// request makes a signed request of user 1.
func (r *rig) request(t *testing.T, method, target, body string) *http.Request {
	t.Helper()
	user := int64(1)
	claims := auth.Claims{
		Audience: "test", Scope: auth.Service, Actor: "tester", Method: method, Target: target,
		BodySHA256: auth.BodyHash([]byte(body)), UserID: &user,
	}
	q := httptest.NewRequestWithContext(t.Context(), method, target, bytes.NewBufferString(body))
	if len(target) > len("/internal/v1/runs/r1") {
		claims.RunID = "r1"
	}
	token, err := auth.Sign(r.keys, claims, time.Now())
	require.NoError(t, err)
	q.Header.Set(auth.SignatureHeader, token)
	q.Header.Set(auth.UserHeader, "1")
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	return q
}

func (r *rig) health(t *testing.T) *http.Request {
	return r.request(t, "GET", "/internal/v1/health", "")
}

func (r *rig) do(q *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w
}

func errorOf(t *testing.T, w *httptest.ResponseRecorder) api.Error {
	t.Helper()
	var e api.ErrorEnvelope
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e), w.Body.String())
	return e.Error
}

// lines is a log.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

// named are the log's lines with a message, oldest first.
func (l *lines) named(t *testing.T, msg string) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []map[string]any
	for d := json.NewDecoder(bytes.NewReader(l.all.Bytes())); ; {
		var line map[string]any
		if err := d.Decode(&line); err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if line["msg"] == msg {
			found = append(found, line)
		}
	}
}

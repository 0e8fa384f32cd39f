package model_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// endpoint is a real HTTP server that speaks chat completions: the n-th request
// is answered by the n-th handler, every later one by the last.
type endpoint struct {
	*httptest.Server
	mu       sync.Mutex
	bodies   []map[string]any
	headers  []http.Header
	handlers []http.HandlerFunc
}

func serve(t *testing.T, handlers ...http.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{handlers: handlers}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		body := map[string]any{}
		if err != nil || json.Unmarshal(raw, &body) != nil || r.URL.Path != "/v1/chat/completions" {
			http.Error(w, "not a chat completion", http.StatusTeapot)
			return
		}
		e.mu.Lock()
		n := len(e.bodies)
		e.bodies = append(e.bodies, body)
		e.headers = append(e.headers, r.Header.Clone())
		e.mu.Unlock()
		e.handlers[min(n, len(e.handlers)-1)](w, r)
	}))
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) requests() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.bodies)
}

const testKey = "sk-test-5ecret"

// dial makes a model of the endpoint. Waits before a retry are recorded rather
// than slept.
func (e *endpoint) dial(t *testing.T, change func(*model.OpenAIConfig)) (*model.OpenAI, *[]time.Duration) {
	t.Helper()
	cfg := model.OpenAIDefaults()
	cfg.BaseURL, cfg.APIKey, cfg.Model = e.URL+"/v1", testKey, "test/model"
	if change != nil {
		change(&cfg)
	}
	m, err := model.NewOpenAI(cfg, e.Client())
	require.NoError(t, err)
	waits := &[]time.Duration{}
	model.RecordWaits(m, func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return ctx.Err()
	})
	return m, waits
}

// stream answers with the data lines, each flushed, and [DONE].
func stream(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		begin(w)
		for _, l := range lines {
			send(w, l)
		}
		send(w, "data: [DONE]")
	}
}

func begin(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Request-Id", "req_1")
	w.WriteHeader(http.StatusOK)
	flush(w)
}

func send(w io.Writer, line string) {
	_, _ = fmt.Fprintf(w, "%s\n\n", line)
	flush(w)
}

func flush(w io.Writer) { w.(http.Flusher).Flush() }

// cutNow breaks the connection without ending the body.
func cutNow() { panic(http.ErrAbortHandler) }

func chunk(delta string) string {
	return `data: {"id":"gen-1","object":"chat.completion.chunk","created":1,"model":"served/model","choices":[{"index":0,"delta":` + delta + `}]}`
}

func text(s string) string {
	b, _ := json.Marshal(s)
	return chunk(`{"content":` + string(b) + `}`)
}

func stop(reason string) string {
	return `data: {"id":"gen-1","model":"served/model","choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}`
}

const usageChunk = `data: {"id":"gen-1","model":"served/model","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,"completion_tokens_details":{"reasoning_tokens":2},"prompt_tokens_details":{"cached_tokens":3}}}`

func status(code int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

const secretPrompt = "the launch code is plover"

func ask() model.Request {
	return model.Request{Messages: []model.Message{{Role: model.RoleUser, Content: secretPrompt}}, IdempotencyKey: "call-1"}
}

// listen collects what is emitted.
type listen struct{ events []model.Event }

func (l *listen) emit(e model.Event) error {
	l.events = append(l.events, e)
	return nil
}

func (l *listen) deltas(kind model.EventKind) []string {
	var out []string
	for _, e := range l.events {
		if e.Kind == kind {
			out = append(out, e.Delta)
		}
	}
	return out
}

// failure asserts a *model.Error that tells neither key nor prompt.
func failure(t *testing.T, err error, class model.Class) *model.Error {
	t.Helper()
	var e *model.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%s", err)
	for _, s := range []string{testKey, "plover"} {
		require.False(t, strings.Contains(err.Error(), s), "%q is told in %q", s, err)
	}
	return e
}

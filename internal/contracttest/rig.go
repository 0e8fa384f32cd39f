// Package contracttest sends requests to the real handler and checks every answer against the contract.
package contracttest

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// What the rig's tokens are signed with and for.
const (
	Secret   = "contract-test-secret-0123456789abcdef"
	Audience = "runtime.test"
	Version  = "1.2.3"
)

// Rig is one process's API on a test database, behind a real listener.
type Rig struct {
	Pool    *pgxpool.Pool
	Process *runtest.Process
	Keys    auth.Keyring
	Log     *Log
	Logger  *slog.Logger
	// Admission is the rig's, for its tick.
	Admission *server.Admission
	Address   string // 127.0.0.1:port
	// Registry is what the API answers from.
	Registry *registry.Registry

	streams *stream.Handler
	client  *http.Client
	checker *Checker
}

// Options change a rig from what it is otherwise.
type Options struct {
	Keys     string // of the verifier, kid:secret pairs; the rig signs with Secret as k1
	Identity *auth.IdentityVerifier
	Config   server.Config
	HTTP     server.HTTPConfig
	Stream   stream.Config
	// Admission bounds what is let in; its tick is for the test to call.
	Admission server.AdmissionConfig
	// Draining ends what waits when it is closed.
	Draining <-chan struct{}
	// Answers wraps the answers, to break one.
	Answers func(*server.Server) api.StrictServerInterface
}

// New starts a rig that ends with the test.
func New(t testing.TB, pool *pgxpool.Pool, o Options) *Rig {
	t.Helper()
	keys, err := auth.ParseKeyring("k1:" + Secret)
	require.NoError(t, err)
	accepted := keys
	if o.Keys != "" {
		accepted, err = auth.ParseKeyring(o.Keys)
		require.NoError(t, err)
	}
	p := runtest.NewProcess(t, pool)
	r := &Rig{Pool: pool, Process: p, Keys: keys, Log: &Log{}, checker: document(t)}
	logger := slog.New(slog.NewJSONHandler(r.Log, nil))
	r.Logger = logger
	r.streams = stream.New(pool, p.Watch, o.Stream, p.Metrics)
	require.NoError(t, o.Admission.Validate())
	r.Admission = server.NewAdmission(o.Admission, pool, pool, p.Log, p.Metrics)
	builtIn, err := server.BuiltInTools(Specs)
	require.NoError(t, err)
	r.Registry, err = registry.New(pool, builtIn)
	require.NoError(t, err)
	answers := &server.Server{
		Pool: pool, Log: p.Log, Watch: p.Watch, Streams: r.streams, Tools: tools(t), Registry: r.Registry, Admission: r.Admission, Version: Version,
		Draining: o.Draining,
	}
	var answering api.StrictServerInterface = answers
	if o.Answers != nil {
		answering = o.Answers(answers)
	}
	handler, err := server.New(o.Config, server.Deps{
		Answers: answering, Admission: r.Admission, Logger: logger, Metrics: p.Metrics,
		Auth: &auth.Verifier{Keys: accepted, Audience: Audience, Nonces: auth.NewNoncesTogether(pool), Identity: o.Identity},
	})
	require.NoError(t, err)
	r.listen(t, handler, o.HTTP, logger)
	return r
}

func (r *Rig) listen(t testing.TB, handler http.Handler, c server.HTTPConfig, logger *slog.Logger) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := server.HTTPServer(handler, c, logger)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s, l, c) }()
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32}
	r.Address = l.Addr().String()
	r.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		r.streams.Shutdown()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			// Half-open connections of a test are cut off.
			require.NoError(t, s.Close())
		}
		require.NoError(t, r.streams.Wait(ctx))
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			require.NoError(t, err)
		}
	})
}

// Drain breaks off every stream, as a process that shuts down does.
func (r *Rig) Drain() { r.streams.Shutdown() }

// Log keeps what was logged, for tests of what must and must not be in it.
type Log struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// Happen appends events to a run as an executor does, with what they change:
// the run's status and its frame position.
func (r *Rig) Happen(t testing.TB, of db.Run, events ...event.Event) {
	t.Helper()
	change := runlog.Change{Events: events}
	for _, e := range events {
		switch e := e.(type) {
		case event.RunStartedV1:
			change.Status = "running"
			change.Rows = append(change.Rows, run.SetStatus(of, "running"))
		case event.RunWaitingV1:
			change.Status = "waiting"
			change.Rows = append(change.Rows, run.SetStatus(of, "waiting"))
		case event.FrameFinishedV1:
			change.FramePosition++
		case event.RunFinishedV1:
			change.Status = string(e.Status)
			change.Rows = append(change.Rows, func(q *db.Queries, _ int64) error {
				return q.RunFinish(context.Background(), db.RunFinishParams{
					RunKey: of.RunKey, Status: string(e.Status), ReasonClass: &e.ReasonClass, Reason: &e.Reason,
				})
			})
		}
	}
	r.Commit(t, of, change)
}

// Commit writes a change of a run.
func (r *Rig) Commit(t testing.TB, of db.Run, change runlog.Change) {
	t.Helper()
	_, err := r.Process.Log.Commit(t.Context(), runlog.Unit{
		RunKey: of.RunKey, RunID: of.RunID, Decide: func(runlog.Head) (runlog.Change, error) { return change, nil },
	})
	require.NoError(t, err)
}

// Forget drops a run's events up to a seq, as retention does.
func (r *Rig) Forget(t testing.TB, runID string, seq int64) {
	t.Helper()
	_, err := r.Pool.Exec(t.Context(), `
		WITH run AS (SELECT run_key FROM runs WHERE run_id = $1),
		     log AS (SELECT seq, event_hash FROM run_log JOIN run USING (run_key)
		             UNION ALL SELECT seq, event_hash FROM run_log_deltas JOIN run USING (run_key)),
		     floor AS (UPDATE run_heads SET oldest_seq = $2 + 1, floor_hash = (SELECT event_hash FROM log WHERE seq = $2)
		               WHERE run_key = (SELECT run_key FROM run)),
		     deltas AS (DELETE FROM run_log_deltas WHERE seq <= $2 AND run_key = (SELECT run_key FROM run))
		DELETE FROM run_log WHERE seq <= $2 AND run_key = (SELECT run_key FROM run)`, runID, seq)
	require.NoError(t, err)
}

package executor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// talking speaks until it cannot be heard, and answers the next call.
type talking struct {
	calls   atomic.Int32
	begun   chan struct{} // closed when the first call has spoken
	unheard chan struct{} // closed when it was not heard
}

func (*talking) Info() model.Info { return model.Info{Provider: "talking", Model: "talking"} }

func (m *talking) Stream(ctx context.Context, r model.Request, emit func(model.Event) error) (model.Result, error) {
	if m.calls.Add(1) > 1 {
		return always{}.Stream(ctx, r, emit)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := emit(model.Event{Kind: model.TextDelta, Delta: "on "}); err != nil {
			close(m.unheard)
			return model.Result{}, err
		}
		if n == 0 {
			close(m.begun)
		}
		<-tick.C
	}
}

// An executor that met an outage of the database hands its runs over when that
// ends, long before their leases do.
func TestAnOutageDoesNotCostTheRestOfALease(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	m := &talking{begun: make(chan struct{}), unheard: make(chan struct{})}
	p := work(t, pool, m)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	<-m.begun

	var name string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT current_database()").Scan(&name))
	admin, err := pgx.Connect(t.Context(), dbtest.EmptyURL(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.WithoutCancel(t.Context())) })
	quoted := pgx.Identifier{name}.Sanitize()
	_, err = admin.Exec(t.Context(), "ALTER DATABASE "+quoted+" ALLOW_CONNECTIONS false")
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
	require.NoError(t, err)
	<-m.unheard
	<-time.After(500 * time.Millisecond) // so long it lasts
	_, err = admin.Exec(t.Context(), "ALTER DATABASE "+quoted+" ALLOW_CONNECTIONS true")
	require.NoError(t, err)

	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	require.NotContains(t, runtest.Types(t, pool, r), event.TypeRunExecutorLost, "the lease was handed over, not lost")
}

// said keeps what was logged.
type said struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all.String()
}

// Not parallel: it listens to the process's logger.
func TestASessionsLogLinesCarryTheTraceOfTheirFrame(t *testing.T) {
	var out said
	before := slog.Default()
	slog.SetDefault(telemetry.NewLogger(&out, slog.LevelInfo))
	defer slog.SetDefault(before)

	pool := dbtest.New(t)
	p, stop := begin(t, pool, &failing{times: 1, at: make(chan time.Time, 10)}, func(c *executor.Config) { c.RestartDelay = time.Millisecond })
	defer stop()
	r := runtest.Run(t, pool)
	trace := telemetry.NewTrace("", "", "req-of-the-frame")
	_, err := run.AppendFrame(telemetry.WithTrace(t.Context(), trace), pool, p.Log, r, runtest.UserMessage("f1", "Hi"))
	require.NoError(t, err)
	finished(t, p, r)

	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, r.RunKey.String()) {
			continue
		}
		var told map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &told))
		require.Equal(t, "panic", told["cause"])
		require.Equal(t, trace.TraceID(), told["trace_id"])
		require.Equal(t, "req-of-the-frame", told["x_request_id"])
		return
	}
	require.Fail(t, "no line tells of the run's session", out.String())
}

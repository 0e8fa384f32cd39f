// Package runtest puts runs, frames and leases into a test database.
package runtest

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Process is what one process has of the log: an appender at work, a watch,
// and a keeper whose heart beats only when a test says so.
type Process struct {
	Pool    *pgxpool.Pool
	Watch   *runlog.Watch
	Log     *runlog.Appender
	Leases  *lease.Keeper
	Metrics *telemetry.Metrics
}

// TTL is how long leases of a test process last: longer than any test.
const TTL = 10 * time.Minute

// NewProcess starts a process's appender on a database; it ends with the test.
func NewProcess(t testing.TB, pool *pgxpool.Pool) *Process {
	t.Helper()
	return NewProcessTTL(t, pool, TTL)
}

// NewProcessTTL is NewProcess with leases of another length.
func NewProcessTTL(t testing.TB, pool *pgxpool.Pool, ttl time.Duration) *Process {
	t.Helper()
	p := &Process{Pool: pool, Watch: runlog.NewWatch(), Metrics: telemetry.NewMetrics()}
	p.Log = runlog.NewAppender(pool, p.Watch, 1, p.Metrics)
	p.Leases = lease.NewKeeper(pool, p.Log, "test", ttl, p.Metrics)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Log.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
	})
	return p
}

// Envelope is a run of user 1 in a thread of its own.
func Envelope() run.Envelope {
	user := int64(1)
	return run.Envelope{RunID: uuid.NewString(), ThreadID: uuid.NewString(), UserID: &user, AuthenticatedSession: true}
}

// Run starts a run of user 1 in a thread of its own.
func Run(t testing.TB, pool *pgxpool.Pool) db.Run {
	t.Helper()
	return Start(t, pool, Envelope())
}

// Start starts a run.
func Start(t testing.TB, pool *pgxpool.Pool, e run.Envelope) db.Run {
	t.Helper()
	r, _, err := run.Start(t.Context(), pool, e)
	require.NoError(t, err)
	return r
}

// Message appends a user's text to a run as a frame.
func (p *Process) Message(t testing.TB, r db.Run, frameID, text string) run.Accepted {
	t.Helper()
	a, err := run.AppendFrame(t.Context(), p.Pool, p.Log, r, UserMessage(frameID, text))
	require.NoError(t, err)
	return a
}

// Types are the types of a run's events, in order.
func Types(t testing.TB, pool *pgxpool.Pool, r db.Run) []string {
	t.Helper()
	var types []string
	require.NoError(t, runlog.Each(t.Context(), pool, r.RunKey, 0, func(e db.RunLog) error {
		types = append(types, e.EventType)
		return nil
	}))
	return types
}

// WaitFor waits until the run's log holds an event of a type, and returns it.
func (p *Process) WaitFor(t testing.TB, r db.Run, eventType string) db.RunLog {
	t.Helper()
	bell := p.Watch.Run(r.RunKey)
	defer bell.Close()
	tick := time.NewTicker(50 * time.Millisecond) // for writes of another process
	defer tick.Stop()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		rows, err := runlog.OfTypes(t.Context(), p.Pool, []uuid.UUID{r.RunKey}, eventType)
		require.NoError(t, err)
		if len(rows) > 0 {
			return rows[0]
		}
		select {
		case <-bell.C:
		case <-tick.C:
		case <-late.C:
			t.Fatalf("run %s has no %s; its log is %v", r.RunID, eventType, Types(t, p.Pool, r))
		}
	}
}

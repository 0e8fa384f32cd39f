package server

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func requireCode(t *testing.T, err error, code api.ErrorCode) {
	t.Helper()
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	require.Equal(t, code, f.Code)
}

// An appender whose queue is full enough lets nothing in, and everything again
// when it is not.
func TestAFullQueueIsRefused(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	pool := dbtest.New(t)
	log := runlog.NewAppender(pool, runlog.NewWatch(), 1, m)
	a := NewAdmission(AdmissionConfig{MaxQueue: 0.0001}, pool, pool, log, m)
	leave, err := a.enter("startRun")
	require.NoError(t, err)
	leave()
	queued := make(chan error, 1)
	ctx, withdraw := context.WithCancel(t.Context())
	go func() {
		_, err := log.Commit(ctx, runlog.Unit{})
		queued <- err
	}()
	require.Eventually(t, func() bool { return log.Load() > 0 }, 10*time.Second, time.Millisecond)
	_, err = a.enter("startRun")
	requireCode(t, err, api.Overloaded)
	leave, err = a.enter("getRun")
	require.NoError(t, err, "reads are never refused")
	leave()
	withdraw()
	require.Error(t, <-queued)
}

// Requests that wait long for connections are told by the tick.
func TestScarceConnectionsAreRefused(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	tick := dbtest.New(t)
	config := tick.Config()
	config.MaxConns, config.MinConns = 1, 0
	served, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(served.Close)
	log := runlog.NewAppender(tick, runlog.NewWatch(), 1, m)
	a := NewAdmission(AdmissionConfig{MaxConnWait: time.Microsecond}, tick, served, log, m)
	look := func() error {
		a.asked.Store(true)
		require.NoError(t, a.Once(t.Context()))
		leave, err := a.enter("appendFrame")
		if err == nil {
			leave()
		}
		return err
	}
	require.NoError(t, served.Ping(t.Context()))
	_ = look() // making the first connection is a wait too, and is told here
	c, err := served.Acquire(t.Context())
	require.NoError(t, err)
	t.Cleanup(c.Release)
	require.NoError(t, look())
	before := served.Stat().EmptyAcquireCount()
	waited := make(chan error, 1)
	go func() { waited <- served.Ping(t.Context()) }()
	<-time.After(20 * time.Millisecond) // the wait is what is measured
	c.Release()
	require.NoError(t, <-waited)
	require.Greater(t, served.Stat().EmptyAcquireCount(), before)
	requireCode(t, look(), api.Overloaded)
	require.NoError(t, served.Ping(t.Context()))
	require.NoError(t, look(), "nobody waits any more")
}

// One owner takes half of what is in flight at the most.
func TestAnOwnerTakesNoMoreThanItsShare(t *testing.T) {
	t.Parallel()
	a := NewAdmission(AdmissionConfig{MaxInFlight: 4}, nil, nil, nil, telemetry.NewMetrics())
	greedy, other := run.Owner("user:1"), run.Owner("user:2")
	first, err := a.share("startRun", greedy)
	require.NoError(t, err)
	second, err := a.share("startRun", greedy)
	require.NoError(t, err)
	for range 100 {
		_, err = a.share("startRun", greedy)
		requireCode(t, err, api.OwnerBusy)
	}
	leave, err := a.share("startRun", other)
	require.NoError(t, err)
	leave()
	first()
	third, err := a.share("startRun", greedy)
	require.NoError(t, err)
	second()
	third()
	require.Empty(t, a.bring)
}

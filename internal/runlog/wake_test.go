package runlog_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// rings waits for a follower's bell.
func rings(t *testing.T, s *runlog.Subscription, why string) {
	t.Helper()
	select {
	case <-s.C:
	case <-time.After(10 * time.Second):
		t.Fatal("the bell did not ring: " + why)
	}
}

// Whoever follows a run hears of what another process appends by the tick
// alone, without any notification.
func TestTheTickWakesWhoFollowsWhatGrewElsewhere(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	other := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	w := runlog.NewWatch()
	s := w.Run(r.RunKey)
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Tick(ctx, pool, 10*time.Millisecond) }()
	rings(t, s, "it has not looked yet")
	other.Append(t, r, delta("x"))
	rings(t, s, "the log has grown")
	stop()
	require.NoError(t, <-done)
}

// A commit is told to other processes, which need not wait for their tick.
func TestACommitIsToldToOtherProcesses(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	other := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	w := runlog.NewWatch()
	s, work := w.Run(r.RunKey), w.Work()
	defer s.Close()
	defer work.Close()
	ctx, stop := context.WithCancel(t.Context())
	connected, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- pg.Listen(ctx, dbtest.URL(t), runlog.Channel, w.Notified, func() { close(connected) })
	}()
	<-connected
	other.Append(t, r, delta("x"))
	rings(t, s, "the log has grown")
	require.Empty(t, work.Keys(), "a delta is nothing to do")
	other.Message(t, r, "f1", "Hi")
	rings(t, work, "there is a frame")
	require.Len(t, work.Keys(), 1)
	stop()
	require.NoError(t, <-done)
}

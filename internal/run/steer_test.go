package run_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

func withMode(frameID string, mode run.Mode) run.Frame {
	f := runtest.UserMessage(frameID, "Hi")
	f.Mode = mode
	return f
}

func requireFault(t *testing.T, err error, code api.ErrorCode) {
	t.Helper()
	var f *fault.Error
	require.ErrorAs(t, err, &f)
	require.Equal(t, code, f.Code)
}

func TestAFrameMayRejectARunAtWork(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	first, err := run.AppendFrame(t.Context(), pool, p.Log, r, withMode("f1", run.Reject))
	require.NoError(t, err, "nothing is at work yet")
	_, err = run.AppendFrame(t.Context(), pool, p.Log, r, withMode("f2", run.Reject))
	requireFault(t, err, api.RunBusy)
	head, err := runlog.GetHead(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	require.EqualValues(t, 1, head.FrameCount, "what is refused is not stored")

	again, err := run.AppendFrame(t.Context(), pool, p.Log, r, withMode("f1", run.Interrupt))
	require.NoError(t, err)
	require.True(t, again.Replay, "the mode is no part of the frame")
	require.Equal(t, first.Seq, again.Seq)
	_, err = run.AppendFrame(t.Context(), pool, p.Log, r, withMode("f2", run.Enqueue))
	require.NoError(t, err, "it may come again with another mode")
}

// The same frame sent by many at once is accepted once and repeated for the
// others, though the run is at work by then.
func TestARejectingFrameSentAtOnceIsNotItsOwnRival(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	var senders sync.WaitGroup
	got := make([]run.Accepted, 8)
	failures := make([]error, len(got))
	for i := range got {
		senders.Go(func() { got[i], failures[i] = run.AppendFrame(t.Context(), pool, p.Log, r, withMode("f1", run.Reject)) })
	}
	senders.Wait()
	require.NoError(t, errors.Join(failures...))
	fresh := 0
	for _, a := range got {
		require.Equal(t, got[0].Seq, a.Seq)
		if !a.Replay {
			fresh++
		}
	}
	require.Equal(t, 1, fresh)
}

func TestAStepAnswersUpToTheLastFrameThatSteers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		modes []run.Mode
		after int64
		want  []string
	}{
		{nil, 0, nil},
		{[]run.Mode{run.Enqueue, run.Enqueue}, 0, []string{"a"}},
		{[]run.Mode{run.Enqueue, run.Steer, run.Enqueue}, 0, []string{"a", "b"}},
		{[]run.Mode{run.Steer, run.Enqueue, run.Interrupt, run.Enqueue}, 0, []string{"a", "b", "c"}},
		{[]run.Mode{run.Steer, run.Enqueue, run.Enqueue}, 0, []string{"a"}},
		{[]run.Mode{run.Interrupt, run.Enqueue, run.Enqueue}, 1, []string{"b"}},
		{[]run.Mode{run.Steer, run.Steer}, 2, nil},
	} {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p := runtest.NewProcess(t, pool)
			r := runtest.Run(t, pool)
			for i, m := range c.modes {
				_, err := run.AppendFrame(t.Context(), pool, p.Log, r, withMode(string(rune('a'+i)), m))
				require.NoError(t, err)
			}
			frames, err := run.ToAnswer(t.Context(), pool, r.RunKey, c.after)
			require.NoError(t, err)
			require.Equal(t, c.want, idsOf(frames))
		})
	}
}

func idsOf(frames []db.Frame) []string {
	var ids []string
	for _, f := range frames {
		ids = append(ids, f.FrameID)
	}
	return ids
}

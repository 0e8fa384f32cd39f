package executor_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// A cancel that is seen before the answer to a commit comes, and that came after
// the commit, does not undo it: what the log has is what the session goes on from.
func TestACancelThatIsSeenEarlyUndoesNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hello.")
	frame, err := run.FrameByID(t.Context(), pool, r.RunKey, "f1")
	require.NoError(t, err)
	held, ok := runtest.Hold(t, p, r)
	require.True(t, ok)
	defer runtest.LetGo(held)
	e := executor.New(executor.DefaultConfig(), pool, p.Watch, p.Leases, predict.NewCaller(asking{}, p.Metrics), with(t), p.Metrics)

	s := e.Holding(r, held)
	s.Learn(runlog.Head{Seq: 1000, Status: "running", CancelRequested: true})
	canceled, err := s.BeginStep(t.Context(), frame)
	require.NoError(t, err)
	require.False(t, canceled)
	last, err := s.Say(t.Context(), "Hello ", "there.")
	require.NoError(t, err)
	deltas, said := all[event.MessageDeltaV1](t, pool, r), ""
	for _, d := range deltas {
		said += d.Delta
	}
	require.Equal(t, "Hello there.", said)
	receipt := "receipt"
	require.Equal(t, []event.Event{event.MessageFinishedV1{PartID: "text-1-1", Text: said, ReceiptID: &receipt}}, last)

	_, err = run.Cancel(t.Context(), p.Log, r, "test", "")
	require.NoError(t, err)
	last, err = s.Say(t.Context(), "More.")
	require.NoError(t, err)
	require.Len(t, all[event.MessageDeltaV1](t, pool, r), len(deltas), "nothing is said after a cancel")
	require.Len(t, last, 1)
	canceled, err = s.BeginStep(t.Context(), frame)
	require.NoError(t, err)
	require.True(t, canceled)
	require.Len(t, all[event.RunStepStartedV1](t, pool, r), 1)
}

package runtest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Append appends events to a run in one commit, without a lease. run.finished
// also ends the run, so stream.closed belongs into the same call.
func (p *Process) Append(t testing.TB, r db.Run, events ...event.Event) runlog.Ack {
	t.Helper()
	change := runlog.Change{Events: events}
	for _, e := range events {
		if f, ok := e.(event.RunFinishedV1); ok {
			change.Status = string(f.Status)
			change.Rows = append(change.Rows, func(q *db.Queries, _ int64) error {
				return q.RunFinish(context.Background(), db.RunFinishParams{
					RunKey: r.RunKey, Status: string(f.Status), ReasonClass: &f.ReasonClass, Reason: &f.Reason,
				})
			})
		}
	}
	ack, err := p.Log.Commit(t.Context(), runlog.Unit{
		RunKey: r.RunKey, RunID: r.RunID,
		Decide: func(runlog.Head) (runlog.Change, error) { return change, nil },
	})
	require.NoError(t, err)
	return ack
}

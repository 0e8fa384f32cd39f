package tool_test

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

type uuidKey = uuid.UUID

func startRun(t require.TestingT, pool *pgxpool.Pool) db.Run {
	r, _, err := run.Start(context.Background(), pool, runtest.Envelope())
	require.NoError(t, err)
	return r
}

func TestOverdueCallsOfClientsWakeTheirRun(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	asks := d.request("call_1")
	asks.Spec.Kind = tool.Client
	require.NoError(t, d.commit(tool.Requested(asks, allowed, "")))
	require.NoError(t, d.commit(tool.Started(d.task(t, "call_1"), "client", 1), nil))
	waits := func() {
		require.NoError(t, db.New(d.pool).RunSetStatus(t.Context(), db.RunSetStatusParams{RunKey: d.run.RunKey, Status: "waiting"}))
	}
	waits()
	pass := func() int64 {
		n, err := tool.Overdue(t.Context(), d.pool)
		require.NoError(t, err)
		return n
	}
	require.Zero(t, pass(), "it has a second yet")
	_, err := d.pool.Exec(t.Context(), "UPDATE runtime.tool_tasks SET deadline_at = clock_timestamp() - interval '1 ms'")
	require.NoError(t, err)
	require.EqualValues(t, 1, pass())
	require.Zero(t, pass(), "it has been woken")
	waits()
	task := d.task(t, "call_1")
	require.NoError(t, d.commit(tool.Finished(task, tool.Ended(task, tool.TimedOut, &tool.Error{Class: tool.ClassTimeout}), 1)))
	require.Zero(t, pass(), "it has ended")

	_, err = d.pool.Exec(t.Context(), `INSERT INTO runtime.approvals (approval_id, run_key, run_id, thread_id, owner, kind, title, decider,
		request, args_hash, policy_hash, expires_at) VALUES ('a', $1, 'r', 't', 'user:1', 'tool_call', 'x', 'owner', '{}', 'h', 'h', clock_timestamp())`, d.run.RunKey)
	require.NoError(t, err)
	require.EqualValues(t, 1, pass(), "an approval that nobody decided")
}

func TestOpenCallsOfRunsThatEndedAreEndedOnce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, id := range []string{"queued", "running", "done"} {
		require.NoError(t, d.commit(tool.Requested(d.request(id), allowed, "")))
	}
	require.NoError(t, d.commit(tool.Started(d.task(t, "running"), "provider.a", 5), nil))
	task := d.task(t, "done")
	require.NoError(t, d.commit(tool.Finished(task, tool.Ended(task, tool.Failed, &tool.Error{Class: "x"}), 5)))
	n, err := tool.Orphans(t.Context(), d.pool)
	require.NoError(t, err)
	require.Zero(t, n, "the run is at work")

	stop := event.RunFinishedV1FinishReasonStop
	d.p.Append(t, d.run, event.RunFinishedV1{Status: "completed", ReasonClass: "completed", Reason: "x", FinishReason: &stop}, event.StreamClosedV1{})
	var ended atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n, err := tool.Orphans(context.Background(), d.pool)
			if err != nil {
				t.Error(err)
			}
			ended.Add(n)
		})
	}
	wg.Wait()
	require.EqualValues(t, 2, ended.Load())
	for _, id := range []string{"queued", "running"} {
		task := d.task(t, id)
		require.Equal(t, tool.Canceled, task.State)
		require.Equal(t, tool.ClassRunEnded, *task.ErrorClass)
		var r ds.ToolReceiptV1
		require.NoError(t, json.Unmarshal(task.Receipt, &r))
		require.EqualValues(t, tool.Canceled, r.State)
	}
	open, err := tool.OpenTasks(t.Context(), d.pool, d.run.RunKey)
	require.NoError(t, err)
	require.Empty(t, open)
}

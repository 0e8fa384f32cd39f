package tool_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// evaluation is a refusal with a document of its own.
func evaluation(name string) policy.Evaluation {
	doc := json.RawMessage(`{"name":"` + name + `"}`)
	return policy.Evaluation{Decision: policy.Denied, ReasonCode: "policy_denied.tool_not_allowed", Document: doc, Hash: canon.Hash(doc)}
}

// refuse notes that calls of a run were refused.
func (d desk) refuse(t testing.TB, evaluations ...policy.Evaluation) {
	t.Helper()
	for i, e := range evaluations {
		require.NoError(t, d.commit(tool.Refusal(d.request(fmt.Sprint("call_", i, e.Hash)), e), nil))
	}
}

// endedAgo ends the run, and makes it one that began and ended so long ago.
func (d *desk) endedAgo(t testing.TB, ago time.Duration) {
	t.Helper()
	d.p.Append(t, d.run, event.RunFinishedV1{Status: "canceled", ReasonClass: "cancel_requested", Reason: "stop"}, event.StreamClosedV1{})
	key := uuid.New()
	binary.BigEndian.PutUint64(key[:8], uint64(time.Now().Add(-ago).UnixMilli())<<16)
	for _, table := range []string{"runs", "run_heads", "run_log", "ds_policy_evaluation_runs", "tool_refusals"} {
		_, err := d.pool.Exec(t.Context(), "UPDATE "+table+" SET run_key = $1 WHERE run_key = $2", key, d.run.RunKey)
		require.NoError(t, err)
	}
	_, err := d.pool.Exec(t.Context(), `UPDATE runs SET status = 'canceled', reason_class = 'cancel_requested', runnable = false,
		finished_at = clock_timestamp() - $2::interval WHERE run_key = $1`, key, ago)
	require.NoError(t, err)
	_, err = d.pool.Exec(t.Context(), `UPDATE ds_policy_evaluations SET inserted_at = inserted_at - $1::interval`, ago)
	require.NoError(t, err)
	d.run.RunKey = key
}

func (d desk) kept(t testing.TB, e policy.Evaluation) bool {
	t.Helper()
	doc, err := tool.Evaluation(t.Context(), d.pool, e.Hash)
	require.NoError(t, err)
	return doc != nil
}

const window = 72 * time.Hour

func TestAnEvaluationIsKeptAsLongAsALogRefersToIt(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	at := func() desk { return desk{pool, p, runtest.Run(t, pool)} }
	alone, shared, young := evaluation("alone"), evaluation("shared"), evaluation("young")
	gone, stays, live := at(), at(), at()
	gone.refuse(t, alone, shared)
	stays.refuse(t, shared)
	gone.endedAgo(t, 2*window)
	stays.endedAgo(t, window/2)
	live.refuse(t, young)
	keep := tool.Retention{Pool: pool, Events: window}
	pruned := func(want int64) {
		t.Helper()
		n, err := keep.Prune(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, n)
	}
	pruned(0)
	require.True(t, gone.kept(t, alone), "the log is still there")

	logs := runlog.Retention{Pool: pool, Events: window}
	aged, err := logs.AgeOut(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, aged)
	keep.Evaluations = 4 * window
	pruned(0)
	keep.Evaluations = 0
	pruned(1)
	require.False(t, gone.kept(t, alone))
	require.True(t, gone.kept(t, shared), "another run's log refers to it")
	require.True(t, gone.kept(t, young))
	count := func(table string) (n int) {
		t.Helper()
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM "+table+" WHERE run_key = $1", gone.run.RunKey).Scan(&n))
		return n
	}
	require.Zero(t, count("tool_refusals"))
	require.Zero(t, count("ds_policy_evaluation_runs"))
	pruned(0)

	_, err = pool.Exec(t.Context(), "UPDATE runs SET finished_at = finished_at - $2::interval WHERE run_key = $1", stays.run.RunKey, window)
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), "UPDATE run_heads SET oldest_seq = latest_seq + 1 WHERE run_key = $1", stays.run.RunKey)
	require.NoError(t, err)
	keep.Events = time.Hour
	pruned(1)
	require.False(t, stays.kept(t, shared), "the last one that referred to it is gone")
	require.True(t, live.kept(t, young))
	keep.Events = 0
	pruned(0)
}

// A run that decides from what is about to go keeps it.
func TestPruningLeavesWhatIsDecidedFromMeanwhile(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	var last db.Run
	for i := range 25 {
		e := evaluation(fmt.Sprint("one ", i))
		old := desk{pool, p, runtest.Run(t, pool)}
		old.refuse(t, e)
		old.endedAgo(t, 2*window)
		_, err := pool.Exec(t.Context(), "UPDATE run_heads SET oldest_seq = latest_seq + 1 WHERE run_key = $1", old.run.RunKey)
		require.NoError(t, err)
		now := desk{pool, p, runtest.Run(t, pool)}
		var both errgroup.Group
		both.Go(func() error {
			_, err := tool.Retention{Pool: pool, Events: window}.Prune(t.Context())
			return err
		})
		both.Go(func() error { return now.commit(tool.Refusal(now.request("call"), e), nil) })
		require.NoError(t, both.Wait())
		require.True(t, now.kept(t, e))
		last = now.run
	}
	var uses int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM ds_policy_evaluation_runs WHERE run_key = $1", last.RunKey).Scan(&uses))
	require.Equal(t, 1, uses)
}

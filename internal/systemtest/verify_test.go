package systemtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

func TestVerifyTellsAWholeLogFromAChangedOne(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	env := []string{"DATABASE_URL=" + dbtest.URL(t)}
	p := runtest.NewProcess(t, pool)
	whole, changed := runtest.Run(t, pool), runtest.Run(t, pool)
	p.Append(t, whole, event.RunStartedV1{MessageID: "m"})
	p.Append(t, changed, event.RunStartedV1{MessageID: "m"})

	got := finish(t, env, "", "verify", whole.RunID, changed.RunID)
	require.Equal(t, 0, got.code, got.errors)
	require.Contains(t, got.out, changed.RunID+": the chain verifies up to seq 2")

	_, err := pool.Exec(t.Context(), `UPDATE run_log SET payload = '{"message_id":"n"}' WHERE run_key = $1 AND seq = 2`, changed.RunKey)
	require.NoError(t, err)
	got = finish(t, env, "", "verify", changed.RunID, whole.RunID)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.errors, changed.RunID+": the chain breaks at seq 2")
	require.Contains(t, got.out, whole.RunID, "the others are verified too")

	missing := finish(t, env, "", "verify", "no-such-run")
	require.Equal(t, 1, missing.code)
	require.Contains(t, missing.errors, "run_not_found")
}

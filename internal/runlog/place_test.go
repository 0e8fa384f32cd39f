package runlog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// An appender that knows a head goes to its row and does not look for it: under an
// old snapshot every look through the index would meet all versions since.
func TestAppendsDoNotLookForHeadsTheyKnow(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	alone, together := runtest.Run(t, pool), runtest.Run(t, pool)
	p.Append(t, alone, delta("the first look"))
	p.Append(t, together, delta("the first look"))
	const appends = 200
	scans := func(least int64) (n int64) {
		require.Eventually(t, func() bool { // a session tells of itself up to a second later
			var updates int64
			err := pool.QueryRow(t.Context(), `SELECT n_tup_upd, idx_scan FROM pg_stat_user_tables WHERE relname = 'run_heads'`).Scan(&updates, &n)
			return err == nil && updates >= least
		}, 30*time.Second, 50*time.Millisecond)
		return n
	}
	before := scans(2)
	for range appends {
		p.Append(t, alone, delta("one event"))
		p.Append(t, together, delta("two"), delta("events"))
	}
	require.Less(t, scans(2+2*appends)-before, int64(appends/10))

	// Somebody else moves the head, and so its row: it is looked for again.
	runtest.NewProcess(t, pool).Append(t, alone, delta("another process"))
	p.Append(t, alone, delta("after it"))
	require.Len(t, runtest.Types(t, pool, alone), 1+1+appends+2)
}

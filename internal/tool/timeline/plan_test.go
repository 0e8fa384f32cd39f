package timeline_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

var removed = regexp.MustCompile(`Rows Removed by Filter: (\d+)`)

// An index can be walked from end to end too, and rows that a filter throws away
// were read: none of them may be another owner's, with the plans that the service
// makes and whichever of the two sides others have filled.
func TestAThreadIsFoundWithoutReadingOtherOwners(t *testing.T) {
	t.Parallel()
	for name, others := range map[string]string{
		"many owners, many threads": `2 + i % 50, 'thread-' || i % 500`,
		"many owners, this thread":  `2 + i, 'thread'`,
		"one owner, this thread":    `2, 'thread'`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := dbtest.New(t)
			r := beside(t, db, "thread", 1)
			_, err := db.Exec(t.Context(), fmt.Sprintf(`
				INSERT INTO runs (run_key, run_id, user_id, thread_id, authenticated_session, request_hash)
				SELECT gen_random_uuid(), 'other-' || i, %s, true, '' FROM generate_series(1, 20000) i`, others))
			require.NoError(t, err)
			_, err = db.Exec(t.Context(), "ANALYZE runs")
			require.NoError(t, err)
			served, err := pg.Open(t.Context(), pg.Config{URL: db.Config().ConnString(), MaxConns: 2, AppName: "a test", ByKeyOnly: true})
			require.NoError(t, err)
			t.Cleanup(served.Close)

			e := &explainer{DBTX: served, t: t}
			runs, err := runlog.RunsOfThread(t.Context(), e, "thread", r.Owner, uuid.Max, 51)
			require.NoError(t, err)
			require.Len(t, runs, 1)
			require.NotContains(t, e.plans[0], "Seq Scan", e.plans[0])
			for _, m := range removed.FindAllStringSubmatch(e.plans[0], -1) {
				n, err := strconv.Atoi(m[1])
				require.NoError(t, err)
				require.Zero(t, n, "rows of others were read:\n%s", e.plans[0])
			}
		})
	}
}

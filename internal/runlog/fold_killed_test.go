package runlog_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// assassin ends a session when it is about to send its n-th statement.
type assassin struct {
	pool *pgxpool.Pool // by which it is ended
	n    int
	done bool
}

func (a *assassin) TraceQueryStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	if a.n--; a.n == 0 {
		var ended bool
		err := a.pool.QueryRow(context.WithoutCancel(ctx), "SELECT pg_terminate_backend($1, 5000)", conn.PgConn().PID()).Scan(&ended)
		a.done = err == nil && ended
	}
	return ctx
}

func (a *assassin) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// A fold whose session is ended before any one of its statements has kept
// every source until what replaces it was durable, and the next fold ends the work.
func TestAFoldThatIsKilledAtAnyStepLosesNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	ranges(t, pool, "run_log_deltas", "run_log_folds")
	p := runtest.NewProcess(t, pool)
	killed := 0
	for step := 1; ; step++ {
		before := map[uuid.UUID][]db.RunLog{}
		var runs []db.Run
		for n := range 3 {
			r := runtest.Run(t, pool)
			p.Append(t, r, reply(20)...)
			if n > 0 { // the first one's deltas lie in the default partition
				r = began(t, pool, r, 10*day)
			}
			before[r.RunKey] = all(t, pool, r, 0, 100)
			runs = append(runs, r)
		}
		knife := &assassin{pool: pool, n: step}
		c := pool.Config()
		c.ConnConfig.Tracer = knife
		doomed, err := pgxpool.NewWithConfig(t.Context(), c)
		require.NoError(t, err)
		_, err = runlog.Retention{Pool: doomed}.Fold(t.Context())
		doomed.Close()
		for _, r := range runs {
			require.Equal(t, before[r.RunKey], all(t, pool, r, 0, 100), "killed at step %d", step)
			verified(t, pool, r)
		}
		if !knife.done {
			require.NoError(t, err)
			break
		}
		killed++
		_, err = runlog.Retention{Pool: pool}.Fold(t.Context())
		require.NoError(t, err)
		require.Zero(t, number(t, pool, "SELECT count(*) FROM run_log_deltas"), "killed at step %d", step)
		for _, r := range runs {
			require.Equal(t, before[r.RunKey], all(t, pool, r, 0, 100), "killed at step %d", step)
			verified(t, pool, r)
		}
		ranges(t, pool, "run_log_deltas")
	}
	require.Greater(t, killed, 20, "a fold has more steps than that")
}

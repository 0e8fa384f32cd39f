package spend_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// TestMain runs the tests, or is a process of the fleet that one of them sent.
func TestMain(m *testing.M) {
	if text := os.Getenv(workerEnv); text != "" {
		if err := work(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	dbtest.Main(m)
}

func p[T any](v T) *T { return &v }

// account is a process, a run, and the authorization that pays for it.
type account struct {
	*testing.T
	pool *pgxpool.Pool
	p    *runtest.Process
	run  db.Run
	auth db.SpendAuthorization
}

func newAccount(t *testing.T, g spend.Grant) *account {
	t.Helper()
	pool := dbtest.New(t)
	r := &account{T: t, pool: pool, p: runtest.NewProcess(t, pool)}
	r.auth = runtest.Authorize(t, pool, g)
	r.run = runtest.Run(t, pool)
	t.Cleanup(func() { runtest.RequireBooks(t, pool) })
	return r
}

// hold holds for a call; what it answers is why it may not, empty when it may.
func (r *account) hold(call string, sats int64, with ...func(*spend.Intent)) string {
	r.Helper()
	in := runtest.Call(r.run, call, sats)
	for _, change := range with {
		change(&in)
	}
	denied, err := r.p.Hold(r.Context(), in, 0)
	require.NoError(r, err)
	return denied
}

func (r *account) settle(call string, settle func(db.SpendReservation) (runlog.Change, error)) error {
	return r.p.Settle(r.Context(), r.run, call, 0, settle)
}

func (r *account) commit(call string, sats int64) {
	r.Helper()
	require.NoError(r, r.settle(call, func(h db.SpendReservation) (runlog.Change, error) {
		return spend.Commit(h, spend.Settled{AmountSats: sats, CorrelationID: "c-" + call}, 0)
	}))
}

func (r *account) release(call string) {
	r.Helper()
	require.NoError(r, r.settle(call, func(h db.SpendReservation) (runlog.Change, error) {
		return spend.Release(h, "provider_rejected", 0), nil
	}))
}

func (r *account) mark(call string) {
	r.Helper()
	require.NoError(r, r.settle(call, func(h db.SpendReservation) (runlog.Change, error) { return spend.Mark(h, "timeout", 0), nil }))
}

func (r *account) reconcile(call, outcome string) error {
	r.Helper()
	return r.settle(call, func(h db.SpendReservation) (runlog.Change, error) {
		return spend.Reconcile(h, spend.Finding{Outcome: outcome, Evidence: []byte(`{"seen":"in the wallet"}`), Reason: "Looked it up."}, "operator:ada")
	})
}

// requireAt requires what an authorization has spent and reserved.
func (r *account) requireAt(spent, reserved int64, ids ...string) {
	r.Helper()
	for _, id := range append(ids, r.auth.AuthorizationID)[:max(1, len(ids))] {
		a, err := spend.Get(r.Context(), r.pool, id)
		require.NoError(r, err)
		require.Equal(r, [2]int64{spent, reserved}, [2]int64{a.SpentSats, a.ReservedSats}, id)
	}
}

func (r *account) reservation(call string) db.SpendReservation {
	r.Helper()
	h, err := spend.Reservation(r.Context(), r.pool, r.run.RunKey, call)
	require.NoError(r, err)
	return h
}

func (r *account) exec(sql string, args ...any) {
	r.Helper()
	_, err := r.pool.Exec(r.Context(), sql, args...)
	require.NoError(r, err)
}

func budget(most int64, with ...func(*spend.Grant)) spend.Grant {
	g := runtest.Budget(most)
	for _, change := range with {
		change(&g)
	}
	return g
}

func soon() *time.Time { return p(time.Now().Add(time.Hour)) }

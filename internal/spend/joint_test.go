package spend_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// process is an appender with lanes and a pool of its own.
func process(t *testing.T, url string, lanes int) *runtest.Process {
	t.Helper()
	pool, err := pg.Open(t.Context(), pg.Config{URL: url, MaxConns: 8, AppName: "crosswise"})
	require.NoError(t, err)
	p := &runtest.Process{Pool: pool, Watch: runlog.NewWatch()}
	p.Log = runlog.NewAppender(pool, p.Watch, lanes, telemetry.NewMetrics())
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Log.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
		pool.Close()
	})
	return p
}

// Batches of two processes, of two lanes each, move the counters of the same
// authorizations, which their units name in every order.
func TestCrosswiseHoldsNeverDeadlock(t *testing.T) {
	t.Parallel()
	outer := t
	pool := dbtest.New(t)
	var roots, leaves []db.SpendAuthorization
	for range 2 {
		roots = append(roots, runtest.Authorize(t, pool, runtest.Budget(1e9)))
	}
	for i := range 6 {
		g := runtest.Budget(1e9)
		g.ParentAuthorizationID = roots[i%2].AuthorizationID
		leaves = append(leaves, runtest.Authorize(t, pool, g))
	}
	t.Run("together", func(t *testing.T) {
		var g errgroup.Group
		for _, p := range []*runtest.Process{process(t, dbtest.URL(outer), 2), process(t, dbtest.URL(outer), 2)} {
			for w := range 12 {
				run := runtest.Run(t, pool)
				g.Go(func() error {
					for i := range 40 {
						chain, _, err := spend.ChainOfID(t.Context(), pool, leaves[(w+i)%len(leaves)].AuthorizationID)
						if err != nil {
							return err
						}
						call := fmt.Sprintf("call-%d", i)
						if denied, err := p.HoldUnder(t.Context(), chain, runtest.Call(run, call, 3), 0); err != nil || denied != "" {
							return fmt.Errorf("hold: %q %w", denied, err)
						}
						if err := p.Settle(t.Context(), run, call, 0, func(h db.SpendReservation) (runlog.Change, error) {
							return spend.Commit(h, spend.Settled{AmountSats: 2}, 0)
						}); err != nil {
							return err
						}
					}
					return nil
				})
			}
		}
		require.NoError(t, g.Wait())
	})
	// The processes have closed their sessions, and these what they had counted.
	require.Eventually(t, func() bool {
		var sessions int
		err := pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'crosswise'`).Scan(&sessions)
		return err == nil && sessions == 0
	}, 10*time.Second, 10*time.Millisecond)
	var deadlocks int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks))
	require.Zero(t, deadlocks)
	runtest.RequireBooks(t, pool)
	for _, root := range roots {
		a, err := spend.Get(t.Context(), pool, root.AuthorizationID)
		require.NoError(t, err)
		require.EqualValues(t, 24*40*2/2, a.SpentSats)
		require.Zero(t, a.ReservedSats)
	}
}

// A hold that the database refuses takes no other unit of its commit along.
func TestARefusedHoldFailsAlone(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	small, large := runtest.Authorize(t, pool, runtest.Budget(5)), runtest.Authorize(t, pool, runtest.Budget(1e6))
	type unit struct {
		runlog.Unit
		small bool
	}
	units := make([]unit, 64)
	for i := range units {
		u, pays := &units[i], large
		if u.small = i%4 == 0; u.small {
			pays = small
		}
		run := runtest.Run(t, pool)
		chain, _, err := spend.ChainOfID(t.Context(), pool, pays.AuthorizationID)
		require.NoError(t, err)
		in := runtest.Call(run, "a", 1)
		e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, in)
		require.NoError(t, err)
		change, err := spend.Reserve(chain, in, e, 0)
		require.NoError(t, err)
		u.Unit = runlog.Unit{RunKey: run.RunKey, RunID: run.RunID, Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }}
	}
	var g errgroup.Group
	refused := make([]bool, len(units))
	for i, u := range units {
		g.Go(func() error {
			_, err := p.Log.Commit(t.Context(), u.Unit)
			if refused[i] = err != nil; u.small && errors.Is(spend.Cause(err), spend.ErrRefused) {
				return nil
			}
			return err
		})
	}
	require.NoError(t, g.Wait())
	n := 0
	for i, r := range refused {
		if r {
			n++
			require.Equal(t, []string{"run.accepted"}, runtest.Types(t, pool, db.Run{RunKey: units[i].RunKey}), "what was refused is not in the log")
		}
	}
	require.Equal(t, 16-5, n)
	runtest.RequireBooks(t, pool)
}

// Money is settled after its run has ended, and the closed log stays closed.
func TestMoneyIsSettledAfterTheRunHasEnded(t *testing.T) {
	t.Parallel()
	r := newAccount(t, budget(100))
	require.Empty(t, r.hold("a", 10))
	require.Empty(t, r.hold("b", 10))
	r.mark("b")
	events := len(runtest.Types(t, r.pool, r.run)) + 2
	r.p.Append(t, r.run, runtest.Reply("hello")[7:]...)
	require.ErrorIs(t, r.forced("c", 10), runlog.ErrFinished)
	r.commit("a", 7)
	require.NoError(t, r.reconcile("b", spend.FoundPaid))
	r.requireAt(17, 0)
	require.Len(t, runtest.Types(t, r.pool, r.run), events)
}

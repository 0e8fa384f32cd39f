package spend_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// The golden scenarios of spending, each on a cap of 100 unless it says otherwise.
func TestGoldenScenarios(t *testing.T) {
	t.Parallel()
	for _, s := range []struct {
		name  string
		grant spend.Grant
		steps func(t *testing.T, r *account)
	}{
		{"S-1 happy", budget(100), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 35))
			r.requireAt(0, 35)
			require.Empty(t, r.hold("a", 35), "its own hold")
			r.requireAt(0, 35)
			r.commit("a", 35)
			r.requireAt(35, 0)
			r.commit("a", 35) // a replay
			r.requireAt(35, 0)
			require.Equal(t, "policy_denied.already_finalized", r.hold("a", 35))
			require.ErrorIs(t, r.settle("a", func(h db.SpendReservation) (runlog.Change, error) {
				return spend.Commit(h, spend.Settled{AmountSats: 34}, 0)
			}), spend.ErrMoved, "the same call at another price")
			require.Equal(t, []string{"run.accepted", "tool.reserved", "tool.settled"}, runtest.Types(t, r.pool, r.run))
		}},
		{"S-2 race", budget(100), func(t *testing.T, r *account) {
			other := runtest.Run(t, r.pool)
			answers := make([]string, 2)
			var g errgroup.Group
			for i, in := range []spend.Intent{runtest.Call(r.run, "a", 70), runtest.Call(other, "b", 40)} {
				g.Go(func() (err error) {
					answers[i], err = r.p.Hold(t.Context(), in, 0)
					return err
				})
			}
			require.NoError(t, g.Wait())
			require.ElementsMatch(t, []string{"", "policy_denied.budget_exhausted"}, answers)
		}},
		{"S-3 conflict", budget(100), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 25))
			require.Equal(t, "policy_denied.idempotency_conflict", r.hold("a", 30))
			require.Equal(t, "policy_denied.idempotency_conflict", r.hold("a", 25, func(in *spend.Intent) { in.Quote.RequestHash = canon.Hash(nil) }))
			r.requireAt(0, 25)
		}},
		{"S-4 unknown", budget(100), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 15))
			r.mark("a")
			r.requireAt(0, 15)
			require.Equal(t, spend.ReconcileRequired, r.reservation("a").State)
			for _, class := range []string{spend.SafeRetry, spend.DedupeReconcileRequired} {
				require.Equal(t, "policy_denied.reconcile_required", r.hold("a", 15, func(in *spend.Intent) { in.Boundary = class }))
			}
			r.mark("a")
			r.requireAt(0, 15)
		}},
		{"S-5 reconcile", budget(100), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 15))
			r.mark("a")
			require.NoError(t, r.reconcile("a", spend.FoundNotPaid))
			r.requireAt(0, 0)
			h := r.reservation("a")
			require.Equal(t, spend.Released, h.State)
			require.NotNil(t, h.ReconciledAt)
			require.Equal(t, "operator:ada", *h.ReconciledBy)
			require.NoError(t, r.reconcile("a", spend.FoundNotPaid), "a replay")
			require.ErrorIs(t, r.reconcile("a", spend.FoundPaid), spend.ErrMoved)
			r.requireAt(0, 0)
		}},
		{"S-6 stale", budget(100), func(t *testing.T, r *account) {
			held, ok := runtest.Hold(t, r.p, r.run)
			require.True(t, ok)
			defer runtest.LetGo(held)
			in := runtest.Call(r.run, "a", 20)
			in.Started = true
			denied, err := r.p.Hold(t.Context(), in, held.Epoch)
			require.NoError(t, err)
			require.Empty(t, denied)
			r.exec(`UPDATE spend_reservations SET reserved_at = reserved_at - interval '61 seconds'`)
			done, err := spend.RecoverStuck(t.Context(), r.pool, r.p.Log, spend.StuckAge, nil)
			require.NoError(t, err)
			require.Zero(t, done, "its executor is at work")
			runtest.Expire(t, r.pool, r.run)
			r.exec(`UPDATE run_leases SET lease_expires_at = lease_expires_at - interval '61 seconds'`)
			var told []int
			done, err = spend.RecoverStuck(t.Context(), r.pool, r.p.Log, spend.StuckAge, func(n, of int) { told = append(told, n, of) })
			require.NoError(t, err)
			require.Equal(t, spend.Recovered{Marked: 1}, done)
			require.Equal(t, []int{1, 1}, told)
			r.requireAt(0, 20)
			require.Equal(t, spend.ReconcileRequired, r.reservation("a").State)
		}},
		{"S-7 partial", budget(100), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 50))
			r.commit("a", 42)
			r.requireAt(42, 0)
			require.Equal(t, []string{"issue 100", "hold 50", "capture 42", "release 8"}, r.ledger())
		}},
		{"S-8 overage", budget(100, func(g *spend.Grant) { g.Terms.Constraints.MaxOverageBps = 200 }), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 50))
			r.commit("a", 51)
			r.requireAt(51, 0)
			require.Equal(t, []string{"issue 100", "hold 50", "capture 50", "overage 1"}, r.ledger())
			require.Nil(t, r.lastSettled().ReasonCode)
			// Beyond the tolerance, and beyond the cap: what was paid was paid.
			require.Empty(t, r.hold("b", 49))
			r.commit("b", 60)
			r.requireAt(111, 0)
			told := r.lastSettled()
			require.Equal(t, "settlement.amount_mismatch", *told.ReasonCode)
			require.EqualValues(t, 11, *told.OverageSats)
			require.Equal(t, "policy_denied.budget_exhausted", r.hold("c", 1))
			// What overage made room for is nobody's to hold.
			require.ErrorIs(t, r.forced("c", 1), spend.ErrRefused)
		}},
		{"S-9 revoke", budget(100), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 10))
			before, _, err := spend.ChainOf(t.Context(), r.pool, r.run)
			require.NoError(t, err)
			_, replay, err := spend.Revoke(t.Context(), r.pool, r.auth.AuthorizationID, "operator:ada", "Enough.")
			require.NoError(t, err)
			require.False(t, replay)
			require.Equal(t, "policy_denied.authorization_revoked", r.hold("b", 10))
			// Who had decided before the revocation is refused as well.
			_, err = r.p.HoldUnder(t.Context(), before, runtest.Call(r.run, "b", 10), 0)
			require.ErrorIs(t, err, spend.ErrRefused)
			r.commit("a", 10)
			r.requireAt(10, 0)
		}},
		{"S-10 expire edge", budget(100, func(g *spend.Grant) { g.Terms.ExpiresAt = soon() }), func(t *testing.T, r *account) {
			chain, _, err := spend.ChainOf(t.Context(), r.pool, r.run)
			require.NoError(t, err)
			chain.ReadAt = *chain.Leaf().ExpiresAt
			e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, runtest.Call(r.run, "a", 10))
			require.NoError(t, err)
			require.Equal(t, "policy_denied.authorization_expired", e.ReasonCode, "the moment itself is over")
			r.exec(`UPDATE spend_authorizations SET expires_at = clock_timestamp()`)
			require.Equal(t, "policy_denied.authorization_expired", r.hold("a", 10))
			require.ErrorIs(t, r.forced("a", 10), spend.ErrRefused)
			r.exec(`UPDATE spend_authorizations SET not_before = clock_timestamp() + interval '1 hour', expires_at = clock_timestamp() + interval '2 hours'`)
			require.Equal(t, "policy_denied.authorization_not_started", r.hold("a", 10))
			require.ErrorIs(t, r.forced("a", 10), spend.ErrRefused)
		}},
		{"S-11 per call", budget(100, func(g *spend.Grant) { g.Terms.MaxPerCallSats = p[int64](5) }), func(t *testing.T, r *account) {
			require.Equal(t, "policy_denied.per_call_limit_exceeded", r.hold("a", 6))
			require.ErrorIs(t, r.forced("a", 6), spend.ErrRefused)
			r.requireAt(0, 0)
			require.Empty(t, r.hold("a", 5))
		}},
		{"S-12 per day", budget(100, func(g *spend.Grant) { g.Terms.MaxPerDaySats = p[int64](30) }), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 20))
			r.commit("a", 20)
			require.Empty(t, r.hold("b", 5))
			require.Equal(t, "policy_denied.per_day_limit_exceeded", r.hold("c", 6))
			require.ErrorIs(t, r.forced("c", 6), spend.ErrRefused)
			r.release("b")
			require.Empty(t, r.hold("c", 6))
			// The next day: what was captured no longer counts, what is held does.
			r.exec(`UPDATE spend_periods SET period_start = period_start - interval '1 day'`)
			require.Equal(t, "policy_denied.per_day_limit_exceeded", r.hold("d", 25))
			require.ErrorIs(t, r.forced("d", 25), spend.ErrRefused)
			require.Empty(t, r.hold("d", 24))
			r.commit("c", 6)
			require.Equal(t, "policy_denied.per_day_limit_exceeded", r.hold("e", 1))
		}},
		{"S-12 and beyond what was held", budget(100, func(g *spend.Grant) { g.Terms.MaxPerDaySats = p[int64](30) }), func(t *testing.T, r *account) {
			require.Empty(t, r.hold("a", 20))
			r.commit("a", 35)
			require.Equal(t, "policy_denied.per_day_limit_exceeded", r.hold("b", 1))
			require.ErrorIs(t, r.forced("b", 1), spend.ErrRefused)
			r.exec(`UPDATE spend_periods SET period_start = period_start - interval '1 day'`)
			require.Empty(t, r.hold("b", 30))
			r.commit("b", 30)
		}},
		{"S-13 nested", budget(40), func(t *testing.T, r *account) {
			child := r.below(100)
			require.Equal(t, "policy_denied.budget_exhausted", r.hold("a", 41))
			require.ErrorIs(t, r.forced("a", 41), spend.ErrRefused)
			r.requireAt(0, 0, r.auth.AuthorizationID, child.AuthorizationID)
			require.Empty(t, r.hold("a", 40))
			r.requireAt(0, 40, r.auth.AuthorizationID, child.AuthorizationID)
			chain, ok, err := spend.ChainOf(t.Context(), r.pool, r.run)
			require.NoError(t, err)
			require.True(t, ok)
			in := runtest.Call(r.run, "b", 7)
			e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, in)
			require.NoError(t, err)
			lack, ok, err := chain.Exhausted(in, e)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, r.auth.AuthorizationID, lack.Event.AuthorizationID, "the level that has no room is named")
			require.EqualValues(t, 7, lack.Event.ShortfallSats)
		}},
		{"S-14 threshold", budget(100, func(g *spend.Grant) { g.Mode, g.Terms.ThresholdSats = spend.WithThreshold, p[int64](10) }), func(t *testing.T, r *account) {
			child := r.below(100)
			_ = child
			require.Empty(t, r.hold("small", 10))
			in := runtest.Call(r.run, "a", 11)
			chain, _, err := spend.ChainOf(t.Context(), r.pool, r.run)
			require.NoError(t, err)
			e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, in)
			require.NoError(t, err)
			require.Equal(t, policy.NeedsApproval, e.Decision)
			require.Equal(t, "policy_denied.approval_required", e.ReasonCode)
			_, err = spend.Reserve(chain, in, e, 0)
			require.Error(t, err, "nobody has approved it")
			hash, err := spend.ArgsHash("", in.Quote)
			require.NoError(t, err)
			approved := func(in *spend.Intent) {
				in.Approval = &db.Approval{ApprovalID: "appr_1", State: "approved", ArgsHash: hash, PolicyHash: e.PolicyHash}
			}
			require.Equal(t, "policy_denied.approval_required", r.hold("a", 12, approved), "other arguments")
			require.Empty(t, r.hold("a", 11, approved))
			require.Equal(t, "appr_1", *r.reservation("a").ApprovalID)
			require.Equal(t, "policy_denied.approval_rejected", r.hold("b", 11, func(in *spend.Intent) {
				approved(in)
				in.Approval.State = "rejected"
			}))
		}},
		{"S-15 deny", budget(100, func(g *spend.Grant) { g.Mode = spend.Deny }), func(t *testing.T, r *account) {
			require.Equal(t, "policy_denied.explicit_deny", r.hold("a", 1))
			require.ErrorIs(t, r.forced("a", 1), spend.ErrRefused)
		}},
		{"S-16 unlimited", budget(100), func(t *testing.T, r *account) {
			var wrong *spend.TermsError
			g := budget(1)
			g.Terms.MaxTotalSats = nil
			_, _, err := spend.Create(t.Context(), r.pool, g, "test")
			require.ErrorAs(t, err, &wrong)
			g = spend.Grant{Mode: spend.System}
			_, _, err = spend.Create(t.Context(), r.pool, g, "test")
			require.ErrorAs(t, err, &wrong, "a system's has a cap of a period at least")
			g.Terms.MaxPerDaySats = p[int64](1e12)
			system := runtest.Authorize(t, r.pool, g)
			chain, ok, err := spend.ChainOfID(t.Context(), r.pool, system.AuthorizationID)
			require.NoError(t, err)
			require.True(t, ok)
			denied, err := r.p.HoldUnder(t.Context(), chain, runtest.Call(r.run, "a", 1e12), 0)
			require.NoError(t, err)
			require.Empty(t, denied)
			chain, _, err = spend.ChainOfID(t.Context(), r.pool, system.AuthorizationID)
			require.NoError(t, err)
			denied, err = r.p.HoldUnder(t.Context(), chain, runtest.Call(r.run, "b", 1), 0)
			require.NoError(t, err)
			require.Equal(t, "policy_denied.per_day_limit_exceeded", denied)
		}},
		{"S-17 concurrent same id", budget(100), func(t *testing.T, r *account) {
			second := runtest.NewProcess(t, r.pool)
			chain, _, err := spend.ChainOf(t.Context(), r.pool, r.run)
			require.NoError(t, err)
			e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, runtest.Call(r.run, "a", 10))
			require.NoError(t, err)
			var mu sync.Mutex
			var created, there int
			var g errgroup.Group
			for i := range 16 {
				g.Go(func() error {
					change, err := spend.Reserve(chain, runtest.Call(r.run, "a", 10), e, 0)
					if err != nil {
						return err
					}
					process := []*runtest.Process{r.p, second}[i%2]
					_, err = process.Log.Commit(t.Context(), runlog.Unit{RunKey: r.run.RunKey, RunID: r.run.RunID,
						Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						created++
						return nil
					}
					there++
					require.ErrorIs(t, spend.Cause(err), spend.ErrExists)
					return nil
				})
			}
			require.NoError(t, g.Wait())
			require.Equal(t, 1, created)
			require.Equal(t, 15, there)
			r.requireAt(0, 10)
		}},
		{"S-18 drift", budget(1e9), func(t *testing.T, r *account) {
			var g errgroup.Group
			for w := range 8 {
				run, random := runtest.Run(t, r.pool), rand.New(rand.NewPCG(18, uint64(w)))
				g.Go(func() error {
					for i := range 10_000 / 8 / 2 {
						call := fmt.Sprintf("call-%d", i)
						n := 1 + random.Int64N(1000)
						if denied, err := r.p.Hold(t.Context(), runtest.Call(run, call, n), 0); err != nil || denied != "" {
							return fmt.Errorf("hold: %s %w", denied, err)
						}
						if err := r.p.Settle(t.Context(), run, call, 0, func(h db.SpendReservation) (runlog.Change, error) {
							switch random.IntN(4) {
							case 0:
								return spend.Commit(h, spend.Settled{AmountSats: random.Int64N(n + 10)}, 0)
							case 1:
								return spend.Release(h, "", 0), nil
							case 2:
								return spend.Mark(h, "", 0), nil
							}
							return runlog.Change{}, nil
						}); err != nil {
							return err
						}
					}
					return nil
				})
			}
			require.NoError(t, g.Wait())
			runtest.RequireBooks(t, r.pool)
		}},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.steps(t, newAccount(t, s.grant))
		})
	}
}

// forced is a hold that policy was not asked about: what the tables themselves say.
func (r *account) forced(call string, sats int64) error {
	r.Helper()
	chain, _, err := spend.ChainOf(r.Context(), r.pool, r.run)
	require.NoError(r, err)
	change, err := spend.Reserve(chain, runtest.Call(r.run, call, sats), policy.Evaluation{Decision: policy.Allowed, Hash: canon.Hash(nil)}, 0)
	require.NoError(r, err)
	_, err = r.p.Log.Commit(r.Context(), runlog.Unit{RunKey: r.run.RunKey, RunID: r.run.RunID,
		Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
	return spend.Cause(err)
}

// below issues an authorization for the run, below the account's own.
func (r *account) below(most int64) db.SpendAuthorization {
	r.Helper()
	g := runtest.Budget(most)
	g.ParentAuthorizationID, g.RunID = r.auth.AuthorizationID, r.run.RunID
	return runtest.Authorize(r, r.pool, g)
}

// ledger tells the ledger's movements in order.
func (r *account) ledger() (lines []string) {
	r.Helper()
	s, err := spend.Statement(r.Context(), r.pool, r.auth.AuthorizationID, time.Time{}, time.Now().Add(time.Hour), spend.Place{}, 1000)
	require.NoError(r, err)
	for _, l := range s.Lines {
		lines = append(lines, fmt.Sprintf("%s %d", l.Entry.Kind, l.Entry.AmountSats))
	}
	return lines
}

func (r *account) lastSettled() (told event.ToolSettledV1) {
	r.Helper()
	require.NoError(r, runlog.Each(r.Context(), r.pool, r.run.RunKey, 0, func(e db.RunLog) error {
		if e.EventType != event.TypeToolSettled {
			return nil
		}
		decoded, err := runlog.Decode(e)
		if s, ok := decoded.(event.ToolSettledV1); ok {
			told = s
		}
		return err
	}))
	return told
}

func TestOneRunOneHoldWhateverTheEpoch(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	first, second := runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)
	auth := runtest.Authorize(t, pool, runtest.Budget(1000))
	run := runtest.Run(t, pool)
	old, ok := runtest.Hold(t, first, run)
	require.True(t, ok)
	defer runtest.LetGo(old)
	runtest.Expire(t, pool, run)
	now, ok := runtest.Hold(t, second, run)
	require.True(t, ok)
	defer runtest.LetGo(now)

	chain, _, err := spend.ChainOf(t.Context(), pool, run)
	require.NoError(t, err)
	_, err = first.HoldUnder(t.Context(), chain, runtest.Call(run, "a", 10), old.Epoch)
	require.ErrorIs(t, err, runlog.ErrFenced)
	denied, err := second.HoldUnder(t.Context(), chain, runtest.Call(run, "a", 10), now.Epoch)
	require.NoError(t, err)
	require.Empty(t, denied)
	_, err = first.HoldUnder(t.Context(), chain, runtest.Call(run, "a2", 10), old.Epoch)
	require.ErrorIs(t, err, runlog.ErrFenced)

	// A unit that forgets its fence does not get by the row's own.
	e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, runtest.Call(run, "b", 10))
	require.NoError(t, err)
	change, err := spend.Reserve(chain, runtest.Call(run, "b", 10), e, old.Epoch)
	require.NoError(t, err)
	_, err = first.Log.Commit(t.Context(), runlog.Unit{RunKey: run.RunKey, RunID: run.RunID,
		Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
	require.ErrorIs(t, spend.Cause(err), runlog.ErrFenced)

	held, err := spend.Reservation(t.Context(), pool, run.RunKey, "a")
	require.NoError(t, err)
	paid, err := spend.Commit(held, spend.Settled{AmountSats: 10}, old.Epoch)
	require.NoError(t, err)
	require.ErrorIs(t, spend.Settle(t.Context(), first.Log, held, old.Epoch, paid), runlog.ErrFenced)
	require.NoError(t, spend.Settle(t.Context(), second.Log, held, now.Epoch, paid))
	a, err := spend.Get(t.Context(), pool, auth.AuthorizationID)
	require.NoError(t, err)
	require.EqualValues(t, 10, a.SpentSats)
	require.Zero(t, a.ReservedSats)
	runtest.RequireBooks(t, pool)
}

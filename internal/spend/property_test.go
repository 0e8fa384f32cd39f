package spend_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// op is something that a writer does with money.
type op struct {
	do         string
	run        int // of those that writers share
	call, auth int
	sats       int64
}

var ops = []string{"hold", "hold", "hold", "commit", "commit", "release", "mark", "found_paid", "found_not", "maybe_billed",
	"amend", "amend", "per_call", "per_day", "revoke", "issue", "next_day", "recover"}

func drawOps(t *rapid.T, label string, n int) []op {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) op {
		return op{
			do:   rapid.SampledFrom(ops).Draw(t, "do"),
			run:  rapid.IntRange(0, 1).Draw(t, "run"),
			call: rapid.IntRange(0, 5).Draw(t, "call"),
			auth: rapid.IntRange(0, 4).Draw(t, "authorization"),
			sats: rapid.Int64Range(1, 40).Draw(t, "sats"),
		}
	}), 1, n).Draw(t, label)
}

// world is a tree of authorizations and the runs that spend under its leaves:
// run i is paid by the child i, below one root.
type world struct {
	pool   *pgxpool.Pool
	root   string
	leaves []string
	runs   []db.Run
}

func newWorld(ctx context.Context, t *rapid.T, pool *pgxpool.Pool, runs int) *world {
	w := &world{pool: pool}
	issue := func(g spend.Grant) string {
		a, _, err := spend.Create(ctx, pool, g, "test")
		require.NoError(t, err)
		return a.AuthorizationID
	}
	g := budget(rapid.Int64Range(20, 120).Draw(t, "root's cap"))
	g.ScopeKind = spend.ScopeOrganisation
	if rapid.Bool().Draw(t, "a day's cap") {
		g.Terms.MaxPerDaySats = p(rapid.Int64Range(10, 60).Draw(t, "day"))
	}
	w.root = issue(g)
	for range runs {
		g := budget(rapid.Int64Range(10, 90).Draw(t, "leaf's cap"))
		g.ParentAuthorizationID = w.root
		r, err := startRun(ctx, pool)
		require.NoError(t, err)
		g.RunID = r.RunID
		w.leaves, w.runs = append(w.leaves, issue(g)), append(w.runs, r)
	}
	return w
}

// expected are the refusals that an op may meet: of the state that it finds.
func expected(err error) bool {
	var terms *spend.TermsError
	var below *spend.BelowUsedError
	return err == nil || errors.Is(err, spend.ErrMoved) || errors.Is(err, spend.ErrNotFound) || errors.Is(err, spend.ErrRevoked) ||
		errors.Is(err, spend.ErrParent) || errors.As(err, &terms) || errors.As(err, &below)
}

// apply does one op in run i. What a hold was refused for is denied.
func (w *world) apply(ctx context.Context, proc *runtest.Process, i int, o op) (denied string, err error) {
	r, call := w.runs[i], fmt.Sprintf("call-%d", o.call)
	auth := append([]string{w.root}, w.leaves...)[o.auth%(1+len(w.leaves))]
	settle := func(f func(h db.SpendReservation) (runlog.Change, error)) (string, error) {
		return "", proc.Settle(ctx, r, call, 0, f)
	}
	amend := func(change func(*spend.Terms)) (string, error) {
		_, _, err := spend.Amend(ctx, w.pool, auth, spend.Amendment{Actor: "test", Change: func(t spend.Terms) (spend.Terms, error) {
			change(&t)
			return t, nil
		}})
		return "", err
	}
	found := func(outcome string) func(db.SpendReservation) (runlog.Change, error) {
		return func(h db.SpendReservation) (runlog.Change, error) {
			return spend.Reconcile(h, spend.Finding{Outcome: outcome, Evidence: []byte(`{"seen":true}`)}, "operator:ada")
		}
	}
	switch o.do {
	case "hold":
		return proc.Hold(ctx, runtest.Call(r, call, o.sats), 0)
	case "commit":
		return settle(func(h db.SpendReservation) (runlog.Change, error) {
			return spend.Commit(h, spend.Settled{AmountSats: o.sats}, 0)
		})
	case "maybe_billed":
		return settle(func(h db.SpendReservation) (runlog.Change, error) {
			return spend.Commit(h, spend.Settled{AmountSats: h.AmountSats, MaybeBilled: true}, 0)
		})
	case "release":
		return settle(func(h db.SpendReservation) (runlog.Change, error) {
			if h.State == spend.Committed {
				return runlog.Change{}, fmt.Errorf("%w: it is committed", spend.ErrNotFound) // or it would be tried for ever
			}
			return spend.Release(h, "rejected", 0), nil
		})
	case "mark":
		return settle(func(h db.SpendReservation) (runlog.Change, error) {
			if h.State == spend.Committed || h.State == spend.Released {
				return runlog.Change{}, fmt.Errorf("%w: it is settled", spend.ErrNotFound)
			}
			return spend.Mark(h, "timeout", 0), nil
		})
	case "found_paid":
		return settle(found(spend.FoundPaid))
	case "found_not":
		return settle(found(spend.FoundNotPaid))
	case "amend":
		return amend(func(t *spend.Terms) { t.MaxTotalSats = p(3 * o.sats) })
	case "per_call":
		return amend(func(t *spend.Terms) { t.MaxPerCallSats = p(o.sats + 10) })
	case "per_day":
		return amend(func(t *spend.Terms) {
			t.MaxPerDaySats = p(2 * o.sats)
			if o.sats%3 == 0 {
				t.MaxPerDaySats = nil
			}
		})
	case "revoke":
		if o.sats > 8 || auth == w.root { // seldom, or little else happens
			return "", nil
		}
		_, _, err := spend.Revoke(ctx, w.pool, auth, "test", "Enough.")
		return "", err
	case "issue": // the newest of a run pays for it
		g := budget(2 * o.sats)
		g.ParentAuthorizationID, g.RunID = w.root, r.RunID
		_, _, err := spend.Create(ctx, w.pool, g, "test")
		return "", err
	case "next_day":
		_, err := w.pool.Exec(ctx, `UPDATE spend_periods SET period_start = period_start - interval '1 day' WHERE authorization_id = $1`, w.root)
		return "", err
	case "recover":
		_, err := spend.RecoverStuck(ctx, w.pool, proc.Log, 0, nil)
		return "", err
	}
	return "", fmt.Errorf("there is no op %q", o.do)
}

// room is what the database says that a run's chain has left for a call, read
// while nobody else writes.
func (w *world) room(ctx context.Context, i int) (most int64, err error) {
	err = w.pool.QueryRow(ctx, `
		WITH leaf AS (SELECT path FROM spend_authorizations WHERE run_id = $1 ORDER BY inserted_at DESC, authorization_id DESC LIMIT 1)
		SELECT min(CASE WHEN a.revoked_at IS NOT NULL THEN 0
		                ELSE least(a.max_total_sats - a.spent_sats - a.reserved_sats, a.max_per_call_sats,
		                           (SELECT min(p.max_sats - p.held_sats - CASE WHEN p.period_start < date_trunc('day', now(), 'UTC') THEN 0 ELSE p.captured_sats END)
		                            FROM spend_periods p WHERE p.authorization_id = a.authorization_id)) END)
		FROM spend_authorizations a, leaf WHERE a.authorization_id = ANY(leaf.path)`, w.runs[i].RunID).Scan(&most)
	return most, err
}

// Whatever one writer does in whatever order, a hold is let through exactly when
// every level has room for it, the books are right after every step, and each call
// is settled once.
func TestOneWriterIsRefusedExactlyWhenThereIsNoRoom(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	proc := runtest.NewProcess(t, pool)
	ctx := context.WithoutCancel(t.Context())
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(ctx, rt, pool, 1)
		for _, o := range drawOps(rt, "ops", 30) {
			room, err := w.room(ctx, 0)
			require.NoError(rt, err)
			_, read := spend.Reservation(ctx, pool, w.runs[0].RunKey, fmt.Sprintf("call-%d", o.call))
			denied, err := w.apply(ctx, proc, 0, o)
			require.True(rt, expected(err), "%+v: %v", o, err)
			if o.do == "hold" && errors.Is(read, spend.ErrNotFound) {
				require.Equal(rt, room >= o.sats, denied == "", "%d sats of %d: %q", o.sats, room, denied)
			}
			require.NoError(rt, runtest.Books(ctx, pool), "%+v", o)
		}
		require.NoError(rt, w.onceEach(ctx))
	})
}

// Several writers at once, in several processes: never over at any level, the
// books are right, each call is settled once.
func TestWritersTogetherKeepTheBooks(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	processes := []*runtest.Process{runtest.NewProcess(t, pool), runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)}
	ctx := context.WithoutCancel(t.Context())
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(ctx, rt, pool, 2)
		var g errgroup.Group
		for i := range 4 {
			mine := drawOps(rt, fmt.Sprintf("ops of writer %d", i), 20)
			repeat := rapid.Bool().Draw(rt, "everything twice")
			g.Go(func() error {
				for n, o := range mine {
					for range 1 + b2i(repeat) {
						if _, err := w.apply(ctx, processes[(i+n)%len(processes)], o.run, o); !expected(err) {
							return fmt.Errorf("%+v: %w", o, err)
						}
					}
				}
				return nil
			})
		}
		require.NoError(rt, g.Wait())
		require.NoError(rt, runtest.Books(ctx, pool))
		require.NoError(rt, w.onceEach(ctx))
	})
}

// onceEach says which call was held or settled more than once, by the ledger and
// by the log.
func (w *world) onceEach(ctx context.Context) error {
	for _, r := range w.runs {
		var wrong int
		if err := w.pool.QueryRow(ctx, `
			SELECT count(*) FROM (
			    SELECT e.tool_call_id
			    FROM spend_ledger_entries e JOIN spend_reservations r USING (run_key, tool_call_id)
			    WHERE e.run_key = $1
			    GROUP BY e.tool_call_id, r.amount_sats, r.state
			    HAVING count(*) FILTER (WHERE e.kind = 'hold') <> 1
			        OR coalesce(sum(e.amount_sats) FILTER (WHERE e.kind IN ('capture', 'release')), 0)
			           <> CASE WHEN r.state IN ('committed', 'released') THEN r.amount_sats ELSE 0 END
			        OR count(*) FILTER (WHERE e.kind = 'capture') > 1 OR count(*) FILTER (WHERE e.kind = 'release') > 1
			        OR count(*) FILTER (WHERE e.kind = 'overage') > 1 OR count(*) FILTER (WHERE e.kind = 'reversal') > 1) w`, r.RunKey).Scan(&wrong); err != nil {
			return err
		}
		if wrong > 0 {
			return fmt.Errorf("%d calls of run %s are not settled once", wrong, r.RunID)
		}
		if err := w.pool.QueryRow(ctx, `
			SELECT count(*) FROM spend_reservations r
			WHERE r.run_key = $1 AND (SELECT count(*) FROM run_log l WHERE l.run_key = r.run_key AND l.event_type = 'tool.reserved'
			                          AND l.payload->>'tool_call_id' = r.tool_call_id) <> 1`, r.RunKey).Scan(&wrong); err != nil {
			return err
		}
		if wrong > 0 {
			return fmt.Errorf("%d holds of run %s are not in the log once", wrong, r.RunID)
		}
	}
	return nil
}

func startRun(ctx context.Context, pool *pgxpool.Pool) (db.Run, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	r, _, err := run.Start(ctx, pool, runtest.Envelope())
	return r, err
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

package lease_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

var note = runlog.Append(event.MessageDeltaV1{PartID: "p", Delta: "x"})

func TestARunHasOneHolder(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	a, b := runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	err := a.Leases.With(t.Context(), r, func(ctx context.Context, _ *lease.Held) error {
		return b.Leases.With(ctx, r, func(context.Context, *lease.Held) error {
			t.Error("both hold the run")
			return nil
		})
	})
	require.ErrorIs(t, err, lease.ErrHeld)
}

// Somebody's long commit to one run holds up neither who wants that run nor the
// connections that renew leases.
func TestARunThatIsBeingWrittenToIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = runlog.LockHead(t.Context(), tx, r.RunKey)
	require.NoError(t, err)
	take := func() error {
		return p.Leases.With(t.Context(), r, func(context.Context, *lease.Held) error { return nil })
	}
	require.ErrorIs(t, take(), lease.ErrHeld)
	require.NoError(t, tx.Rollback(t.Context()))
	require.NoError(t, take())
}

// A process that cannot be heard in the middle of a commit keeps the head locked.
// Who wants the run ends that session, but not the one of a holder that is alive.
func TestALostRunIsNotKeptLocked(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcessTTL(t, pool, 900*time.Millisecond)
	r := runtest.Run(t, pool)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }() // its session has ended
	holder, ok := runtest.Hold(t, p, r)
	require.True(t, ok)
	_, err = runlog.LockHead(t.Context(), tx, r.RunKey)
	require.NoError(t, err)
	take := func() error {
		return p.Leases.With(t.Context(), r, func(context.Context, *lease.Held) error { return nil })
	}
	for range 3 {
		if _, err := pool.Exec(t.Context(), "UPDATE run_leases SET lease_expires_at = clock_timestamp() + interval '1 minute'"); err != nil {
			t.Fatal(err)
		}
		require.ErrorIs(t, take(), lease.ErrHeld)
	}
	_, err = tx.Exec(t.Context(), "SELECT 1")
	require.NoError(t, err, "the lease is live")
	runtest.Expire(t, pool, r)
	require.Eventually(t, func() bool { return take() == nil }, 20*time.Second, 10*time.Millisecond)
	_, err = tx.Exec(t.Context(), "SELECT 1")
	require.Error(t, err)
	runtest.LetGo(holder)
}

func TestASleeperCannotWrite(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	err := p.Leases.With(t.Context(), r, func(ctx context.Context, sleeper *lease.Held) error {
		_, err := sleeper.Commit(ctx, note)
		require.NoError(t, err)
		runtest.Expire(t, pool, r)
		require.NoError(t, p.Leases.With(ctx, r, func(ctx context.Context, next *lease.Held) error {
			require.Greater(t, next.Epoch, sleeper.Epoch)
			require.EqualValues(t, 1, next.Losses)
			_, err := sleeper.Commit(ctx, note)
			require.ErrorIs(t, err, lease.ErrLost)
			_, err = next.Commit(ctx, note)
			return err
		}))
		return nil
	})
	require.NoError(t, err)
	require.Len(t, runtest.Types(t, pool, r), 3)
}

func TestTheEpochGrowsOverReleases(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	for want := range int64(3) {
		require.NoError(t, p.Leases.With(t.Context(), r, func(_ context.Context, h *lease.Held) error {
			require.Equal(t, want+1, h.Epoch)
			require.Zero(t, h.Losses)
			return nil
		}))
	}
}

// A holder that fails again and again is counted as lost, so that the run does
// not go round for ever.
func TestFailuresAndPanicsCountAsLosses(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	fail := errors.New("fails")
	require.ErrorIs(t, p.Leases.With(t.Context(), r, func(context.Context, *lease.Held) error { return fail }), fail)
	require.Panics(t, func() {
		_ = p.Leases.With(t.Context(), r, func(_ context.Context, h *lease.Held) error {
			require.EqualValues(t, 1, h.Losses)
			panic("fails")
		})
	})
	require.NoError(t, p.Leases.With(t.Context(), r, func(ctx context.Context, h *lease.Held) error {
		require.EqualValues(t, 2, h.Losses)
		_, err := h.Commit(ctx, func(runlog.Head) (runlog.Change, error) {
			return runlog.Change{Rows: []runlog.Row{h.Progress()}}, nil
		})
		return err
	}))
	runtest.Expire(t, pool, r)
	require.NoError(t, p.Leases.With(t.Context(), r, func(_ context.Context, h *lease.Held) error {
		require.Zero(t, h.Losses, "the holder before has released the run")
		return nil
	}))
}

// Losses in a row are dated from the first of them; progress or a release ends
// the row.
func TestLossesAreDatedFromTheFirst(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	take := func(f func(h *lease.Held)) {
		t.Helper()
		h, ok := runtest.Hold(t, p, r)
		require.True(t, ok)
		f(h)
		runtest.Expire(t, pool, r)
		_, err := pool.Exec(t.Context(), "UPDATE run_leases SET lost_since = lost_since - interval '1 hour'")
		require.NoError(t, err)
	}
	var held []*lease.Held
	defer func() {
		for _, h := range held {
			runtest.LetGo(h)
		}
	}()
	var first time.Time
	take(func(h *lease.Held) {
		held = append(held, h)
		require.True(t, h.LostSince.IsZero())
		require.Zero(t, h.LostFor)
	})
	take(func(h *lease.Held) {
		held = append(held, h)
		first = h.LostSince
		require.False(t, first.IsZero())
		require.Greater(t, h.LostFor, time.Duration(0))
	})
	take(func(h *lease.Held) {
		held = append(held, h)
		require.EqualValues(t, 2, h.Losses)
		require.Equal(t, first.Add(-time.Hour), h.LostSince)
		require.Greater(t, h.LostFor, time.Hour)
		ack, err := h.Commit(t.Context(), func(runlog.Head) (runlog.Change, error) {
			return runlog.Change{Events: []event.Event{event.RunWokenV1{Cause: "frame"}}, Rows: []runlog.Row{h.Progress()}}, nil
		})
		require.NoError(t, err)
		require.EqualValues(t, 2, ack.FirstSeq)
	})
	take(func(h *lease.Held) {
		held = append(held, h)
		require.EqualValues(t, 1, h.Losses)
		require.EqualValues(t, 2, h.ProgressSeq)
		require.Less(t, h.LostFor, time.Hour, "there was progress since")
	})
	require.NoError(t, p.Leases.With(t.Context(), r, func(context.Context, *lease.Held) error { return nil }))
	require.NoError(t, p.Leases.With(t.Context(), r, func(_ context.Context, h *lease.Held) error {
		require.True(t, h.LostSince.IsZero(), "the holder before has released the run")
		return nil
	}))
}

func TestALostLeaseEndsItsHoldersContext(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	err := p.Leases.With(t.Context(), r, func(ctx context.Context, _ *lease.Held) error {
		require.NoError(t, p.Leases.Renew(ctx))
		require.NoError(t, ctx.Err())
		runtest.Expire(t, pool, r)
		require.NoError(t, p.Leases.Renew(ctx))
		<-ctx.Done()
		return context.Cause(ctx)
	})
	require.ErrorIs(t, err, lease.ErrLost)
}

// A process whose renewals do not get through stops itself before anybody else
// may take the run.
func TestAHolderStopsItselfBeforeItsLeaseExpires(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcessTTL(t, pool, 900*time.Millisecond)
	r := runtest.Run(t, pool)
	err := p.Leases.With(t.Context(), r, func(ctx context.Context, h *lease.Held) error {
		<-ctx.Done() // nobody renews
		require.False(t, h.Trusted())
		_, err := h.Commit(context.WithoutCancel(ctx), note)
		require.ErrorIs(t, err, lease.ErrLost)
		live := false
		require.NoError(t, pool.QueryRow(context.WithoutCancel(ctx),
			"SELECT lease_expires_at > clock_timestamp() FROM run_leases WHERE run_key = $1", r.RunKey).Scan(&live))
		require.True(t, live, "the lease had expired before its holder stopped")
		return context.Cause(ctx)
	})
	require.ErrorIs(t, err, lease.ErrLost)
}

func TestATerminalCommitReleasesTheLease(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	require.NoError(t, p.Leases.With(t.Context(), r, func(ctx context.Context, h *lease.Held) error {
		_, err := h.Commit(ctx, func(runlog.Head) (runlog.Change, error) {
			return runlog.Change{Events: []event.Event{event.StreamClosedV1{}}, Rows: []runlog.Row{h.Release()}}, nil
		})
		require.NoError(t, err)
		h.Released()
		row, err := db.New(pool).RunLeaseGet(ctx, r.RunKey)
		require.NoError(t, err)
		require.True(t, row.Released)
		return nil
	}))
}

// However leases expire and change hands, only the newest holder commits.
func TestOnlyTheNewestHolderCommits(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	processes := []*runtest.Process{runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)}
	rapid.Check(t, func(rt *rapid.T) {
		r := runtest.Run(t, pool)
		var holders []*lease.Held
		defer func() {
			for _, h := range holders {
				runtest.LetGo(h)
			}
		}()
		rt.Repeat(map[string]func(*rapid.T){
			"take": func(rt *rapid.T) {
				p := rapid.SampledFrom(processes).Draw(rt, "process")
				if h, ok := runtest.Hold(t, p, r); ok {
					holders = append(holders, h)
				}
			},
			"expire": func(*rapid.T) {
				if len(holders) > 0 {
					runtest.Expire(t, pool, r)
				}
			},
			"write": func(rt *rapid.T) {
				if len(holders) == 0 {
					return
				}
				i := rapid.IntRange(0, len(holders)-1).Draw(rt, "holder")
				_, err := holders[i].Commit(t.Context(), note)
				if newest := i == len(holders)-1; newest != (err == nil) {
					rt.Fatalf("holder %d of %d: %v", i+1, len(holders), err)
				}
			},
		})
	})
}

// Taking does not wait for the connections that renew.
func TestLeasesAreTakenThroughAPoolOfTheirOwn(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	renewing, err := pgxpool.New(t.Context(), dbtest.URL(t))
	require.NoError(t, err)
	renewing.Close()
	k := lease.NewKeeper(renewing, p.Log, "test", time.Minute, telemetry.NewMetrics())
	never := func(context.Context, *lease.Held) error { return errors.New("held") }
	require.Error(t, k.With(t.Context(), r, never))
	k.Takes = pool
	taken := false
	require.NoError(t, k.With(t.Context(), r, func(context.Context, *lease.Held) error {
		taken = true
		return nil
	}))
	require.True(t, taken)
}

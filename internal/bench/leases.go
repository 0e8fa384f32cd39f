package main

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// renewals is a process's heartbeat for all its leases, and the share of them
// that touched no index.
func (s *subjects) renewals() cell {
	return cell{name: "renew many", prepare: s.takeLeases, measure: func(ctx context.Context, d time.Duration) (result, error) {
		held := len(s.keeper.Keys())
		r, err := load(ctx, 1, d, held, func(ctx context.Context, _ int) error { return s.keeper.Renew(ctx) })
		if err != nil {
			return r, err
		}
		var hot float64
		err = s.plain.pool.QueryRow(ctx, `SELECT coalesce(n_tup_hot_upd::float8 / nullif(n_tup_upd, 0), 1)
			FROM pg_stat_user_tables WHERE relname = 'run_leases'`).Scan(&hot)
		return r.with("hot", hot), err
	}}
}

// renewsOne renews the same leases one by one, a commit each.
func (s *subjects) renewsOne() cell {
	var keys []uuid.UUID
	at := 0
	return cell{name: "renew one", prepare: func(ctx context.Context) error {
		err := s.takeLeases(ctx)
		keys = s.keeper.Keys()
		return err
	}, measure: func(ctx context.Context, d time.Duration) (result, error) {
		return s.plain.each(ctx, 1, func(conns []*pgxpool.Conn) (result, error) {
			return load(ctx, 1, d, 1, func(ctx context.Context, _ int) error {
				at++
				_, err := conns[0].Exec(ctx, `UPDATE runtime.run_leases SET lease_expires_at = clock_timestamp() + $2::interval, heartbeat_at = clock_timestamp()
					WHERE run_key = $1`, keys[at%len(keys)], leaseTTL)
				return err
			})
		})
	}}
}

// takeLeases has a keeper of its own hold many leases.
func (s *subjects) takeLeases(ctx context.Context) error {
	if s.keeper != nil {
		return nil
	}
	s.keeper = lease.NewKeeper(s.std.pool, s.std.log, "bench leases", leaseTTL, telemetry.NewMetrics())
	var g errgroup.Group
	g.SetLimit(16)
	for range s.o.size.leases {
		g.Go(func() error {
			r, err := newRun(ctx, s.std)
			if err != nil {
				return err
			}
			_, err = s.take(ctx, s.keeper, r)
			return err
		})
	}
	return g.Wait()
}

// startsHeld is n clients that start runs and take their leases, which are kept.
func (s *subjects) startsHeld(name string, n int) cell {
	return cell{name: name, measure: func(ctx context.Context, d time.Duration) (result, error) {
		ctx = telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
		return load(ctx, n, d, 1, func(ctx context.Context, _ int) error {
			r, err := newRun(ctx, s.std)
			if err != nil {
				return err
			}
			return s.std.leases.With(ctx, r, func(_ context.Context, h *lease.Held) error {
				h.Released() // leaves the row as it is: giving it back is not measured
				return nil
			})
		})
	}}
}

package main

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// atOnce is how long a cancel may take to stop the work.
const atOnce = 250 * time.Millisecond

// cancels cancels 2n runs at work in each round, which two processes share, each
// through the one that does not execute it.
func cancels(ttl time.Duration, n, rounds int) measurement {
	return measurement{"cancel", ttl, func(ctx context.Context, w *world) ([]figure, error) {
		bounds := []bound{{"p99", atOnce}}
		c := &cancelTimes{
			hungUp:   figure{what: "cancel acknowledged to the provider hung up on", ttl: ttl, bounds: bounds},
			last:     figure{what: "cancel in the log to the last token in it", ttl: ttl, bounds: bounds},
			finished: figure{what: "cancel in the log to the run's end in it", ttl: ttl, bounds: bounds},
		}
		var both []*rig.Process
		for _, name := range []string{"process 1", "process 2"} {
			p, err := w.launch(ctx, ttl, name, w.db.Direct())
			if err != nil {
				return nil, err
			}
			both = append(both, p)
		}
		for range rounds {
			ids, err := w.begin(ctx, 2*n, both...)
			if err != nil {
				return nil, err
			}
			if err := c.round(ctx, w, both, ids); err != nil {
				return nil, err
			}
		}
		return []figure{c.hungUp, c.last, c.finished}, nil
	}}
}

type cancelTimes struct{ hungUp, last, finished figure }

func (c *cancelTimes) round(ctx context.Context, w *world, both []*rig.Process, ids []string) error {
	mine, err := w.moments(ctx, `SELECT run_id, lease_expires_at FROM run_leases JOIN runs USING (run_key)
		WHERE run_id = ANY($1) AND lease_owner = $2 AND NOT released`, ids, both[0].Owner)
	if err != nil {
		return err
	}
	acknowledged := make([]time.Time, len(ids))
	var g errgroup.Group
	for i, id := range ids {
		through := both[0]
		if _, executes := mine[id]; executes {
			through = both[1]
		}
		g.Go(func() (err error) {
			acknowledged[i], err = cancel(ctx, through.API, id)
			return err
		})
		if err := rig.Pause(ctx, time.Duration(10+rand.IntN(30))*time.Millisecond); err != nil {
			return err
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	finished, err := w.firsts(ctx, ids, "run.finished", time.Time{})
	if err != nil {
		return err
	}
	asked, err := w.firsts(ctx, ids, "run.cancel_requested", time.Time{})
	if err != nil {
		return err
	}
	tokens, err := w.moments(ctx, `SELECT run_id, max(created_at) FROM run_events
		WHERE run_id = ANY($1) AND event_type = 'message.delta' GROUP BY run_id`, ids)
	if err != nil {
		return err
	}
	for i, id := range ids {
		err := w.until(ctx, "the provider is hung up on", func() (bool, error) { return !w.provider.hungUp(id).IsZero(), nil })
		if err != nil {
			return err
		}
		c.hungUp.add(max(0, w.provider.hungUp(id).Sub(acknowledged[i])))
		c.last.add(max(0, tokens[id].Sub(asked[id])))
		c.finished.add(finished[id].Sub(asked[id]))
	}
	return nil
}

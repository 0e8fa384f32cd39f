package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// outages kills Postgres while 2n runs are at work in two processes, each with a
// client that follows it, starts it again, and times what comes then.
func outages(ttl time.Duration, n, rounds int) measurement {
	return measurement{"postgres", ttl, func(ctx context.Context, w *world) ([]figure, error) {
		appended := figure{what: "Postgres accepts connections again to the first append", ttl: ttl, bounds: []bound{{"max", time.Second}}}
		resumed := figure{what: "the same to the next event at each client", ttl: ttl, bounds: []bound{{"p99", 2 * time.Second}}}
		var both []*rig.Process
		for _, name := range []string{"process 1", "process 2"} {
			p, err := w.launch(ctx, ttl, name, w.db.URL(w.db.Address()))
			if err != nil {
				return nil, err
			}
			both = append(both, p)
		}
		for range rounds {
			if err := outage(ctx, w, both, n, &appended, &resumed); err != nil {
				return nil, err
			}
		}
		return []figure{appended, resumed}, nil
	}}
}

func outage(ctx context.Context, w *world, both []*rig.Process, n int, appended, resumed *figure) error {
	ids, err := w.begin(ctx, 2*n, both...)
	if err != nil {
		return err
	}
	f := follow(ctx, w, ids)
	defer f.stop()
	if err := f.attached(ctx); err != nil {
		return err
	}
	if err := w.db.Kill(); err != nil {
		return err
	}
	if err := rig.Pause(ctx, time.Duration(rand.IntN(1000))*time.Millisecond); err != nil {
		return err
	}
	starts := time.Now()
	if err := w.db.Start(ctx); err != nil {
		return err
	}
	accepts := time.Now()
	for _, one := range f.all {
		err := w.until(ctx, "every client gets an event", func() (bool, error) { return !one.firstAfter(accepts).IsZero(), nil })
		if err != nil {
			return err
		}
		resumed.add(one.firstAfter(accepts).Sub(accepts))
	}
	var first time.Time
	err = w.db.Pool.QueryRow(ctx, `SELECT min(created_at) FROM run_events WHERE run_id = ANY($1) AND created_at > $2`, ids, starts).Scan(&first)
	if err != nil {
		return err
	}
	appended.add(max(0, first.Sub(accepts)))
	if err := w.finish(ctx, ids); err != nil {
		return err
	}
	return f.whole(ctx)
}

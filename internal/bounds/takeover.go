package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// takeovers kills a process with n runs at work, and times when another goes on
// with each.
func takeovers(ttl time.Duration, n, rounds int) measurement {
	return measurement{"kill", ttl, func(ctx context.Context, w *world) ([]figure, error) {
		took := figure{what: "kill -9 to the first event of the next executor", ttl: ttl, bounds: []bound{
			{"p50", ttl * 13 / 10}, {"p99", ttl + ttl/3 + tick(ttl) + time.Second},
		}}
		early := figure{what: "the same, counted from the end of the lost lease", ttl: ttl, bounds: []bound{{"min", 0}}}
		err := relay(ctx, w, ttl, n, rounds, func(old *rig.Process, ids []string) error {
			at, err := w.now(ctx)
			if err != nil {
				return err
			}
			if err := old.Signal(syscall.SIGKILL); err != nil {
				return err
			}
			<-old.Done
			ends, err := w.leases(ctx, ids, old.Owner)
			if err != nil {
				return err
			}
			firsts, err := w.firsts(ctx, ids, "run.executor_lost", at)
			for id, first := range firsts {
				took.add(first.Sub(at))
				early.add(first.Sub(ends[id]))
			}
			return err
		})
		return []figure{took, early}, err
	}}
}

// tick is how often an executor looks for runs whose lease has ended.
func tick(ttl time.Duration) time.Duration { return min(time.Second, ttl/4) }

// drains ends a process with n runs at work, each with a client that follows it,
// and times when another goes on with each.
func drains(ttl time.Duration, n, rounds int) measurement {
	return measurement{"drain", ttl, func(ctx context.Context, w *world) ([]figure, error) {
		took := figure{what: "SIGTERM to the first event of the next executor", ttl: ttl, bounds: []bound{{"max", ttl / 10}}}
		err := relay(ctx, w, ttl, n, rounds, func(old *rig.Process, ids []string) error {
			f := follow(ctx, w, ids)
			defer f.stop()
			if _, err := w.leases(ctx, ids, old.Owner); err != nil {
				return err
			}
			if err := f.attached(ctx); err != nil {
				return err
			}
			at, err := w.now(ctx)
			if err != nil {
				return err
			}
			if err := old.Signal(syscall.SIGTERM); err != nil {
				return err
			}
			firsts, err := w.firsts(ctx, ids, "run.step_started", at)
			for _, first := range firsts {
				took.add(first.Sub(at))
			}
			if err != nil {
				return err
			}
			if err := ended(ctx, old); err != nil {
				return err
			}
			if err := w.finish(ctx, ids); err != nil {
				return err
			}
			return f.whole(ctx)
		})
		return []figure{took}, err
	}}
}

// ended waits until a process that was asked to end has done so by itself.
func ended(ctx context.Context, p *rig.Process) error {
	select {
	case <-p.Done:
	case <-time.After(patience):
		return fmt.Errorf("%s does not end; it said:\n%s", p.Name, p.Said)
	case <-ctx.Done():
		return ctx.Err()
	}
	if !p.Cmd.ProcessState.Success() {
		return fmt.Errorf("%s ended with %s; it said:\n%s", p.Name, p.Cmd.ProcessState, p.Said)
	}
	return nil
}

// relay lets two processes share 2n runs and hurts one of them, round after
// round; ids are the runs that it holds. Another takes its place. The rounds are
// spread over the time between two heartbeats.
func relay(ctx context.Context, w *world, ttl time.Duration, n, rounds int, hurt func(old *rig.Process, ids []string) error) error {
	old, err := w.launch(ctx, ttl, "process 1", w.db.Direct())
	if err != nil {
		return err
	}
	next, err := w.launch(ctx, ttl, "process 2", w.db.Direct())
	if err != nil {
		return err
	}
	order := rand.Perm(rounds)
	for round := range rounds {
		all, err := w.begin(ctx, 2*n, old, next)
		if err != nil {
			return err
		}
		ids, err := w.heldBy(ctx, old, all)
		if err != nil {
			return err
		}
		phase := (float64(order[round]) + rand.Float64()) / float64(rounds)
		if err := w.afterHeartbeat(ctx, old, ids[0], time.Duration(phase*float64(ttl/3))); err != nil {
			return err
		}
		if err := hurt(old, ids); err != nil {
			return fmt.Errorf("round %d: %w", round+1, err)
		}
		if err := w.finish(ctx, all); err != nil {
			return err
		}
		old = next
		if next, err = w.launch(ctx, ttl, fmt.Sprintf("process %d", round+3), w.db.Direct()); err != nil {
			return err
		}
	}
	return nil
}

// afterHeartbeat waits for a heartbeat of a process, and so long beyond it.
func (w *world) afterHeartbeat(ctx context.Context, p *rig.Process, id string, d time.Duration) error {
	end := func() (time.Time, error) {
		ends, err := w.leases(ctx, []string{id}, p.Owner)
		return ends[id], err
	}
	first, err := end()
	if err != nil {
		return err
	}
	err = w.until(ctx, "leases are renewed", func() (bool, error) {
		now, err := end()
		return now.After(first), err
	})
	return errors.Join(err, rig.Pause(ctx, d))
}

// followers are the clients of some runs.
type followers struct {
	all    []*follower
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func follow(ctx context.Context, w *world, ids []string) *followers {
	ctx, cancel := context.WithCancel(ctx)
	f := &followers{cancel: cancel}
	for _, id := range ids {
		one := &follower{runID: id, pick: w.pick, retry: 100 * time.Millisecond}
		f.all = append(f.all, one)
		f.wg.Go(func() { one.follow(ctx) })
	}
	return f
}

// attached waits until each has seen something.
func (f *followers) attached(ctx context.Context) error {
	for _, one := range f.all {
		for one.newest().IsZero() {
			if err := rig.Pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *followers) stop() {
	f.cancel()
	f.wg.Wait()
}

// whole waits until each has seen [DONE], and says what any has missed or seen
// twice.
func (f *followers) whole(ctx context.Context) error {
	late := time.AfterFunc(patience, f.cancel)
	defer late.Stop()
	f.wg.Wait()
	for _, one := range f.all {
		if err := one.wrong(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

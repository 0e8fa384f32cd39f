package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// send is all that a run's callers ask, as the fault wants it.
func (t *trial) send(ctx context.Context, c *client) error {
	switch {
	case len(c.tools) > 0:
		return c.workWithTools(ctx, t)
	case c.poisoned:
		return c.workPoisoned(ctx, t)
	case c.canceler:
		return c.workCanceled(ctx, t)
	case t.fault.rude:
		var wg sync.WaitGroup
		rude, stop := context.WithCancel(ctx)
		for range 3 {
			r := &rudeReader{runID: c.runID, fleet: t.fleet, seed: c.rng.Uint64()}
			wg.Go(func() { t.rudeness.Add(r.read(rude)) })
		}
		err := c.work(ctx, t)
		pauseErr := rig.Pause(ctx, 500*time.Millisecond)
		stop()
		wg.Wait()
		return errors.Join(err, pauseErr)
	}
	return c.work(ctx, t)
}

// start starts the run, and waits for the others when a trial has many, so that
// they are at work at once.
func (c *client) start(ctx context.Context, t *trial) error {
	err := c.startAlone(ctx, t.fleet)
	t.started.Done()
	if t.fault.runs > runsPerTrial {
		t.started.Wait()
	}
	return err
}

func (c *client) startAlone(ctx context.Context, f *fleet) error {
	envelope := map[string]any{"runId": c.runID, "threadId": c.runID, "userId": userID, "authenticatedSession": true, "keepOpen": c.keepOpen}
	if len(c.tools) > 0 {
		envelope["toolPolicy"], envelope["clientTools"] = map[string]any{"allow": []string{"*"}}, []any{map[string]any{
			"name": asks, "description": "Asks the user.", "inputSchema": map[string]any{"type": "object"},
		}}
	}
	a, err := insist(ctx, f, c.rng, http.MethodPost, "/runs", "", envelope)
	if err != nil {
		return fmt.Errorf("start the run: %w (%d %s)", err, a.status, a.body)
	}
	if a.status != http.StatusAccepted && a.status != http.StatusOK {
		return fmt.Errorf("start the run: %d %s", a.status, a.body)
	}
	return nil
}

// work starts the run and sends its frames, each until it is answered for good.
func (c *client) work(ctx context.Context, t *trial) error {
	f := t.fleet
	if err := c.start(ctx, t); err != nil {
		return err
	}
	if c.many {
		if err := c.sendMany(ctx, f); err != nil {
			return err
		}
		return c.close(ctx, t)
	}
	for n := range 3 {
		id := c.next(t, n)
		a, err := c.append(ctx, f, c.rng, id)
		switch {
		case err != nil:
			return fmt.Errorf("append a frame: %w (%d %s)", err, a.status, a.body)
		case a.status == http.StatusAccepted, a.status == http.StatusOK:
			c.accepted = append(c.accepted, id)
		case a.code() == "run_finished" && !c.keepOpen && len(c.accepted) > 0:
			c.refused = append(c.refused, id)
		default:
			return fmt.Errorf("append a frame: %d %s", a.status, a.body)
		}
		if err := rig.Pause(ctx, time.Duration(c.rng.IntN(400))*time.Millisecond); err != nil {
			return err
		}
	}
	t.sent.Add(1)
	if !c.keepOpen {
		return nil
	}
	return c.close(ctx, t)
}

// append sends a frame until it is answered for good.
func (c *client) append(ctx context.Context, f *fleet, rng *rand.Rand, id string) (answer, error) {
	return insist(ctx, f, rng, http.MethodPost, "/runs/"+c.runID+"/frames", c.runID, map[string]any{
		"frameId": id, "type": "user_message", "payload": map[string]any{"text": id},
	})
}

// sendMany lets 8 senders send each of 4 frames, all at once, each in an order of
// its own.
func (c *client) sendMany(ctx context.Context, f *fleet) error {
	ids := make([]string, 4)
	for n := range ids {
		ids[n] = uuid.NewString()
	}
	failed := make([]error, 8)
	var wg sync.WaitGroup
	for n := range failed {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), 4))
		wg.Go(func() {
			for _, i := range rng.Perm(len(ids)) {
				a, err := c.append(ctx, f, rng, ids[i])
				if err == nil && a.status != http.StatusAccepted && a.status != http.StatusOK {
					err = fmt.Errorf("append a frame: %d %s", a.status, a.body)
				}
				failed[n] = errors.Join(failed[n], err)
			}
		})
	}
	wg.Wait()
	c.accepted = ids
	return errors.Join(failed...)
}

// workCanceled sends frames, and a cancel that races with them and with the end.
func (c *client) workCanceled(ctx context.Context, t *trial) error {
	f := t.fleet
	if err := c.start(ctx, t); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 5))
	canceled := make(chan error, 1)
	go func() {
		if err := rig.Pause(ctx, time.Duration(rng.IntN(1800))*time.Millisecond); err != nil {
			canceled <- err
			return
		}
		canceled <- c.cancel(ctx, f, rng)
	}()
	for n := range 3 {
		id := c.next(t, n)
		a, err := c.append(ctx, f, c.rng, id)
		switch {
		case err != nil:
			return errors.Join(err, <-canceled)
		case a.status == http.StatusAccepted, a.status == http.StatusOK:
			c.accepted = append(c.accepted, id)
		case a.status == http.StatusConflict:
			c.refused = append(c.refused, id)
		default:
			return errors.Join(fmt.Errorf("append a frame: %d %s", a.status, a.body), <-canceled)
		}
	}
	return <-canceled
}

func (c *client) cancel(ctx context.Context, f *fleet, rng *rand.Rand) error {
	a, err := insist(ctx, f, rng, http.MethodPost, "/runs/"+c.runID+"/cancel", c.runID, map[string]any{"reason": "enough"})
	if err == nil && a.status != http.StatusAccepted && a.status != http.StatusOK {
		err = fmt.Errorf("cancel: %d %s", a.status, a.body)
	}
	return err
}

// workPoisoned sends one frame that kills each process that asks the model about it.
func (c *client) workPoisoned(ctx context.Context, t *trial) error {
	if err := c.start(ctx, t); err != nil {
		return err
	}
	id := uuid.NewString()
	t.w.provider.poisoned(id, t.fleet.killCaller)
	a, err := c.append(ctx, t.fleet, c.rng, id)
	if err == nil && a.status != http.StatusAccepted && a.status != http.StatusOK {
		err = fmt.Errorf("append a frame: %d %s", a.status, a.body)
	}
	return err
}

// close waits for all answers, and cancels the run that waits for more.
func (c *client) close(ctx context.Context, t *trial) error {
	for _, id := range c.accepted {
		steps := 1
		if len(t.w.provider.wished(id)) > 0 {
			steps++
		}
		for range steps {
			select {
			case <-c.stream.steps:
			case <-c.stream.over:
				return errors.New("wait for the answers: the run has ended")
			case <-ctx.Done():
				return fmt.Errorf("wait for the answers: %w", ctx.Err())
			}
		}
	}
	return c.cancel(ctx, t.fleet, c.rng)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/google/uuid"
)

// next is the id of a client's next frame; of its frames the first calls all the
// fault's tools, each further one some of them or none.
func (c *client) next(t *trial, n int) string {
	id := uuid.NewString()
	var wishes []wish
	for _, tool := range c.tools {
		if n == 0 || c.rng.IntN(3) == 0 {
			wishes = append(wishes, wish{tool, t.w.tools.input(tool, id)})
		}
	}
	if len(wishes) > 0 {
		t.w.provider.wishes(id, wishes)
	}
	return id
}

// workWithTools is a caller that carries its own tools out, and lets people
// decide, beside what it does otherwise.
func (c *client) workWithTools(ctx context.Context, t *trial) error {
	serving, stop := context.WithCancel(ctx)
	rng := rand.New(rand.NewPCG(c.rng.Uint64(), 7))
	served := make(chan error, 1)
	go func() { served <- c.serve(serving, t, rng) }()
	work := c.work
	if c.canceler {
		work = c.workCanceled
	}
	err := work(ctx, t)
	if err == nil {
		select {
		case <-c.stream.over:
		case <-ctx.Done():
		}
	}
	stop()
	if late := <-served; !errors.Is(late, context.Canceled) {
		err = errors.Join(err, late)
	}
	return err
}

// serve does what the run wants of its caller until ctx ends.
func (c *client) serve(ctx context.Context, t *trial, rng *rand.Rand) error {
	select {
	case <-t.answers:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		var w want
		select {
		case w = <-c.stream.wanted:
		case <-ctx.Done():
			return ctx.Err()
		}
		var a answer
		var err error
		if w.of == wantsDecision {
			a, err = insist(ctx, t.fleet, rng, http.MethodPost, "/approvals/"+w.id+"/decision", "", map[string]any{"decision": "approved"})
		} else {
			a, err = insist(ctx, t.fleet, rng, http.MethodPost, "/runs/"+c.runID+"/frames", c.runID, map[string]any{
				"frameId": "result:" + w.id, "type": "tool_result", "payload": map[string]any{"toolCallId": w.id, "output": map[string]any{"said": w.id}},
			})
		}
		switch over := a.status == http.StatusConflict && c.canceler; {
		case err != nil:
			return err
		case a.status != http.StatusOK && a.status != http.StatusAccepted && !over:
			return fmt.Errorf("bring a %s: %d %s", w.of, a.status, a.body)
		}
	}
}

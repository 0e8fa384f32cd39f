package model

import (
	"context"
	"fmt"
	"sync"
)

// Turn is what a Script says in one call.
type Turn struct {
	// Wait, when not nil, holds the call before its first event until it is
	// closed or the call's context ends.
	Wait <-chan struct{}
	// Events are emitted in order.
	Events []Event
	// Hold, when not nil, does the same as Wait after the last event.
	Hold <-chan struct{}
	// Err ends the call after its events, instead of a result.
	Err error
	// Finish is FinishStop when empty, FinishToolCalls when there is a call.
	Finish FinishReason
	Usage  Usage
}

// Say is a turn that speaks the deltas.
func Say(deltas ...string) Turn {
	t := Turn{}
	for _, d := range deltas {
		t.Events = append(t.Events, Event{Kind: TextDelta, Delta: d})
	}
	return t
}

// Fail is a turn that ends in err without a word.
func Fail(err error) Turn { return Turn{Err: err} }

// Script answers from a list, one turn a call. It is safe for concurrent use;
// a call beyond the list fails with InvalidRequest.
type Script struct {
	mu       sync.Mutex
	turns    []Turn
	requests []Request
}

// NewScript makes a script of turns.
func NewScript(turns ...Turn) *Script { return &Script{turns: turns} }

// Info names the script; its context window is not bounded.
func (s *Script) Info() Info { return Info{Provider: "script", Model: "script.v1"} }

// Calls says how often the script was asked.
func (s *Script) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// Requests gives what the script was asked, in order.
func (s *Script) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Stream plays the next turn.
func (s *Script) Stream(ctx context.Context, req Request, emit func(Event) error) (Result, error) {
	s.mu.Lock()
	n := len(s.requests)
	s.requests = append(s.requests, req)
	s.mu.Unlock()

	res := Result{Provider: "script", RequestedModel: "script.v1", ServedModel: "script.v1", Attempts: 1,
		ProviderRequestID: fmt.Sprintf("script-%d", n+1)}
	if n >= len(s.turns) {
		return res, &Error{Class: InvalidRequest, Message: fmt.Sprintf("the script has %d turns and was asked for turn %d", len(s.turns), n+1)}
	}
	turn := s.turns[n]
	if err := hold(ctx, turn.Wait); err != nil {
		return res, err
	}
	for _, e := range turn.Events {
		if err := ctx.Err(); err != nil {
			return res, NewCanceled(err)
		}
		res.add(e)
		if err := emit(e); err != nil {
			return res, fmt.Errorf("emit: %w", err)
		}
	}
	if err := hold(ctx, turn.Hold); err != nil {
		return res, err
	}
	if turn.Err != nil {
		return res, turn.Err
	}
	res.Usage = turn.Usage
	switch {
	case turn.Finish != "":
		res.FinishReason = turn.Finish
	case len(res.ToolCalls) > 0:
		res.FinishReason = FinishToolCalls
	default:
		res.FinishReason = FinishStop
	}
	return res, nil
}

func hold(ctx context.Context, until <-chan struct{}) error {
	if until == nil {
		return nil
	}
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return NewCanceled(ctx.Err())
	}
}

// add takes an event into the result.
func (r *Result) add(e Event) {
	switch e.Kind {
	case TextDelta:
		r.Text += e.Delta
	case ReasoningDelta:
		r.Reasoning += e.Delta
	case CallsTool:
		r.ToolCalls = append(r.ToolCalls, *e.ToolCall)
	}
}

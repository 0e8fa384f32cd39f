// Package builtin is a language model made of rules: it needs no key and gives
// the same answer to the same request.
package builtin

import (
	"context"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// Name is the model's name; it changes when answers do.
const Name = "rules.v1"

// DefaultContextTokens is the context window when none is configured.
const DefaultContextTokens = 8192

// Config sets the model up; its zero value works.
type Config struct {
	// Delay is waited before each event, so that a person sees the text flow.
	Delay time.Duration
	// ContextTokens bounds a request, counted by Tokens; 0 is
	// DefaultContextTokens.
	ContextTokens int
}

// Model answers by rules. It has no state.
type Model struct{ cfg Config }

// New makes the model.
func New(cfg Config) *Model {
	if cfg.ContextTokens <= 0 {
		cfg.ContextTokens = DefaultContextTokens
	}
	return &Model{cfg: cfg}
}

// Info names the model and its context window.
func (m *Model) Info() model.Info {
	return model.Info{Provider: "builtin", Model: Name, ContextTokens: m.cfg.ContextTokens}
}

// Stream answers the request. An answer of ten characters or more comes in ten
// deltas or more.
func (m *Model) Stream(ctx context.Context, req model.Request, emit func(model.Event) error) (model.Result, error) {
	in := inputTokens(req)
	res := model.Result{
		Provider: "builtin", RequestedModel: Name, ServedModel: Name, Attempts: 1, FinishReason: model.FinishError,
		Usage: model.Usage{Told: true, InputTokens: in, TotalTokens: in},
	}
	if len(req.Messages) == 0 {
		return res, &model.Error{Class: model.InvalidRequest, Message: "the request has no messages"}
	}
	if in > int64(m.cfg.ContextTokens) {
		return res, &model.Error{Class: model.ContextWindow,
			Message: fmt.Sprintf("the request has %d tokens and the context window %d", in, m.cfg.ContextTokens)}
	}
	a, failed := answer(req)
	if failed != nil {
		return res, failed
	}
	events, finish := a.events(req.MaxOutputTokens)
	for _, e := range events {
		if err := m.pause(ctx); err != nil {
			return res, err
		}
		if err := emit(e); err != nil {
			return res, fmt.Errorf("emit: %w", err)
		}
		if e.Kind == model.CallsTool {
			res.ToolCalls = append(res.ToolCalls, *e.ToolCall)
			res.Usage.OutputTokens += Tokens(e.ToolCall.Name + string(e.ToolCall.Arguments))
		}
		res.Text += e.Delta
	}
	res.FinishReason = finish
	res.Usage.OutputTokens += Tokens(res.Text)
	res.Usage.TotalTokens = in + res.Usage.OutputTokens
	return res, nil
}

// pause waits the configured delay, and not at all once ctx is over.
func (m *Model) pause(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return model.NewCanceled(err)
	}
	if m.cfg.Delay <= 0 {
		return nil
	}
	t := time.NewTimer(m.cfg.Delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return model.NewCanceled(ctx.Err())
	}
}

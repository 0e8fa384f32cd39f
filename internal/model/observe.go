package model

import (
	"context"
	"time"
)

// Observation is what one call looked like from outside.
type Observation struct {
	Provider string
	// Outcome is "ok", the class of the error, or "emit" when the caller's own
	// emit ended the call: a bounded set.
	Outcome  string
	Duration time.Duration
	// FirstDelta is the time until the first event, 0 when there was none.
	FirstDelta time.Duration
	Usage      Usage
	Attempts   int
}

// Observed is a model whose calls are reported to Observe.
type Observed struct {
	Model
	Observe func(Observation)
}

// Stream calls the model and reports the call once it is over.
func (o Observed) Stream(ctx context.Context, req Request, emit func(Event) error) (Result, error) {
	begin := time.Now()
	var first time.Duration
	res, err := o.Model.Stream(ctx, req, func(e Event) error {
		if first == 0 {
			first = time.Since(begin)
		}
		return emit(e)
	})
	outcome := "ok"
	if err != nil {
		if outcome = string(ClassOf(err)); outcome == "" {
			outcome = "emit"
		}
	}
	o.Observe(Observation{
		Provider: o.Info().Provider, Outcome: outcome, Duration: time.Since(begin),
		FirstDelta: first, Usage: res.Usage, Attempts: res.Attempts,
	})
	return res, err
}

package tool

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

// Rates holds calls to how often the extension manifests of their run's owner let
// a provider be asked. Its zero value bounds nothing.
type Rates struct {
	// Pool counts: what all processes let through is in one row for each owner and
	// provider.
	Pool db.DBTX
	// Of is how many calls a minute an owner's manifests let a tool's provider have.
	Of func(ctx context.Context, owner string, s Spec) (perMinute int, bounded bool, err error)
}

// Decide asks policy about a call, and when that allows it whether its provider may
// be asked once more in this minute. A call that is allowed counts from then on, once
// however often it is decided on within the minute; whether it is made after all, or
// with how many attempts, changes nothing of it.
func (r Rates) Decide(ctx context.Context, in ds.PolicyEvaluationV1Input, owner string, runKey uuid.UUID, toolCallID string, s Spec) (policy.Evaluation, error) {
	e, err := policy.Decide(in)
	if err != nil || e.Decision != policy.Allowed || r.Of == nil || s.Kind == Client {
		return e, err
	}
	most, bounded, err := r.Of(ctx, owner, s)
	if err != nil {
		return policy.Evaluation{}, err
	}
	if !bounded {
		return e, nil
	}
	took, err := db.New(r.Pool).ToolRateTake(ctx, db.ToolRateTakeParams{
		Owner: owner, Provider: s.Provider, PerMinute: int32(most), CallID: runKey.String() + " " + toolCallID,
	})
	if err != nil {
		return policy.Evaluation{}, fmt.Errorf("count a call to %s: %w", s.Provider, err)
	}
	in.Rate = &ds.PolicyEvaluationV1Rate{PerMinute: int32(most), Used: took.Used, RetryAfterMs: &took.RoomInMs}
	if took.Taken {
		// It may have been let through when the rate was higher.
		in.Rate.Used, in.Rate.RetryAfterMs = min(took.Used, int32(most))-1, nil
	}
	return policy.Decide(in)
}

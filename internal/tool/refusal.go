package tool

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Refusal is the change that notes once that policy refuses a call of the API,
// which leaves no task: policy.decision, the evaluation's row and the refusal's.
// The same call twice fails with Moved.
func Refusal(q Request, e policy.Evaluation) runlog.Change {
	row := db.ToolRefusalInsertParams{
		RunKey: q.Run.RunKey, ToolCallID: q.ToolCallID, ToolName: q.Spec.Name, ParamsHash: ParamsHash(q.Input),
		ReasonCode: e.ReasonCode, EvaluationHash: e.Hash, RetryAfterMs: milliseconds(e.RetryAfter),
	}
	return runlog.Change{
		Events: []event.Event{decision(q.ToolCallID, q.Spec.Name, e)},
		Rows: []runlog.Row{Evaluated(q.Run.RunKey, e), func(q *db.Queries, _ int64) error {
			return q.ToolRefusalInsert(context.Background(), row)
		}},
	}
}

// RefusedBefore finds the refusal that came before under an id. One of another
// tool or other arguments is tool_call_conflict.
func RefusedBefore(ctx context.Context, q db.DBTX, runKey uuid.UUID, toolCallID, name, paramsHash string) (r db.ToolRefusal, found bool, err error) {
	r, err = db.New(q).ToolRefusalGet(ctx, db.ToolRefusalGetParams{RunKey: runKey, ToolCallID: toolCallID})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return db.ToolRefusal{}, false, nil
	case err != nil:
		return db.ToolRefusal{}, false, fmt.Errorf("get a refusal: %w", err)
	case r.ToolName != name || r.ParamsHash != paramsHash:
		return r, true, conflict(toolCallID, r.ParamsHash)
	}
	return r, true, nil
}

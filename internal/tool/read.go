package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// OpenTasks are a run's tasks that have not ended, in the order in which they
// were asked for.
func OpenTasks(ctx context.Context, q db.DBTX, runKey uuid.UUID) ([]db.ToolTask, error) {
	tasks, err := db.New(q).ToolTaskListOpen(ctx, runKey)
	if err != nil {
		return nil, fmt.Errorf("list the open tool tasks: %w", err)
	}
	return tasks, nil
}

// ByIDs are those of a run's tasks that have the ids.
func ByIDs(ctx context.Context, q db.DBTX, runKey uuid.UUID, ids []string) ([]db.ToolTask, error) {
	tasks, err := db.New(q).ToolTaskListByIDs(ctx, db.ToolTaskListByIDsParams{RunKey: runKey, ToolCallIds: ids})
	if err != nil {
		return nil, fmt.Errorf("list tool tasks: %w", err)
	}
	return tasks, nil
}

// Count is how many calls a run has asked for.
func Count(ctx context.Context, q db.DBTX, runKey uuid.UUID) (int64, error) {
	n, err := db.New(q).ToolTaskCount(ctx, runKey)
	if err != nil {
		return 0, fmt.Errorf("count the tool tasks: %w", err)
	}
	return n, nil
}

// Get finds the call of an id among an owner's runs, or everybody's when owner is
// empty; runKey, when given, says in which. A call of another's run and no call at
// all are the same tool_task_not_found. An id that calls of several runs have is
// invalid_request: the caller must name the run.
func Get(ctx context.Context, q db.DBTX, owner, toolCallID string, runKey *uuid.UUID) (db.ToolTask, error) {
	tasks, err := db.New(q).ToolTaskListByCall(ctx, db.ToolTaskListByCallParams{
		ToolCallID: toolCallID, Owner: optional(owner), RunKey: runKey,
	})
	switch {
	case err != nil:
		return db.ToolTask{}, fmt.Errorf("get a tool task: %w", err)
	case len(tasks) == 0:
		return db.ToolTask{}, fault.New(api.ToolTaskNotFound, "no tool call of a run of yours has this id")
	case len(tasks) > 1:
		return db.ToolTask{}, fault.New(api.InvalidRequest, "runId: calls of several of your runs have this toolCallId; say which run is meant")
	}
	return tasks[0], nil
}

// Known finds the task that came before under an id. One with another tool or
// other arguments is tool_call_conflict.
func Known(ctx context.Context, q db.DBTX, runKey uuid.UUID, toolCallID, name, paramsHash string) (t db.ToolTask, found bool, err error) {
	t, err = db.New(q).ToolTaskGet(ctx, db.ToolTaskGetParams{RunKey: runKey, ToolCallID: toolCallID})
	if errors.Is(err, pgx.ErrNoRows) {
		return db.ToolTask{}, false, nil
	}
	if err != nil {
		return db.ToolTask{}, false, fmt.Errorf("get a tool task: %w", err)
	}
	if t.ToolName != name || t.ParamsHash != paramsHash {
		return t, true, conflict(toolCallID, t.ParamsHash)
	}
	return t, true, nil
}

func conflict(toolCallID, firstHash string) error {
	return fault.New(api.ToolCallConflict,
		"the toolCallId %s came before with another tool or input; the first input has the hash %s", toolCallID, firstHash).
		With("paramsHash", firstHash)
}

// Page is where a list of tasks goes on: after this one.
type Page struct {
	QueuedAt   time.Time
	ToolCallID string
}

// List pages through a run's tasks, newest first. next is nil on the last page.
func List(ctx context.Context, q db.DBTX, runKey uuid.UUID, after *Page, limit int) (tasks []db.ToolTask, next *Page, err error) {
	params := db.ToolTaskListByRunParams{RunKey: runKey, MaxTasks: int32(limit) + 1}
	if after != nil {
		params.BeforeQueuedAt, params.BeforeCallID = &after.QueuedAt, after.ToolCallID
	}
	if tasks, err = db.New(q).ToolTaskListByRun(ctx, params); err != nil {
		return nil, nil, fmt.Errorf("list tool tasks: %w", err)
	}
	if len(tasks) > limit {
		tasks = tasks[:limit]
		last := tasks[limit-1]
		next = &Page{QueuedAt: last.QueuedAt, ToolCallID: last.ToolCallID}
	}
	return tasks, next, nil
}

// Evaluation is the stored document of a decision of policy; nil when there is none.
func Evaluation(ctx context.Context, q db.DBTX, hash string) (json.RawMessage, error) {
	row, err := db.New(q).DsPolicyEvaluationGet(ctx, hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get an evaluation: %w", err)
	}
	return row.Document, nil
}

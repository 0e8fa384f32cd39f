package tool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

const perPass = 500 // runs or tasks that one pass of a sweep changes

// Overdue lets executors find the runs that wait for a client tool's result, or
// for a person, past the deadline; they end what is overdue. It says how many.
func Overdue(ctx context.Context, q db.DBTX) (int64, error) {
	n, err := db.New(q).ToolTaskWakeOverdue(ctx, perPass)
	if err != nil {
		return 0, fmt.Errorf("wake runs with overdue tool calls: %w", err)
	}
	return n, nil
}

// Orphans ends the open tasks of runs that have ended, canceled and with a
// receipt, and says how many. Their runs' logs are closed: the end is in the row,
// the receipt and the process's own log.
func Orphans(ctx context.Context, q db.DBTX) (int64, error) {
	queries := db.New(q)
	tasks, err := queries.ToolTaskListOrphans(ctx, perPass)
	if err != nil {
		return 0, fmt.Errorf("list orphaned tool calls: %w", err)
	}
	var ended int64
	var failures []error
	for _, t := range tasks {
		last, err := conclude(t, Ended(t, Canceled, &Error{Class: ClassRunEnded, Message: "The run ended before the call did."}), t.LeaseEpoch)
		if err == nil {
			err = queries.ToolTaskFinish(ctx, last.row)
		}
		switch {
		case err == nil:
			ended++
			slog.WarnContext(ctx, "an orphaned tool call was ended", "run_id", t.RunID, "tool_call_id", t.ToolCallID, "tool", t.ToolName)
		case Moved(err): // another process was first
		default:
			failures = append(failures, fmt.Errorf("end the orphaned tool call %s of run %s: %w", t.ToolCallID, t.RunID, err))
		}
	}
	return ended, errors.Join(failures...)
}

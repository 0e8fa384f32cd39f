package tool

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Started begins an attempt at a task, which is as t says: tool.started and the
// row. A task that has moved since fails the unit (Moved).
func Started(t db.ToolTask, provider string, epoch int64) runlog.Change {
	return StartedTogether([]db.ToolTask{t}, []string{provider}, epoch)
}

// StartedTogether is Started for tasks of one run, with a provider each. One that
// has moved fails the unit for all of them.
func StartedTogether(tasks []db.ToolTask, providers []string, epoch int64) runlog.Change {
	var change runlog.Change
	p := db.ToolTaskStartParams{Expected: open, LeaseEpoch: epoch}
	for i, t := range tasks {
		provider := clip(providers[i], maxProvider)
		change.Events = append(change.Events, event.ToolStartedV1{
			ToolCallID: t.ToolCallID, Attempt: int64(t.Attempts) + 1, Provider: provider,
		})
		p.RunKey = t.RunKey
		p.ToolCallIds, p.Attempts, p.Providers = append(p.ToolCallIds, t.ToolCallID), append(p.Attempts, t.Attempts), append(p.Providers, provider)
	}
	change.Rows = []runlog.Row{func(q *db.Queries, _ int64) error { return q.ToolTaskStart(context.Background(), p) }}
	return change
}

// AfterStart is the row once Started is committed, for the units that follow.
func AfterStart(t db.ToolTask, provider string, epoch int64) db.ToolTask {
	provider = clip(provider, maxProvider)
	if t.State == Queued {
		t.State = Running
	}
	t.Attempts, t.LeaseEpoch, t.Provider = t.Attempts+1, epoch, &provider
	return t
}

// Progressed shows what there is before the end: tool.progressed and the row.
// output is as Do gave it to its progress function, redacted and bounded.
func Progressed(t db.ToolTask, output json.RawMessage, epoch int64) runlog.Change {
	return runlog.Change{
		Events: []event.Event{event.ToolProgressedV1{
			ToolCallID: t.ToolCallID, RequestedBy: (*event.ToolProgressedV1RequestedBy)(byAPI(t)), Output: output,
		}},
		Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
			return q.ToolTaskProgress(context.Background(), db.ToolTaskProgressParams{
				RunKey: t.RunKey, ToolCallID: t.ToolCallID, Expected: begun, Attempts: t.Attempts,
				LeaseEpoch: epoch, Output: output,
			})
		}},
	}
}

// Finished is the one end of a task: tool.finished, the row and the receipt. A
// task that has ended, or that another attempt was begun at, fails the unit
// (Moved). epoch is the lease's; 0 only in the unit that also asks for the call.
func Finished(t db.ToolTask, o Outcome, epoch int64) (runlog.Change, error) {
	end, err := conclude(t, o, epoch)
	if err != nil {
		return runlog.Change{}, fmt.Errorf("finish a tool call: %w", err)
	}
	r := end.receipt
	finished := event.ToolFinishedV1{
		ToolCallID: t.ToolCallID, ToolName: t.ToolName, RequestedBy: (*event.ToolFinishedV1RequestedBy)(byAPI(t)), State: event.ToolFinishedV1State(o.State),
		OutputHash: r.OutputHash, ErrorClass: r.ErrorClass, ErrorMessage: end.row.ErrorMessage,
		Attempts: int64(r.Attempts), Provider: r.Provider, CorrelationID: r.CorrelationID, FrameID: end.row.ResultFrameID,
		ParamsHash: t.ParamsHash, LatencyMs: r.LatencyMs, ReceiptID: r.ReceiptID,
	}
	if o.Output != nil {
		finished.Output = o.Output
	}
	if o.Truncated {
		finished.Truncated = &o.Truncated
	}
	if end.row.FallbackUsed {
		finished.FallbackUsed = &end.row.FallbackUsed
	}
	return runlog.Change{
		Events: []event.Event{finished},
		Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
			return q.ToolTaskFinish(context.Background(), end.row)
		}},
	}, nil
}

// byAPI is told of a call that the model did not ask for.
func byAPI(t db.ToolTask) *string {
	if t.RequestedBy != string(event.ToolRequestedV1RequestedByAPI) {
		return nil
	}
	return &t.RequestedBy
}

// Late notes a result of a task that has ended. Nothing else changes.
func Late(t db.ToolTask, o Outcome, frameID string) runlog.Change {
	state := event.ToolLateV1StateFailed
	if o.State == Succeeded {
		state = event.ToolLateV1StateSucceeded
	}
	return runlog.Change{Events: []event.Event{event.ToolLateV1{
		ToolCallID: t.ToolCallID, State: state, OutputHash: optional(o.OutputHash), FrameID: optional(frameID),
	}}}
}

// CancelRequested notes once that an open task is to stop, and tells executors.
// The caller adds what makes a run that waits runnable.
func CancelRequested(t db.ToolTask, actor, reason string) runlog.Change {
	return runlog.Change{
		Work:   true,
		Events: []event.Event{event.ToolCancelRequestedV1{ToolCallID: t.ToolCallID, RequestedBy: actor, Reason: optional(clip(redact.Text(reason), maxReason))}},
		Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
			return q.ToolTaskRequestCancel(context.Background(), db.ToolTaskRequestCancelParams{
				RunKey: t.RunKey, ToolCallID: t.ToolCallID,
			})
		}},
	}
}

// expected are the states that a task may end from so.
func expected(state string) ([]string, error) {
	switch state {
	case Succeeded:
		return begun, nil
	case Failed, Canceled, TimedOut:
		return open, nil
	}
	return nil, fmt.Errorf("%q is no state that a task ends in", state)
}

func canonHash(v any) ([]byte, string, error) {
	raw, err := canon.Marshal(v)
	if err != nil {
		return nil, "", err
	}
	return raw, canon.Hash(raw), nil
}

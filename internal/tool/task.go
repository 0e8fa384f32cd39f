package tool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Request asks for a call of a tool.
type Request struct {
	Run        db.Run
	ToolCallID string
	// Spec has only the name when there is no such tool.
	Spec  Spec
	Input json.RawMessage
	// RequestedBy is model or api.
	RequestedBy string
	// Step is whose model call asked, and Index the place among its calls; Step
	// is 0 when no step asked.
	Step  int64
	Index int
	// FrameID is the frame that asked, if one did.
	FrameID string
	Trace   telemetry.Trace
}

// CallID names a call that a model made: the same call of the same step has the
// same id, whoever computes it.
func CallID(runID, stepCallID string, index int, name, paramsHash string) (string, error) {
	digest, err := canon.HashJSON(map[string]any{
		"run_id": runID, "step_call_id": stepCallID, "index": index,
		"tool_name": strings.ToValidUTF8(name, "\uFFFD"), "params_hash": paramsHash,
	})
	if err != nil {
		return "", err
	}
	return "call_" + short(digest), nil
}

// short is the part of a digest that ids have: 24 hex digits.
func short(digest string) string { return digest[len("sha256:"):][:24] }

// idempotencyKey is what providers are given: the same for every attempt at a
// call, and another for every call of every run.
func idempotencyKey(runID, toolCallID string) (string, error) {
	digest, err := canon.HashJSON(map[string]string{"run_id": runID, "tool_call_id": toolCallID})
	if err != nil {
		return "", err
	}
	return "tool_" + short(digest), nil
}

// Requested is a new call that policy let through or, with an approval's id,
// will when a person approves it: tool.requested, policy.decision, the queued
// row, the evaluation's row. The same call twice fails with Moved.
func Requested(q Request, e policy.Evaluation, approvalID string) (runlog.Change, error) {
	change, _, err := q.record(&e, approvalID)
	return change, err
}

// Refused is a new call that ends as it comes: policy denies it, its input does
// not fit, or there is no such tool. e is nil when policy was not asked.
func Refused(q Request, e *policy.Evaluation, why *Error) (runlog.Change, error) {
	change, t, err := q.record(e, "")
	if err != nil {
		return runlog.Change{}, err
	}
	last, err := Finished(t, Ended(t, Failed, why), 0)
	if err != nil {
		return runlog.Change{}, err
	}
	change.Events = append(change.Events, last.Events...)
	change.Rows = append(change.Rows, last.Rows...)
	return change, nil
}

// record is the change that puts a call into the log, and its row as it will be.
func (q Request) record(e *policy.Evaluation, approvalID string) (runlog.Change, db.ToolTask, error) {
	object, stored, err := argument(q.Input)
	if err != nil {
		return runlog.Change{}, db.ToolTask{}, fmt.Errorf("request a tool call: %w", err)
	}
	key, err := idempotencyKey(q.Run.RunID, q.ToolCallID)
	if err != nil {
		return runlog.Change{}, db.ToolTask{}, fmt.Errorf("request a tool call: %w", err)
	}
	s := q.Spec
	s.Name = clip(strings.ToValidUTF8(s.Name, "\uFFFD"), maxName)
	if s.Kind == "" { // there is no such tool
		s.Kind, s.Boundary, s.Provider = Runtime, SafeRetry, "none"
	}
	row := db.ToolTaskInsertParams{
		RunKey: q.Run.RunKey, ToolCallID: q.ToolCallID, RunID: q.Run.RunID, ToolName: s.Name, Kind: string(s.Kind),
		RequestedBy: q.RequestedBy, SettlementBoundary: string(s.Boundary), CallIndex: int32(q.Index),
		FrameID: optional(q.FrameID), IdempotencyKey: key, TimeoutMs: max(1, s.Timeout.Milliseconds()), Input: stored,
		ParamsHash: ParamsHash(q.Input), Provider: optional(s.Provider), ApprovalID: optional(approvalID),
		Traceparent: optional(q.Trace.Parent), Tracestate: optional(q.Trace.State), RequestID: optional(q.Trace.RequestID),
	}
	requested := event.ToolRequestedV1{
		ToolCallID: q.ToolCallID, ToolName: s.Name, Title: optional(clip(s.Title, maxTitle)),
		Kind: event.ToolRequestedV1Kind(s.Kind), RequestedBy: event.ToolRequestedV1RequestedBy(q.RequestedBy),
		FrameID: row.FrameID, Input: object, ParamsHash: row.ParamsHash,
		SettlementBoundary: event.ToolRequestedV1SettlementBoundary(s.Boundary), TimeoutMs: row.TimeoutMs,
	}
	if q.Step > 0 {
		row.Step, requested.Step = &q.Step, &q.Step
	}
	change := runlog.Change{Events: []event.Event{requested}}
	if e != nil {
		row.Decision, row.ReasonCode, row.EvaluationHash = &e.Decision, &e.ReasonCode, &e.Hash
		change.Events = append(change.Events, decision(q.ToolCallID, s.Name, *e))
		change.Rows = append(change.Rows, Evaluated(q.Run.RunKey, *e))
	}
	change.Rows = append(change.Rows, func(q *db.Queries, _ int64) error {
		return q.ToolTaskInsert(context.Background(), row)
	})
	return change, db.ToolTask{
		RunKey: row.RunKey, ToolCallID: row.ToolCallID, RunID: row.RunID, ToolName: row.ToolName, Kind: row.Kind,
		RequestedBy: row.RequestedBy, SettlementBoundary: row.SettlementBoundary, State: Queued, Step: row.Step,
		CallIndex: row.CallIndex, FrameID: row.FrameID, IdempotencyKey: key, TimeoutMs: row.TimeoutMs, Input: stored,
		ParamsHash: row.ParamsHash, Provider: row.Provider, ApprovalID: row.ApprovalID, Decision: row.Decision,
		ReasonCode: row.ReasonCode, EvaluationHash: row.EvaluationHash, Traceparent: row.Traceparent,
		Tracestate: row.Tracestate, RequestID: row.RequestID,
	}, nil
}

const (
	maxName     = 128
	maxTitle    = 160
	maxProvider = 128
	maxClass    = 64
	maxReason   = 1000
	maxForeign  = 200 // of a provider's ids
)

func decision(toolCallID, name string, e policy.Evaluation) event.Event {
	return event.PolicyDecisionV1{
		Subject: event.PolicyDecisionV1SubjectTool, ToolCallID: &toolCallID, ToolName: &name,
		Decision: event.PolicyDecisionV1Decision(e.Decision), ReasonCode: e.ReasonCode,
		ReasonCodesVersion: ds.ReasonCodesVersion, EvaluationHash: e.Hash, RetryAfterMs: milliseconds(e.RetryAfter),
	}
}

// milliseconds is nil for none.
func milliseconds(d time.Duration) *int64 {
	ms := d.Milliseconds()
	if ms <= 0 {
		return nil
	}
	return &ms
}

// Decided notes that policy decided again on a queued task, as it does when a
// person has answered: policy.decision, the evaluation's row and what the receipt
// will name.
func Decided(t db.ToolTask, e policy.Evaluation, epoch int64) runlog.Change {
	return runlog.Change{
		Events: []event.Event{decision(t.ToolCallID, t.ToolName, e)},
		Rows: []runlog.Row{Evaluated(t.RunKey, e), func(q *db.Queries, _ int64) error {
			return q.ToolTaskDecide(context.Background(), db.ToolTaskDecideParams{
				RunKey: t.RunKey, ToolCallID: t.ToolCallID, LeaseEpoch: epoch,
				Decision: &e.Decision, ReasonCode: &e.ReasonCode, EvaluationHash: &e.Hash,
			})
		}},
	}
}

// AfterDecided is the row once Decided is committed, for the units that follow.
func AfterDecided(t db.ToolTask, e policy.Evaluation, epoch int64) db.ToolTask {
	t.Decision, t.ReasonCode, t.EvaluationHash, t.LeaseEpoch = &e.Decision, &e.ReasonCode, &e.Hash, epoch
	return t
}

// Evaluated is the row that keeps an evaluation, once, for the run that the
// decision is told of.
func Evaluated(runKey uuid.UUID, e policy.Evaluation) runlog.Row {
	return func(q *db.Queries, _ int64) error {
		return q.DsPolicyEvaluationInsert(context.Background(), db.DsPolicyEvaluationInsertParams{
			RunKey: runKey, EvaluationHash: e.Hash, Document: e.Document, Decision: e.Decision, ReasonCode: e.ReasonCode,
		})
	}
}

// Moved says whether a unit failed because a task is not where the unit expected
// it, or a call of the id was there before: read the task again.
func Moved(err error) bool {
	const divisionByZero, uniqueViolation = "22012", "23505"
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == divisionByZero || e.Code == uniqueViolation &&
		(e.ConstraintName == "tool_tasks_pkey" || e.ConstraintName == "tool_refusals_pkey"))
}

// CallOf is the call that a task's present attempt makes: t is of AfterStart.
func CallOf(r db.Run, t db.ToolTask, input json.RawMessage) Call {
	call := Call{
		RunKey: t.RunKey, RunID: t.RunID, ThreadID: r.ThreadID, Owner: r.Owner, ToolCallID: t.ToolCallID, Tool: t.ToolName,
		Input: input, IdempotencyKey: t.IdempotencyKey, Attempt: int(t.Attempts),
	}
	if r.UserID != nil {
		call.UserID = *r.UserID
	}
	return call
}

// StoredInput is the input to run a task with when this process has not seen it
// whole. When redaction has changed it the task must not run: other arguments
// than those that were asked for, and approved, are another call.
func StoredInput(t db.ToolTask) (json.RawMessage, *Error) {
	if ParamsHash(t.Input) != t.ParamsHash {
		return nil, &Error{Class: ClassInputRedacted,
			Message: "The arguments held a secret that is not stored, and the process that knew it is gone. Ask for the call again."}
	}
	return slices.Clone(t.Input), nil
}

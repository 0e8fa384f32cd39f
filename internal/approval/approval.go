// Package approval asks a person, waits durably, and records who decided what.
package approval

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// The states of an approval. All but Pending are final.
const (
	Pending  = "pending"
	Approved = "approved"
	Rejected = "rejected"
	// Expired is not Rejected: nobody decided in time.
	Expired = "expired"
	// Canceled says that the question is no longer asked.
	Canceled = "canceled"
)

// The kinds of a question.
const (
	ToolCall                 = "tool_call"
	RaiseBudget              = "raise_budget"
	ResolveUnknownSettlement = "resolve_unknown_settlement"
)

// Who may decide.
const (
	ByOwner    = "owner"
	ByOperator = "operator"
)

// Ask is a question.
type Ask struct {
	Kind       string // ToolCall, RaiseBudget or ResolveUnknownSettlement
	ToolCallID string
	// RequestedBy is who asked for the call: model or api.
	RequestedBy string
	Title       string          // for people, at most 300 characters
	Decider     string          // ByOwner or ByOperator
	Request     json.RawMessage // an object, redacted
	ArgsHash    string          // of what is approved, whole
	PolicyHash  string          // of the evaluation that wants a person
	ReasonCode  string
	For         time.Duration // until it expires
}

// Call is a tool call that needs a person.
type Call struct {
	ToolCallID, RequestedBy string
	Tool, Title             string
	Input                   json.RawMessage // whole
	ArgsHash                string          // its digest
}

// OfCall is the question whether a call may be made, by an evaluation that wants
// a person.
func OfCall(c Call, e policy.Evaluation, lasts time.Duration) (Ask, error) {
	request, err := canon.Marshal(map[string]any{"tool": c.Tool, "input": redact.JSON(c.Input)})
	if err != nil {
		return Ask{}, fmt.Errorf("ask about a tool call: %w", err)
	}
	title := c.Title
	if title == "" {
		title = "Call " + c.Tool
	}
	return Ask{
		Kind: ToolCall, ToolCallID: c.ToolCallID, RequestedBy: c.RequestedBy, Title: title, Decider: ByOwner,
		Request: request, ArgsHash: c.ArgsHash, PolicyHash: e.PolicyHash, ReasonCode: e.ReasonCode, For: lasts,
	}, nil
}

// ID names an approval: the same question of the same run has the same id.
func ID(runID string, a Ask) (string, error) {
	hash, err := canon.HashJSON(map[string]string{
		"run_id": runID, "kind": a.Kind, "tool_call_id": a.ToolCallID, "args_hash": a.ArgsHash,
	})
	if err != nil {
		return "", fmt.Errorf("name an approval: %w", err)
	}
	return "appr_" + strings.TrimPrefix(hash, "sha256:")[:24], nil
}

// Request is the change that asks: the row and approval.requested. The moment at
// which it expires is told by this process's clock; whether it has come, by the
// database's.
func Request(r db.Run, a Ask) (runlog.Change, error) {
	id, err := ID(r.RunID, a)
	if err != nil {
		return runlog.Change{}, err
	}
	expires := time.Now().Add(a.For).UTC().Truncate(time.Microsecond)
	return runlog.Change{
		Events: []event.Event{event.ApprovalRequestedV1{
			ApprovalID: id, Kind: event.ApprovalRequestedV1Kind(a.Kind), ToolCallID: nonEmpty(a.ToolCallID),
			RequestedBy: (*event.ApprovalRequestedV1RequestedBy)(nonEmpty(a.RequestedBy)), Title: a.Title,
			Decider: event.ApprovalRequestedV1Decider(a.Decider), ArgsHash: a.ArgsHash, PolicyHash: a.PolicyHash, ExpiresAt: expires,
		}},
		Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
			return q.ApprovalInsert(context.Background(), db.ApprovalInsertParams{
				ApprovalID: id, RunKey: r.RunKey, RunID: r.RunID, ThreadID: r.ThreadID, Owner: r.Owner, Kind: a.Kind,
				ToolCallID: nonEmpty(a.ToolCallID), RequestedBy: nonEmpty(a.RequestedBy), Title: a.Title, Decider: a.Decider, Request: a.Request,
				ArgsHash: a.ArgsHash, PolicyHash: a.PolicyHash, ReasonCode: nonEmpty(a.ReasonCode), ExpiresAt: expires,
			})
		}},
	}, nil
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

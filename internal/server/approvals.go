package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// ListApprovals pages through what the caller is asked, newest first.
func (s *Server) ListApprovals(ctx context.Context, req api.ListApprovalsRequestObject) (api.ListApprovalsResponseObject, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	before, err := placeAfter(req.Params.PageToken)
	if err != nil {
		return nil, err
	}
	filter := approval.Filter{
		State: (*string)(req.Params.State), ThreadID: req.Params.ThreadID, RunID: req.Params.RunID, Limit: int(*req.Params.Limit),
	}
	if before != nil {
		filter.Before = &approval.Place{RequestedAt: before.at, ApprovalID: before.id}
	}
	// A token for one run or thread sees that one's.
	if err := narrow(&filter.RunID, callerOf(ctx).Claims.RunID, "run_id", "runId"); err != nil {
		return nil, err
	}
	if err := narrow(&filter.ThreadID, callerOf(ctx).Claims.ThreadID, "thread_id", "threadId"); err != nil {
		return nil, err
	}
	rows, next, err := approval.List(ctx, s.Pool, owner, filter)
	if err != nil {
		return nil, err
	}
	page := api.ApprovalList{Approvals: make([]api.Approval, 0, len(rows))}
	for _, row := range rows {
		a, err := approvalOf(row)
		if err != nil {
			return nil, err
		}
		page.Approvals = append(page.Approvals, a)
	}
	if next != nil {
		page.NextPageToken = place{next.RequestedAt, next.ApprovalID}.token()
	}
	return api.ListApprovals200JSONResponse{Body: page}, nil
}

// narrow holds a list to what a claim of the token names.
func narrow(asked **string, claimed, claim, parameter string) error {
	switch {
	case claimed == "":
		return nil
	case *asked != nil && **asked != claimed:
		return claimMismatch(claim, "the query's "+parameter)
	}
	*asked = &claimed
	return nil
}

// GetApproval tells what is asked, and what was decided.
func (s *Server) GetApproval(ctx context.Context, req api.GetApprovalRequestObject) (api.GetApprovalResponseObject, error) {
	row, err := s.approvalSeen(ctx, req.ApprovalIDParam)
	if err != nil {
		return nil, err
	}
	a, err := approvalOf(row)
	if err != nil {
		return nil, err
	}
	return api.GetApproval200JSONResponse{Body: a}, nil
}

// approvalSeen finds an approval that the caller may see.
func (s *Server) approvalSeen(ctx context.Context, approvalID string) (db.Approval, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return db.Approval{}, err
	}
	row, err := approval.Get(ctx, s.Pool, owner, approvalID)
	if err != nil {
		return row, err
	}
	return row, touches(callerOf(ctx), row.RunID, row.ThreadID)
}

// DecideApproval decides an approval, once.
func (s *Server) DecideApproval(ctx context.Context, req api.DecideApprovalRequestObject) (api.DecideApprovalResponseObject, error) {
	if _, err := s.approvalSeen(ctx, req.ApprovalIDParam); err != nil {
		return nil, err
	}
	caller := callerOf(ctx)
	owner, err := ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	content, err := contentOf(req.Body.Content)
	if err != nil {
		return nil, err
	}
	row, replay, err := approval.Decide(ctx, s.Pool, s.Log, req.ApprovalIDParam,
		approval.Decider{Owner: owner, Operator: caller.Scope == auth.Operator, Actor: caller.Actor},
		approval.Decision{
			State: string(req.Body.Decision), ArgsHash: deref(req.Body.ArgsHash), PolicyHash: deref(req.Body.PolicyHash),
			Reason: deref(req.Body.Reason), Content: content,
		})
	if closed := (*approval.ClosedError)(nil); errors.As(err, &closed) {
		return nil, closedFault(closed.Approval)
	}
	if err != nil {
		return nil, err
	}
	if !replay {
		slog.InfoContext(ctx, "an approval was decided", "approval_id", row.ApprovalID, "run_id", row.RunID, "kind", row.Kind,
			"state", row.State, "decided_by", deref(row.DecidedBy), "actor", caller.Actor)
	}
	a, err := approvalOf(row)
	if err != nil {
		return nil, err
	}
	return api.DecideApproval200JSONResponse{Body: a}, nil
}

// contentOf is what a decision fills in, as JSON; nil when it fills in nothing.
func contentOf(content map[string]any) (json.RawMessage, error) {
	if content == nil {
		return nil, nil
	}
	return json.Marshal(content)
}

func closedFault(row db.Approval) error {
	a, err := approvalOf(row)
	if err != nil {
		return err
	}
	how := map[string]string{
		approval.Approved: "it was approved before", approval.Rejected: "it was rejected before",
		approval.Expired: "nobody decided in time; that is no rejection", approval.Canceled: "it is no longer asked",
	}[row.State]
	return fault.New(api.ApprovalClosed, "the approval cannot be decided so: %s", how).With("approval", a)
}

func approvalOf(row db.Approval) (api.Approval, error) {
	a := api.Approval{
		ApprovalID: row.ApprovalID, Kind: api.ApprovalKind(row.Kind), State: api.ApprovalState(row.State), RunID: row.RunID,
		ThreadID: row.ThreadID, ToolCallID: row.ToolCallID, Title: row.Title, Decider: api.ApprovalDecider(row.Decider),
		ArgsHash: row.ArgsHash, PolicyHash: row.PolicyHash, ReasonCode: row.ReasonCode, RequestedAt: row.RequestedAt.UTC(),
		ExpiresAt: row.ExpiresAt.UTC(), DecidedAt: utc(row.DecidedAt), DecidedBy: row.DecidedBy, Reason: row.DecisionReason,
	}
	if err := json.Unmarshal(row.Request, &a.Request); err != nil {
		return a, fmt.Errorf("read what an approval asks: %w", err)
	}
	return a, nil
}

package approval

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
)

// Get finds an approval of the owner's. One of somebody else and none at all are
// the same approval_not_found.
func Get(ctx context.Context, q db.DBTX, owner run.Owner, approvalID string) (db.Approval, error) {
	a, err := db.New(q).ApprovalGet(ctx, approvalID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return a, fmt.Errorf("get approval: %w", err)
	}
	if err != nil || !owner.Owns(db.Run{Owner: a.Owner}) {
		return db.Approval{}, fault.New(api.ApprovalNotFound, "no approval of yours has this id")
	}
	return a, nil
}

// OfRun are all approvals of a run, the oldest first.
func OfRun(ctx context.Context, q db.DBTX, runKey uuid.UUID) ([]db.Approval, error) {
	all, err := db.New(q).ApprovalListOfRun(ctx, runKey)
	if err != nil {
		return nil, fmt.Errorf("list the run's approvals: %w", err)
	}
	return all, nil
}

// CountPending is how many questions of an owner's runs wait for an answer.
func CountPending(ctx context.Context, q db.DBTX, owner run.Owner) (int64, error) {
	n, err := db.New(q).ApprovalCountPending(ctx, string(owner))
	if err != nil {
		return 0, fmt.Errorf("count pending approvals: %w", err)
	}
	return n, nil
}

// Filter narrows a list of approvals; zero values do not.
type Filter struct {
	State, ThreadID, RunID *string
	// Before is the last approval of the page before.
	Before *Place
	Limit  int
}

// Place is where an approval stands in a list.
type Place struct {
	RequestedAt time.Time
	ApprovalID  string
}

// List pages through the owner's approvals, newest first. next is the place to
// go on after, nil on the last page.
func List(ctx context.Context, q db.DBTX, owner run.Owner, f Filter) (page []db.Approval, next *Place, err error) {
	params := db.ApprovalListByOwnerParams{
		State: f.State, ThreadID: f.ThreadID, RunID: f.RunID, MaxApprovals: int32(f.Limit + 1),
	}
	if owner != run.Everybody {
		name := string(owner)
		params.Owner = &name
	}
	if f.Before != nil {
		params.BeforeAt, params.BeforeID = &f.Before.RequestedAt, &f.Before.ApprovalID
	}
	page, err = db.New(q).ApprovalListByOwner(ctx, params)
	if err != nil {
		return nil, nil, fmt.Errorf("list approvals: %w", err)
	}
	if len(page) > f.Limit {
		page = page[:f.Limit]
		last := page[f.Limit-1]
		next = &Place{last.RequestedAt, last.ApprovalID}
	}
	return page, next, nil
}

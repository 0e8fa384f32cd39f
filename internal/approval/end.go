package approval

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

const (
	expireAtOnce = 500 // approvals that a pass of Expire looks at
	expireSide   = 64  // units that wait for their commits together
)

// runEnded is why what is still asked when a run ends is canceled.
const runEnded = "the run has ended"

// Expire is one pass of a sweep: pending approvals whose time is over become
// expired and their runs runnable, each in one unit; those of ended runs are
// canceled. It is safe on every node at once. n is how many it ended.
func Expire(ctx context.Context, pool db.DBTX, log *runlog.Appender) (n int64, err error) {
	ended, err := db.New(pool).ApprovalCancelEnded(ctx, db.ApprovalCancelEndedParams{Reason: reasonOf(runEnded)})
	if err != nil {
		return 0, fmt.Errorf("expire approvals: %w", err)
	}
	due, err := db.New(pool).ApprovalListDue(ctx, expireAtOnce)
	if err != nil {
		return ended, fmt.Errorf("expire approvals: %w", err)
	}
	var expired atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(expireSide)
	for _, a := range due {
		group.Go(func() error {
			did, err := expire(ctx, pool, log, a)
			if did {
				expired.Add(1)
			}
			return err
		})
	}
	err = group.Wait()
	return ended + expired.Load(), err
}

// expire ends one approval if its time is over.
func expire(ctx context.Context, pool db.DBTX, log *runlog.Appender, a db.Approval) (did bool, err error) {
	_, err = log.Commit(ctx, runlog.Unit{
		RunKey: a.RunKey, RunID: a.RunID,
		Decide: func(runlog.Head) (runlog.Change, error) {
			return runlog.Change{
				Events: []event.Event{ended(a, Expired, nil, nil)},
				Work:   true,
				Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
					return q.ApprovalExpire(context.Background(), a.ApprovalID)
				}, run.SetRunnable(db.Run{RunKey: a.RunKey})},
			}, nil
		},
	})
	switch {
	case err == nil:
		return true, nil
	case Moved(err):
		return false, nil // somebody decided first, or it is not yet time
	case errors.Is(err, runlog.ErrFinished):
		return false, cancelEnded(ctx, pool, &a.ApprovalID)
	}
	return false, fmt.Errorf("expire approval: %w", err)
}

// Cancel is the change that takes a question back, such as in the commit that
// ends its call. The unit is refused, and Moved says so, when it is not pending.
func Cancel(a db.Approval, reason string) runlog.Change {
	return runlog.Change{
		Events: []event.Event{ended(a, Canceled, nil, nonEmpty(reason))},
		Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
			return q.ApprovalCancel(context.Background(), db.ApprovalCancelParams{ApprovalID: a.ApprovalID, Reason: nonEmpty(reason)})
		}},
	}
}

// CancelOf is the change that cancels a run's pending approvals, such as in the
// commit that ends the run. pending are those that were read; the unit is
// refused, and Moved says so, when others are pending by then.
func CancelOf(r db.Run, pending []db.Approval, reason string) runlog.Change {
	var (
		change runlog.Change
		ids    = []string{}
	)
	for _, a := range pending {
		ids = append(ids, a.ApprovalID)
		change.Events = append(change.Events, ended(a, Canceled, nil, nonEmpty(reason)))
	}
	change.Rows = []runlog.Row{func(q *db.Queries, _ int64) error {
		return q.ApprovalCancelOf(context.Background(), db.ApprovalCancelOfParams{
			RunKey: r.RunKey, ApprovalIds: ids, Reason: nonEmpty(reason),
		})
	}}
	return change
}

func ended(a db.Approval, state string, by, reason *string) event.Event {
	return event.ApprovalDecidedV1{
		ApprovalID: a.ApprovalID, ToolCallID: a.ToolCallID, RequestedBy: (*event.ApprovalDecidedV1RequestedBy)(a.RequestedBy),
		State: event.ApprovalDecidedV1State(state), DecidedBy: by, Reason: reason,
	}
}

func cancelEnded(ctx context.Context, q db.DBTX, approvalID *string) error {
	_, err := db.New(q).ApprovalCancelEnded(ctx, db.ApprovalCancelEndedParams{Reason: reasonOf(runEnded), ApprovalID: approvalID})
	return err
}

func reasonOf(s string) *string { return &s }

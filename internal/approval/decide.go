package approval

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Decider is who decides.
type Decider struct {
	// Owner is whom the decider acts for; run.Everybody sees every approval and
	// owns none.
	Owner run.Owner
	// Operator says whether what only an operator may decide is open to them.
	Operator bool
	// Actor is their name for the record.
	Actor string
}

// Decision is what was decided, and on what.
type Decision struct {
	State string // Approved or Rejected
	// ArgsHash and PolicyHash are those that the decider was shown; empty ones are
	// not compared.
	ArgsHash, PolicyHash string
	Reason               string // a sentence for people
	// Content is what a person filled in, an object; nil when there is none.
	Content json.RawMessage
}

// Decide decides an approval, once. The same decision again is a replay and
// answers the first. It is approval_not_found for somebody who may not see it,
// forbidden for somebody who sees it and may not decide it, approval_changed
// when it binds other hashes, invalid_request when its content is not what is asked
// for, and a *ClosedError when it was decided otherwise, canceled, or its time is over.
func Decide(ctx context.Context, pool db.DBTX, log *runlog.Appender, approvalID string, by Decider, d Decision) (a db.Approval, replay bool, err error) {
	if a, err = Get(ctx, pool, by.Owner, approvalID); err != nil {
		return a, false, err
	}
	if err := may(a, by); err != nil {
		return db.Approval{}, false, err
	}
	if a.State != Pending || changed(a, d) {
		return answer(a, d)
	}
	if d.Content, err = contentOf(a, d); err != nil {
		return db.Approval{}, false, err
	}
	_, err = log.Commit(ctx, runlog.Unit{
		RunKey: a.RunKey, RunID: a.RunID, Trace: telemetry.TraceFrom(ctx), Decide: decided(a, by, d),
	})
	if err == nil {
		a, err = Get(ctx, pool, by.Owner, approvalID)
		return a, false, err
	}
	switch {
	case errors.Is(err, runlog.ErrFinished):
		err = cancelEnded(ctx, pool, &a.ApprovalID)
	case Moved(err):
		// Somebody was first, or its time is over and no sweep has come by yet.
		_, err = expire(ctx, pool, log, a)
	}
	if err != nil {
		return db.Approval{}, false, fmt.Errorf("decide approval: %w", err)
	}
	if a, err = Get(ctx, pool, by.Owner, approvalID); err != nil {
		return a, false, err
	}
	return answer(a, d)
}

func may(a db.Approval, by Decider) error {
	switch {
	case a.Decider == ByOperator && !by.Operator:
		return fault.New(api.Forbidden, "an operator decides this; send it with a token of scope operator").With("decider", a.Decider)
	case a.Decider == ByOwner && string(by.Owner) != a.Owner:
		return fault.New(api.Forbidden, "the run's owner decides this; name the owner as the principal").With("decider", a.Decider)
	}
	return nil
}

// decided is the change of a decision. Its row fails the unit unless everything
// that the decision needs still holds.
func decided(a db.Approval, by Decider, d Decision) func(runlog.Head) (runlog.Change, error) {
	who := string(by.Owner)
	if a.Decider == ByOperator {
		who = "operator:" + by.Actor
	}
	reason := nonEmpty(redact.Text(runlog.Storable(d.Reason)))
	return func(runlog.Head) (runlog.Change, error) {
		return runlog.Change{
			Events: []event.Event{ended(a, d.State, &who, reason)},
			Work:   true,
			Rows: []runlog.Row{func(q *db.Queries, _ int64) error {
				return q.ApprovalDecide(context.Background(), db.ApprovalDecideParams{
					ApprovalID: a.ApprovalID, State: d.State, DecidedBy: &who, Reason: reason, Owner: string(by.Owner), Operator: by.Operator,
					ArgsHash: nonEmpty(d.ArgsHash), PolicyHash: nonEmpty(d.PolicyHash), Content: d.Content,
				})
			}, run.SetRunnable(db.Run{RunKey: a.RunKey})},
		}, nil
	}
}

// answer tells a decision that changed nothing why.
func answer(a db.Approval, d Decision) (db.Approval, bool, error) {
	if changed(a, d) {
		return db.Approval{}, false, fault.New(api.ApprovalChanged,
			"the approval is of another call or under another policy than the decision names; read it again and decide on that").
			With("argsHash", a.ArgsHash).With("policyHash", a.PolicyHash)
	}
	if a.State == d.State && sameContent(a, d) {
		return a, true, nil
	}
	return db.Approval{}, false, &ClosedError{Approval: a}
}

func changed(a db.Approval, d Decision) bool {
	return d.ArgsHash != "" && d.ArgsHash != a.ArgsHash || d.PolicyHash != "" && d.PolicyHash != a.PolicyHash
}

// ClosedError says that an approval has its final state, and which.
type ClosedError struct{ Approval db.Approval }

func (e *ClosedError) Error() string { return "the approval is " + e.Approval.State }

// Moved says whether a unit was refused because an approval was not, or no
// longer, as the unit wants it.
func Moved(err error) bool {
	const divisionByZero = "22012" // how the guards of queries/approvals.sql fail
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == divisionByZero
}

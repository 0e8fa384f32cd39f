package spend

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Reserve is the change that holds a call's amount under every level of a chain,
// as an evaluation of Decide let it: the row, the ledger and tool.reserved or
// predict.reserved. It is committed under the run's lease, whose epoch the row
// proves again. The commit is refused (Cause) with ErrRefused when a level was
// changed since it was read, has ended, or has no room; with ErrExists when the
// call has a reservation; with ErrInvoiceHeld when the invoice is another's.
func Reserve(c Chain, in Intent, e policy.Evaluation, epoch int64) (runlog.Change, error) {
	leaf := c.Leaf()
	switch {
	case leaf == nil || c.foreign:
		return runlog.Change{}, fmt.Errorf("hold for %s: there is no authorization", in.CallID)
	case e.Decision != policy.Allowed:
		return runlog.Change{}, fmt.Errorf("hold for %s: policy has not let it pass (%s)", in.CallID, e.ReasonCode)
	case in.Quote.AmountSats < 1 || in.Quote.AmountSats > MaxSats:
		return runlog.Change{}, fmt.Errorf("hold for %s: %d sats cannot be held", in.CallID, in.Quote.AmountSats)
	case in.Kind != ForTool && in.Kind != ForModel:
		return runlog.Change{}, fmt.Errorf("hold for %s: a call is of no kind %q", in.CallID, in.Kind)
	case in.Boundary != SafeRetry && in.Boundary != DedupeReconcileRequired:
		return runlog.Change{}, fmt.Errorf("hold for %s: there is no retry class %q", in.CallID, in.Boundary)
	}
	if h, err := hex.DecodeString(in.Quote.PaymentHash); err != nil || (len(h) != 32 && len(h) != 0) || strings.ToLower(in.Quote.PaymentHash) != in.Quote.PaymentHash {
		return runlog.Change{}, fmt.Errorf("hold for %s: the payment hash is not 64 lower-case hex digits", in.CallID)
	}
	b := &booking{
		authorizationID: leaf.AuthorizationID, path: leaf.Path, actor: "runtime",
		runKey: in.Run.RunKey, callID: in.CallID, reservedSats: in.Quote.AmountSats,
		hold: &holding{in: in, evaluationHash: e.Hash, epoch: epoch, maxOverageBps: c.Levels[len(c.Levels)-1].constraints.MaxOverageBps},
	}
	for _, l := range c.Levels {
		b.hold.revisions = append(b.hold.revisions, l.Authorization.Revision)
	}
	b.add(hold, in.Quote.AmountSats)
	return runlog.Change{Events: []event.Event{reserved(in, leaf.AuthorizationID, e)}, Joints: []runlog.Joint{b}}, nil
}

func reserved(in Intent, authorizationID string, e policy.Evaluation) event.Event {
	var approvalID *string
	if in.Approval != nil {
		approvalID = &in.Approval.ApprovalID
	}
	told := event.ToolReservedV1{
		ToolCallID: in.CallID, AuthorizationID: authorizationID, AmountSats: in.Quote.AmountSats,
		RetryClass: event.ToolReservedV1RetryClass(in.Boundary), RequestHash: optional(in.Quote.RequestHash),
		Provider: first(in.Provider, in.Quote.Provider), Payee: optional(in.Quote.Payee), PaymentHash: optional(in.Quote.PaymentHash),
		EvaluationHash: e.Hash, ApprovalID: approvalID,
	}
	if in.Kind == ForTool {
		return told
	}
	return event.PredictReservedV1{
		CallID: told.ToolCallID, AuthorizationID: told.AuthorizationID, AmountSats: told.AmountSats,
		RetryClass: event.PredictReservedV1RetryClass(told.RetryClass), RequestHash: told.RequestHash, Provider: told.Provider,
		Payee: told.Payee, PaymentHash: told.PaymentHash, EvaluationHash: told.EvaluationHash, ApprovalID: told.ApprovalID,
	}
}

// Existing says what a call's reservation means for who would hold for the call
// again: code is empty when it is this call's own hold, still open, and is gone on
// with; else it is why the call may not.
func Existing(r db.SpendReservation, in Intent) (code ds.ReasonCode) {
	switch {
	case r.AmountSats != in.Quote.AmountSats || text(r.RequestHash) != in.Quote.RequestHash || text(r.PaymentHash) != in.Quote.PaymentHash:
		return ds.ReasonCodePolicyDeniedIdempotencyConflict
	case r.State == ReconcileRequired:
		return ds.ReasonCodePolicyDeniedReconcileRequired
	case r.State != Reserved:
		return ds.ReasonCodePolicyDeniedAlreadyFinalized
	}
	return ""
}

// Package spend authorizes amounts, holds them for calls, and settles what was held.
package spend

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// MaxSats is the most that any amount can be: all sats that there will ever be.
const MaxSats = 2_100_000_000_000_000

// The states of a reservation.
const (
	Reserved          = "reserved"
	Committed         = "committed"
	Released          = "released"
	ReconcileRequired = "reconcile_required"
)

// What a reservation is held for.
const (
	ForTool  = "tool"
	ForModel = "model"
)

// The retry classes: what may happen when an outcome is not known.
const (
	SafeRetry               = "safe_retry"
	DedupeReconcileRequired = "dedupe_reconcile_required"
)

var (
	// ErrRefused says that a level of the chain was not, or no longer, as whoever
	// decided knew it, or has no room. Who holds reads the chain again and lets
	// policy say which; when policy lets it pass now, it is tried again.
	ErrRefused = errors.New("the authorization does not let this be held")
	// ErrExists says that the call has a reservation. Existing says what that means.
	ErrExists = errors.New("the call has a reservation")
	// ErrInvoiceHeld says that the invoice is held for, or was paid by, another call.
	ErrInvoiceHeld = errors.New("the invoice is another call's")
	// ErrMoved says that a reservation is not in the state that its settlement
	// expected. Who settles reads it again.
	ErrMoved = errors.New("the reservation is in another state")
	// ErrTooMuch says that the counters of an authorization would pass what a number
	// can hold everywhere: more than there is cannot have been paid.
	ErrTooMuch = errors.New("more than can have been paid")
	// ErrNotFound says that there is no such authorization or reservation.
	ErrNotFound = errors.New("no such authorization or reservation")
)

// Quote is what a call is asked to pay.
type Quote struct {
	// AmountSats is the price; of an unknown one, what it may be at the most.
	AmountSats int64
	// Known says that the price is known and not only bounded.
	Known bool
	// Provider is whom the money goes through, Host who asks for it, Payee who
	// gets it.
	Provider, Host, Payee string
	// PaymentHash names an invoice: 64 hex digits. No invoice is held for twice.
	PaymentHash string
	// RequestHash is the digest of what is paid for.
	RequestHash string
	// Detail is what a probe and an auditor need: the invoice, its expiry and so on.
	Detail json.RawMessage
}

// Intent is a call that wants to spend.
type Intent struct {
	Run    db.Run
	CallID string
	Kind   string // ForTool or ForModel
	// Tool is the tool's name, or the model's.
	Tool     string
	Provider string
	// Boundary is the retry class.
	Boundary       string
	Quote          Quote
	IdempotencyKey string
	// Approval is what a person decided on this call, when one was asked.
	Approval *db.Approval
	// Started says that the commit that reserves also notes the start: from then
	// on the provider may have been asked.
	Started bool
}

// Settled is what is known of a payment.
type Settled struct {
	AmountSats    int64
	CorrelationID string
	// Proof is what shows that it was paid: a preimage, a receipt.
	Proof json.RawMessage
	// MaybeBilled says that nobody knows whether it was billed, and that it is
	// booked as if it was.
	MaybeBilled bool
	// Reason is told with the settlement, for programs.
	Reason string
}

// Cause says what a refusal of a commit means for the money in it, as one of the
// errors of this room or runlog.ErrFenced, joined to err; other errors, and nil,
// come back as they are.
func Cause(err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err
	}
	switch {
	case refused.Code == "OA001",
		refused.ConstraintName == "spend_authorizations_never_over", refused.ConstraintName == "spend_periods_never_over":
		return errors.Join(ErrRefused, err)
	case refused.ConstraintName == "spend_authorizations_amounts_non_negative":
		return errors.Join(ErrTooMuch, err)
	case refused.Code == "OA002":
		return errors.Join(ErrMoved, err)
	case refused.Code == "OA003":
		return errors.Join(runlog.ErrFenced, err)
	case refused.ConstraintName == "spend_reservations_pkey":
		return errors.Join(ErrExists, err)
	case refused.ConstraintName == "spend_reservations_invoice_once":
		return errors.Join(ErrInvoiceHeld, err)
	}
	return err
}

// State is what an authorization is at a moment: live, revoked, expired or
// not_started.
func State(a db.SpendAuthorization, at time.Time) string {
	switch {
	case a.RevokedAt != nil:
		return "revoked"
	case a.ExpiresAt != nil && !at.Before(*a.ExpiresAt):
		return "expired"
	case a.NotBefore != nil && at.Before(*a.NotBefore):
		return "not_started"
	}
	return "live"
}

// Remaining is what an authorization has left; nil without a cap. It is negative
// where more was paid than held.
func Remaining(a db.SpendAuthorization) *int64 {
	if a.MaxTotalSats == nil {
		return nil
	}
	left := *a.MaxTotalSats - a.SpentSats - a.ReservedSats
	return &left
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func sats(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

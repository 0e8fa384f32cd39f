package spend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Get reads an authorization, or ErrNotFound.
func Get(ctx context.Context, q db.DBTX, authorizationID string) (db.SpendAuthorization, error) {
	a, err := db.New(q).SpendAuthorizationGet(ctx, authorizationID)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return db.SpendAuthorization{}, fmt.Errorf("read authorization %s: %w", authorizationID, err)
	}
	return a, nil
}

// Filter narrows a list of authorizations; empty members do not.
type Filter struct {
	Owner, RunID, ThreadID, ParentID string
	State                            string // as State says
	// BeforeAt and BeforeID are the last one of the page before.
	BeforeAt *time.Time
	BeforeID string
}

// List is a page of authorizations, newest first.
func List(ctx context.Context, q db.DBTX, f Filter, limit int) ([]db.SpendAuthorization, error) {
	page, err := db.New(q).SpendAuthorizationList(ctx, db.SpendAuthorizationListParams{
		Owner: optional(f.Owner), RunID: optional(f.RunID), ThreadID: optional(f.ThreadID), ParentAuthorizationID: optional(f.ParentID),
		State: optional(f.State), BeforeAt: f.BeforeAt, BeforeID: &f.BeforeID, MaxAuthorizations: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("list authorizations: %w", err)
	}
	return page, nil
}

// History is what was done to an authorization, the first first.
func History(ctx context.Context, q db.DBTX, authorizationID string) ([]db.SpendAuthorizationEvent, error) {
	events, err := db.New(q).SpendAuthorizationEventList(ctx, authorizationID)
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", authorizationID, err)
	}
	return events, nil
}

// Reservation reads a call's reservation, or ErrNotFound.
func Reservation(ctx context.Context, q db.DBTX, runKey uuid.UUID, callID string) (db.SpendReservation, error) {
	r, err := db.New(q).SpendReservationGet(ctx, db.SpendReservationGetParams{RunKey: runKey, ToolCallID: callID})
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	if err != nil {
		return db.SpendReservation{}, fmt.Errorf("read the reservation of %s: %w", callID, err)
	}
	return r, nil
}

// OfRun are a run's reservations, the first first.
func OfRun(ctx context.Context, q db.DBTX, runKey uuid.UUID) ([]db.SpendReservation, error) {
	all, err := db.New(q).SpendReservationListOfRun(ctx, runKey)
	if err != nil {
		return nil, fmt.Errorf("list the reservations of a run: %w", err)
	}
	return all, nil
}

// OpenOfRun are a run's reservations that are not settled, the first first.
func OpenOfRun(ctx context.Context, q db.DBTX, runKey uuid.UUID) ([]db.SpendReservation, error) {
	all, err := db.New(q).SpendReservationListOpenOfRun(ctx, runKey)
	if err != nil {
		return nil, fmt.Errorf("list the open reservations of a run: %w", err)
	}
	return all, nil
}

// Blocks is the reservation that stands in the way of a call whose outcome cannot
// be asked for twice: one of the same run, tool and request, or of the same
// invoice, of which nobody knows whether it was paid. ok is false when none does.
func Blocks(ctx context.Context, q db.DBTX, in Intent) (r db.SpendReservation, ok bool, err error) {
	if in.Boundary != DedupeReconcileRequired {
		return r, false, nil
	}
	open, err := OpenOfRun(ctx, q, in.Run.RunKey)
	if err != nil {
		return r, false, err
	}
	for _, r := range open {
		same := text(r.ToolName) == in.Tool && in.Quote.RequestHash != "" && text(r.RequestHash) == in.Quote.RequestHash
		invoice := in.Quote.PaymentHash != "" && text(r.PaymentHash) == in.Quote.PaymentHash
		if r.State == ReconcileRequired && r.ToolCallID != in.CallID && (same || invoice) {
			return r, true, nil
		}
	}
	return r, false, nil
}

// ReservationFilter narrows a list of reservations; empty members do not.
type ReservationFilter struct {
	AuthorizationID, State string
	// BelowID is an authorization that pays itself or is above the one that pays;
	// Owner is whose the one that pays is.
	BelowID, Owner string
	RunKey         *uuid.UUID
	// Before is the last one of the page before.
	Before *db.SpendReservation
}

// Reservations is a page of reservations, newest first.
func Reservations(ctx context.Context, q db.DBTX, f ReservationFilter, limit int) ([]db.SpendReservation, error) {
	p := db.SpendReservationListParams{
		AuthorizationID: optional(f.AuthorizationID), BelowID: optional(f.BelowID), Owner: optional(f.Owner),
		State: optional(f.State), RunKey: f.RunKey, MaxReservations: int32(limit),
	}
	if f.Before != nil {
		p.BeforeAt, p.BeforeKey, p.BeforeCallID = &f.Before.ReservedAt, &f.Before.RunKey, &f.Before.ToolCallID
	}
	page, err := db.New(q).SpendReservationList(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	return page, nil
}

// Drift lists the authorizations whose counters are not the sums of the ledger and
// of the reservations. There are none unless somebody wrote past this room.
func Drift(ctx context.Context, q db.DBTX) ([]db.SpendLedgerDrift, error) {
	drift, err := db.New(q).SpendAuthorizationDrift(ctx, 1000)
	if err != nil {
		return nil, fmt.Errorf("compare the ledger with its sums: %w", err)
	}
	return drift, nil
}

package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// ListSpendReservations pages through what is held under the caller's
// authorizations, newest first.
func (s *Server) ListSpendReservations(ctx context.Context, req api.ListSpendReservationsRequestObject) (api.ListSpendReservationsResponseObject, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := narrow(&req.Params.RunID, callerOf(ctx).Claims.RunID, "run_id", "runId"); err != nil {
		return nil, err
	}
	f := spend.ReservationFilter{State: string(deref(req.Params.State))}
	if owner != run.Everybody {
		f.Owner = string(owner)
	}
	if req.Params.RunID != nil {
		r, err := runOf(ctx, s.Pool, *req.Params.RunID)
		if fault.Is(err, api.RunNotFound) {
			return api.ListSpendReservations200JSONResponse{Body: api.SpendReservationPage{Reservations: []ds.SpendReservationV1{}}}, nil
		}
		if err != nil {
			return nil, err
		}
		f.RunKey = &r.RunKey
	}
	page, err := s.reservations(ctx, f, req.Params.PageToken, int(*req.Params.Limit))
	if err != nil {
		return nil, err
	}
	return api.ListSpendReservations200JSONResponse{Body: page}, nil
}

// ListSpendReservationsOf pages through what is held under an authorization and
// all below it.
func (s *Server) ListSpendReservationsOf(ctx context.Context, req api.ListSpendReservationsOfRequestObject) (api.ListSpendReservationsOfResponseObject, error) {
	if _, err := s.authorizationNamed(ctx, req.AuthorizationIDParam); err != nil {
		return nil, err
	}
	f := spend.ReservationFilter{BelowID: req.AuthorizationIDParam, State: string(deref(req.Params.State))}
	page, err := s.reservations(ctx, f, req.Params.PageToken, int(*req.Params.Limit))
	if err != nil {
		return nil, err
	}
	return api.ListSpendReservationsOf200JSONResponse{Body: page}, nil
}

func (s *Server) reservations(ctx context.Context, f spend.ReservationFilter, token *string, limit int) (api.SpendReservationPage, error) {
	page := api.SpendReservationPage{Reservations: []ds.SpendReservationV1{}}
	before, err := placeAfter(token)
	if err != nil {
		return page, err
	}
	if before != nil {
		key, call, ok := strings.Cut(before.id, "/")
		runKey, err := uuid.Parse(key)
		if !ok || err != nil {
			return page, refusePage()
		}
		f.Before = &db.SpendReservation{ReservedAt: before.at, RunKey: runKey, ToolCallID: call}
	}
	rows, err := spend.Reservations(ctx, s.Pool, f, limit+1)
	if err != nil {
		return page, err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		page.NextPageToken = place{last.ReservedAt, last.RunKey.String() + "/" + last.ToolCallID}.token()
	}
	for _, row := range rows {
		page.Reservations = append(page.Reservations, reservationOf(row))
	}
	return page, nil
}

func refusePage() error {
	return refuseParameter("query", "pageToken", "must be the nextPageToken of the page before, as it was told")
}

// ReconcileSpendReservation books what an operator found out.
func (s *Server) ReconcileSpendReservation(ctx context.Context, req api.ReconcileSpendReservationRequestObject) (api.ReconcileSpendReservationResponseObject, error) {
	r, err := runOf(ctx, s.Pool, req.RunIDParam)
	if err != nil {
		return nil, err
	}
	held, err := reservationNamed(ctx, s.Pool, r.RunKey, req.ToolCallIDParam)
	if err != nil {
		return nil, err
	}
	if held.State == spend.Reserved {
		live, err := lease.Live(ctx, s.Pool, r.RunKey)
		if err != nil {
			return nil, err
		}
		if live {
			return nil, fault.New(api.ReservationAtWork, "an executor holds the run and settles its calls; cancel the run, or wait for it")
		}
	}
	found, err := findingOf(*req.Body)
	if err != nil {
		return nil, err
	}
	change, err := spend.Reconcile(held, found, actorOf(ctx))
	if err == nil && len(change.Joints) > 0 {
		err = spend.Settle(ctx, s.Log, held, 0, change)
	}
	var terms *spend.TermsError
	switch {
	case errors.As(err, &terms):
		return nil, unfitBody("/"+terms.Field, terms.Problem)
	case errors.Is(err, spend.ErrTooMuch):
		return nil, unfitBody("/amountSats", "is more than can have been paid under this authorization")
	case errors.Is(err, spend.ErrMoved):
		return nil, s.settledOtherwise(ctx, held)
	case err != nil:
		return nil, fmt.Errorf("reconcile %s: %w", held.ToolCallID, err)
	}
	if held, err = reservationNamed(ctx, s.Pool, r.RunKey, req.ToolCallIDParam); err != nil {
		return nil, err
	}
	slog.InfoContext(ctx, "a reservation was reconciled", "run_id", r.RunID, "tool_call_id", held.ToolCallID, "outcome", req.Body.Outcome,
		"state", held.State, "booked", len(change.Joints) > 0, "actor", callerOf(ctx).Actor)
	return api.ReconcileSpendReservation200JSONResponse{Body: api.SpendReservationAnswer{Reservation: reservationOf(held)}}, nil
}

func reservationNamed(ctx context.Context, q db.DBTX, runKey uuid.UUID, callID string) (db.SpendReservation, error) {
	held, err := spend.Reservation(ctx, q, runKey, callID)
	if errors.Is(err, spend.ErrNotFound) {
		return held, fault.New(api.ReservationNotFound, "nothing was held for this call of the run")
	}
	return held, err
}

func findingOf(body api.ReconcileSpendReservationRequest) (spend.Finding, error) {
	if body.AmountSats != nil && body.Outcome != api.ReconcileSpendReservationRequestOutcomeCommit {
		return spend.Finding{}, unfitBody("/amountSats", "is of the outcome commit alone")
	}
	evidence, err := canon.Marshal(body.Evidence)
	if err != nil {
		return spend.Finding{}, unfitBody("/evidence", "cannot be written down")
	}
	return spend.Finding{
		Outcome: string(body.Outcome), AmountSats: deref(body.AmountSats), Evidence: redact.Strings(evidence), Reason: redact.Text(body.Reason),
	}, nil
}

// settledOtherwise tells how a reservation stands that does not take an outcome.
func (s *Server) settledOtherwise(ctx context.Context, held db.SpendReservation) error {
	now, err := spend.Reservation(ctx, s.Pool, held.RunKey, held.ToolCallID)
	if err != nil {
		return err
	}
	f := fault.New(api.ReservationSettled, "the reservation is %s, and this outcome contradicts it", now.State).With("state", now.State)
	if now.CommittedSats != nil {
		f = f.With("committedSats", *now.CommittedSats)
	}
	return f
}

// RecoverStuckSpend settles what executors left behind.
func (s *Server) RecoverStuckSpend(ctx context.Context, req api.RecoverStuckSpendRequestObject) (api.RecoverStuckSpendResponseObject, error) {
	limit := 100
	if req.Body.Limit != nil {
		limit = int(*req.Body.Limit)
	}
	done, checked, left, err := spend.RecoverSome(ctx, s.Pool, s.Log, spend.StuckAge, limit)
	if err != nil {
		return nil, err
	}
	if checked > 0 {
		slog.InfoContext(ctx, "stuck reservations were recovered", "checked", checked, "released", done.Released, "marked", done.Marked,
			"committed", done.Committed, "left", left, "actor", callerOf(ctx).Actor)
	}
	return api.RecoverStuckSpend200JSONResponse{Body: api.RecoverStuckSpendAnswer{
		Checked: int64(checked), Released: int64(done.Released), Marked: int64(done.Marked), Committed: int64(done.Committed), Left: int64(left),
	}}, nil
}

// GetSpendStatement tells a page of a statement.
func (s *Server) GetSpendStatement(ctx context.Context, req api.GetSpendStatementRequestObject) (api.GetSpendStatementResponseObject, error) {
	p := req.Params
	statement, next, err := s.statement(ctx, req.AuthorizationIDParam, statementAsked{p.From, p.To, p.PageToken, int(*p.Limit)})
	if err != nil {
		return nil, err
	}
	return api.GetSpendStatement200JSONResponse{Body: api.SpendStatementPage{Statement: statement, NextPageToken: next}}, nil
}

// ExportSpendStatement tells a page of a statement as a table.
func (s *Server) ExportSpendStatement(ctx context.Context, req api.ExportSpendStatementRequestObject) (api.ExportSpendStatementResponseObject, error) {
	p := req.Params
	statement, next, err := s.statement(ctx, req.AuthorizationIDParam, statementAsked{p.From, p.To, p.PageToken, int(*p.Limit)})
	if err != nil {
		return nil, err
	}
	table, err := statementTable(statement, p.PageToken == nil, next == nil)
	if err != nil {
		return nil, fmt.Errorf("write a statement as a table: %w", err)
	}
	answer := api.ExportSpendStatement200TextCsvResponse{Body: bytes.NewReader(table), ContentLength: int64(len(table))}
	answer.Headers.XOaNextPageToken = next
	return answer, nil
}

// statementAsked is the time of a statement and the page of it.
type statementAsked struct {
	from, to *time.Time
	token    *string
	limit    int
}

func (s *Server) statement(ctx context.Context, id string, asked statementAsked) (ds.SpendStatementV1, *string, error) {
	var out ds.SpendStatementV1
	chain, err := s.authorizationNamed(ctx, id)
	if err != nil {
		return out, nil, err
	}
	// By default all that was booked until now.
	from, until := chain.Leaf().InsertedAt, chain.ReadAt.Add(time.Microsecond)
	place := spend.Place{}
	if asked.token != nil {
		if until, place, err = pageOfStatement(*asked.token); err != nil {
			return out, nil, err
		}
	}
	if asked.from != nil {
		from = *asked.from
	}
	if asked.to != nil && asked.token == nil {
		until = *asked.to
	}
	if !from.Before(until) {
		return out, nil, refuseParameter("query", "from", "must be before the end of the statement, which is now unless to says otherwise")
	}
	// One moment for all of it, so that the lines make up the sums.
	err = s.atOneMoment(ctx, func(q db.DBTX) error {
		page, err := spend.Statement(ctx, q, id, from, until, place, asked.limit)
		if err != nil {
			return err
		}
		period, err := spend.Over(ctx, q, id, from, until)
		if err != nil {
			return err
		}
		calls, err := spend.CallsOf(ctx, q, page.Lines)
		if err != nil {
			return err
		}
		out = statementOf(page, period, calls)
		if page.More {
			place = page.Next
		} else {
			place = spend.Place{}
		}
		return nil
	})
	if err != nil || place.At.IsZero() {
		return out, nil, err
	}
	return out, statementToken(until, place), nil
}

// statementToken names the page after a place of a statement that ends at a
// moment: its end stays the same from page to page.
func statementToken(until time.Time, p spend.Place) *string {
	t := fmt.Sprintf("%d.%d.%s.%s", until.UnixMicro(), p.At.UnixMicro(), p.EntryID, p.AuthorizationID)
	return &t
}

func pageOfStatement(token string) (until time.Time, p spend.Place, err error) {
	end, rest, ok := strings.Cut(token, ".")
	micros, errEnd := strconv.ParseInt(end, 10, 64)
	if !ok || errEnd != nil {
		return until, p, refusePage()
	}
	after, err := placeAfter(&rest)
	if err != nil {
		return until, p, err
	}
	entry, authorizationID, ok := strings.Cut(after.id, ".")
	entryID, errEntry := uuid.Parse(entry)
	if !ok || errEntry != nil || after.at.UnixMicro() > micros || micros >= latestMicros {
		return until, p, refusePage()
	}
	return time.UnixMicro(micros), spend.Place{At: after.at, AuthorizationID: authorizationID, EntryID: entryID}, nil
}

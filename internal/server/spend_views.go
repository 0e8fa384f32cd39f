package server

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// spendAnswer tells the lowest authorization of a chain and what all of it allows.
func spendAnswer(c spend.Chain) (api.SpendAuthorizationAnswer, error) {
	out := api.SpendAuthorizationAnswer{Effective: effectiveOf(c)}
	for _, l := range c.Levels {
		a := l.Authorization
		out.Chain = append(out.Chain, ds.SpendAuthorizationV1Level{
			AuthorizationID: a.AuthorizationID, ScopeKind: ds.SpendAuthorizationV1LevelScopeKind(a.ScopeKind),
			Mode: ds.SpendAuthorizationV1LevelMode(a.Mode), State: ds.SpendAuthorizationV1LevelState(spend.State(a, c.ReadAt)),
			RemainingSats: spend.Remaining(a), MaxPerCallSats: a.MaxPerCallSats, ExpiresAt: utc(a.ExpiresAt),
		})
	}
	leaf := c.Levels[len(c.Levels)-1]
	var err error
	out.Authorization, err = authorizationOf(leaf.Authorization, leaf.Periods, c.ReadAt)
	return out, err
}

// effectiveOf is what all levels of a chain leave.
func effectiveOf(c spend.Chain) ds.SpendAuthorizationV1Effective {
	out := ds.SpendAuthorizationV1Effective{State: ds.SpendAuthorizationV1EffectiveStateLive}
	lower := func(to **int64, n *int64) bool {
		if n == nil || *to != nil && **to <= *n {
			return false
		}
		*to = n
		return true
	}
	for _, l := range c.Levels {
		a := l.Authorization
		least := lower(&out.RemainingSats, spend.Remaining(a))
		for _, p := range l.Periods {
			left := p.MaxSats - p.CapturedSats - p.HeldSats
			least = lower(&out.RemainingSats, &left) || least
		}
		if a.Mode == spend.Deny {
			nothing := int64(0)
			least = lower(&out.RemainingSats, &nothing) || least
		}
		lower(&out.MaxPerCallSats, a.MaxPerCallSats)
		if a.ExpiresAt != nil && (out.ExpiresAt == nil || a.ExpiresAt.Before(*out.ExpiresAt)) {
			out.ExpiresAt = utc(a.ExpiresAt)
		}
		if out.State != ds.SpendAuthorizationV1EffectiveStateLive {
			continue // the first level that is not live says what is the matter
		}
		state := spend.State(a, c.ReadAt)
		out.State = ds.SpendAuthorizationV1EffectiveState(state)
		if least || out.State != ds.SpendAuthorizationV1EffectiveStateLive {
			id := a.AuthorizationID
			out.LimitedBy = &id
		}
	}
	return out
}

// authorizationOf tells an authorization as it is stored, at a moment.
func authorizationOf(a db.SpendAuthorization, periods []db.SpendPeriodListManyRow, at time.Time) (ds.SpendAuthorizationV1, error) {
	out := ds.SpendAuthorizationV1{
		AuthorizationID: a.AuthorizationID, ParentAuthorizationID: a.ParentAuthorizationID, Path: a.Path, Owner: a.Owner,
		ScopeKind: ds.SpendAuthorizationV1ScopeKind(a.ScopeKind), RunID: a.RunID, ThreadID: a.ThreadID, AutopilotID: a.AutopilotID,
		Mode: ds.SpendAuthorizationV1Mode(a.Mode), State: ds.SpendAuthorizationV1State(spend.State(a, at)),
		MaxTotalSats: a.MaxTotalSats, MaxPerCallSats: a.MaxPerCallSats, MaxPerDaySats: a.MaxPerDaySats, ThresholdSats: a.ThresholdSats,
		OnExhaustion: ds.SpendAuthorizationV1OnExhaustion(a.OnExhaustion), UnknownPrice: ds.SpendAuthorizationV1UnknownPrice(a.UnknownPrice),
		SpentSats: a.SpentSats, ReservedSats: a.ReservedSats, OverageSats: a.OverageSats, RemainingSats: spend.Remaining(a),
		Periods: []ds.SpendAuthorizationV1Period{}, Revision: a.Revision, NotBefore: utc(a.NotBefore), IssuedAt: a.IssuedAt.UTC(),
		ExpiresAt: utc(a.ExpiresAt), RevokedAt: utc(a.RevokedAt), RevokedBy: a.RevokedBy, RevokeReason: a.RevokeReason,
	}
	for _, p := range periods {
		out.Periods = append(out.Periods, ds.SpendAuthorizationV1Period{
			Period: ds.SpendAuthorizationV1PeriodPeriod(p.Period), MaxSats: p.MaxSats, PeriodStart: p.PeriodStart.UTC(),
			CapturedSats: p.CapturedSats, HeldSats: p.HeldSats, RemainingSats: p.MaxSats - p.CapturedSats - p.HeldSats,
		})
		most := p.MaxSats
		switch p.Period {
		case "hour":
			out.MaxPerHourSats = &most
		case "week":
			out.MaxPerWeekSats = &most
		case "month":
			out.MaxPerMonthSats = &most
		}
	}
	slices.SortFunc(out.Periods, func(a, b ds.SpendAuthorizationV1Period) int { return lengthOf(a) - lengthOf(b) })
	if err := json.Unmarshal(a.Constraints, &out.Constraints); err != nil {
		return out, fmt.Errorf("constraints of %s: %w", a.AuthorizationID, err)
	}
	if err := json.Unmarshal(a.Metadata, &out.Metadata); err != nil {
		return out, fmt.Errorf("metadata of %s: %w", a.AuthorizationID, err)
	}
	return out, nil
}

// lengthOf puts periods in order, the shortest first.
func lengthOf(p ds.SpendAuthorizationV1Period) int {
	return slices.Index([]string{"hour", "day", "week", "month"}, string(p.Period))
}

// reservationOf tells a reservation. Quote and proof stay in the database: they
// may hold credentials.
func reservationOf(r db.SpendReservation) ds.SpendReservationV1 {
	out := ds.SpendReservationV1{
		AuthorizationID: r.AuthorizationID, RunID: r.RunID, ToolCallID: r.ToolCallID, Kind: ds.SpendReservationV1Kind(r.Kind), Tool: r.ToolName,
		Provider: r.Provider, Host: r.Host, Payee: r.Payee, AmountSats: r.AmountSats, CommittedSats: r.CommittedSats, State: ds.SpendReservationV1State(r.State),
		RetryClass: ds.SpendReservationV1RetryClass(r.RetryClass), RequestHash: r.RequestHash, LeaseEpoch: &r.LeaseEpoch,
		ProviderIdempotencyKey: r.ProviderIdempotencyKey, ProviderCorrelationID: r.ProviderCorrelationID, PaymentHash: r.PaymentHash,
		ProofHash: digestOf(r.Proof), MaybeBilled: onlyTrue(r.MaybeBilled), FailureReason: r.FailureReason, EvaluationHash: some(r.EvaluationHash), ApprovalID: r.ApprovalID,
		ReservedAt: r.ReservedAt.UTC(), StartedAt: utc(r.StartedAt), MarkedAt: utc(r.MarkedAt), CommittedAt: utc(r.CommittedAt),
		ReleasedAt: utc(r.ReleasedAt), ReconciledAt: utc(r.ReconciledAt), ReconciledBy: r.ReconciledBy, NextProbeAt: utc(r.NextProbeAt),
	}
	if r.ProbeCount > 0 {
		out.ProbeCount = &r.ProbeCount
	}
	return out
}

// digestOf is the digest of a document as it is stored; nil of none.
func digestOf(document []byte) *string {
	if len(document) == 0 {
		return nil
	}
	hash := canon.Hash(document)
	return &hash
}

// statementOf tells a page of a statement.
func statementOf(page spend.Account, all spend.Period, calls map[spend.Call]db.SpendReservation) ds.SpendStatementV1 {
	out := ds.SpendStatementV1{
		AuthorizationID: page.Authorization.AuthorizationID, From: page.From.UTC(), To: page.Until.UTC(),
		Opening: balanceOf(all.Opening), Closing: balanceOf(all.Closing), Movements: []ds.SpendStatementV1Movement{},
		Sums: ds.SpendStatementV1Sums{
			IssuedSats: all.Sats["issue"], RaisedSats: all.Sats["raise"], LoweredSats: all.Sats["lower"], HeldSats: all.Sats["hold"],
			CapturedSats: all.Sats["capture"], ReleasedSats: all.Sats["release"], OverageSats: all.Sats["overage"],
			ReversedSats: all.Sats["reversal"], Movements: all.Movements,
		},
	}
	for _, l := range page.Lines {
		e, b := l.Entry, balanceOf(l.After)
		m := ds.SpendStatementV1Movement{
			EntryID: e.EntryID, At: e.InsertedAt.UTC(), Kind: ds.SpendStatementV1MovementKind(e.Kind), AuthorizationID: e.AuthorizationID,
			Debit: ds.SpendStatementV1MovementDebit(e.Debit), Credit: ds.SpendStatementV1MovementCredit(e.Credit), AmountSats: e.AmountSats,
			BalanceSats: b.BalanceSats, HeldSats: b.HeldSats, AvailableSats: b.AvailableSats, SpentSats: b.SpentSats, Actor: some(e.Actor),
		}
		if e.RunKey != nil && e.ToolCallID != nil {
			r := calls[spend.Call{RunKey: *e.RunKey, ToolCallID: *e.ToolCallID}]
			m.RunID, m.ToolCallID, m.Tool, m.Provider = some(r.RunID), e.ToolCallID, r.ToolName, r.Provider
			m.Payee, m.Host, m.PaymentHash = r.Payee, r.Host, r.PaymentHash
			switch e.Kind {
			case "capture", "overage", "reversal": // what the proof is of
				m.ProofHash = digestOf(r.Proof)
			}
		}
		out.Movements = append(out.Movements, m)
	}
	return out
}

func balanceOf(b spend.Balance) ds.SpendStatementV1Balance {
	return ds.SpendStatementV1Balance{
		BalanceSats: b.AvailableSats + b.ReservedSats, HeldSats: b.ReservedSats, AvailableSats: b.AvailableSats, SpentSats: b.SpentSats,
	}
}

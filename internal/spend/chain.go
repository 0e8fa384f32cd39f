package spend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

// Level is one authorization of a chain with its caps of periods.
type Level struct {
	Authorization db.SpendAuthorization
	Periods       []db.SpendPeriodListManyRow
	constraints   Constraints
}

// Chain is the authorization that pays and those above it, root first, as they
// were read at a moment of the database's clock.
type Chain struct {
	Levels []Level
	ReadAt time.Time
	// foreign says that the run names an authorization that is not its to use.
	foreign bool
}

// ChainOf reads what pays for a run: the authorization that its start named, else
// the most specific one of its owner (run, thread, autopilot, owner; the newest of
// those), ended or not: a broader one does not stand in for one that was revoked.
// ok is false when there is none; the empty chain decides authorization_missing.
func ChainOf(ctx context.Context, q db.DBTX, r db.Run) (c Chain, ok bool, err error) {
	queries := db.New(q)
	var leaf db.SpendAuthorization
	if r.AuthorizationID != nil {
		leaf, err = queries.SpendAuthorizationGet(ctx, *r.AuthorizationID)
	} else {
		leaf, err = queries.SpendAuthorizationResolve(ctx, db.SpendAuthorizationResolveParams{
			Owner: r.Owner, RunID: &r.RunID, ThreadID: &r.ThreadID, AutopilotID: r.AutopilotID,
		})
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Chain{}, false, nil
	case err != nil:
		return Chain{}, false, fmt.Errorf("find the authorization of run %s: %w", r.RunID, err)
	}
	if c, err = chainOf(ctx, queries, leaf.Path); err != nil {
		return Chain{}, false, err
	}
	c.foreign = !usable(leaf, r)
	return c, true, nil
}

// ChainOfID reads an authorization by its id and those above it, for work that
// belongs to no run's owner. ok is false when there is none.
func ChainOfID(ctx context.Context, q db.DBTX, authorizationID string) (c Chain, ok bool, err error) {
	queries := db.New(q)
	leaf, err := queries.SpendAuthorizationGet(ctx, authorizationID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Chain{}, false, nil
	case err != nil:
		return Chain{}, false, fmt.Errorf("find the authorization %s: %w", authorizationID, err)
	}
	c, err = chainOf(ctx, queries, leaf.Path)
	return c, err == nil, err
}

func chainOf(ctx context.Context, queries *db.Queries, path []string) (Chain, error) {
	rows, err := queries.SpendAuthorizationListPath(ctx, path)
	if err != nil {
		return Chain{}, fmt.Errorf("read the authorizations: %w", err)
	}
	if len(rows) != len(path) {
		return Chain{}, fmt.Errorf("read the authorizations: %d of the path %v are there", len(rows), path)
	}
	caps, err := queries.SpendPeriodListMany(ctx, path)
	if err != nil {
		return Chain{}, fmt.Errorf("read the caps of periods: %w", err)
	}
	var c Chain
	for _, row := range rows {
		l := Level{Authorization: row.SpendAuthorization}
		if l.constraints, err = constraintsOf(l.Authorization); err != nil {
			return Chain{}, err
		}
		for _, p := range caps {
			if p.AuthorizationID == l.Authorization.AuthorizationID {
				l.Periods = append(l.Periods, p)
			}
		}
		c.Levels, c.ReadAt = append(c.Levels, l), row.ReadAt.UTC()
	}
	return c, nil
}

// Usable says whether a run may name an authorization: it is its owner's, and of
// a scope that the run is in. An organisation's pays only through one below it.
func Usable(a db.SpendAuthorization, r db.Run) bool { return usable(a, r) }

func usable(a db.SpendAuthorization, r db.Run) bool {
	return a.Owner == r.Owner && a.ScopeKind != ScopeOrganisation && a.ScopeKind != ScopeSystem &&
		(a.RunID == nil || *a.RunID == r.RunID) &&
		(a.ThreadID == nil || *a.ThreadID == r.ThreadID) &&
		(a.AutopilotID == nil || text(a.AutopilotID) == text(r.AutopilotID))
}

// Leaf is the authorization that pays; nil of an empty chain.
func (c Chain) Leaf() *db.SpendAuthorization {
	if len(c.Levels) == 0 {
		return nil
	}
	return &c.Levels[len(c.Levels)-1].Authorization
}

// IDs are the chain's authorizations, root first.
func (c Chain) IDs() []string {
	ids := make([]string, 0, len(c.Levels))
	for _, l := range c.Levels {
		ids = append(ids, l.Authorization.AuthorizationID)
	}
	return ids
}

// MaxFeeSats is what a payment's fee may be: the least that a level says. ok is
// false when none says.
func (c Chain) MaxFeeSats() (most int64, ok bool) {
	for _, l := range c.Levels {
		if n := l.constraints.MaxFeeSats; n != nil && (!ok || *n < most) {
			most, ok = *n, true
		}
	}
	return most, ok
}

// ArgsHash is what an approval of a call that spends binds: the call's arguments,
// and how much goes to whom.
func ArgsHash(argsHash string, q Quote) (string, error) {
	hash, err := canon.HashJSON(struct {
		ArgsHash   string `json:"args_hash"`
		AmountSats int64  `json:"amount_sats"`
		Known      bool   `json:"known"`
		Payee      string `json:"payee"`
		Provider   string `json:"provider"`
	}{argsHash, q.AmountSats, q.Known, q.Payee, q.Provider})
	if err != nil {
		return "", fmt.Errorf("hash what is paid: %w", err)
	}
	return hash, nil
}

// Decide asks policy about a call at every level. base is what else policy must
// know; its action's args_hash becomes ArgsHash. The first denial decides, else
// the first level that wants a person, else the leaf. An approval binds the rules
// of all levels at once: PolicyHash of what is answered.
func (c Chain) Decide(base ds.PolicyEvaluationV1Input, in Intent) (policy.Evaluation, error) {
	inputs, err := c.inputs(base, in)
	if err != nil {
		return policy.Evaluation{}, err
	}
	hashes := make([]string, len(inputs))
	for i := range inputs {
		if hashes[i], err = policy.PolicyHash(inputs[i]); err != nil {
			return policy.Evaluation{}, err
		}
	}
	all := hashes[0]
	if len(hashes) > 1 {
		if all, err = canon.HashJSON(hashes); err != nil {
			return policy.Evaluation{}, fmt.Errorf("hash the chain's rules: %w", err)
		}
	}
	var asks, last *policy.Evaluation
	for i := range inputs {
		if a := inputs[i].Approval; a != nil {
			bound := *a
			if a.PolicyHash != nil && *a.PolicyHash == all {
				bound.PolicyHash = &hashes[i]
			} else {
				bound.PolicyHash = nil
			}
			inputs[i].Approval = &bound
		}
		e, err := policy.Decide(inputs[i])
		if err != nil {
			return policy.Evaluation{}, fmt.Errorf("decide on %s: %w", in.CallID, err)
		}
		e.PolicyHash = all
		switch {
		case e.Decision == policy.Denied:
			return e, nil
		case e.Decision == policy.NeedsApproval && asks == nil:
			asks = &e
		}
		last = &e
	}
	if asks != nil {
		return *asks, nil
	}
	return *last, nil
}

// inputs are what policy is asked, a level each, root first; one without an
// authorization for an empty chain.
func (c Chain) inputs(base ds.PolicyEvaluationV1Input, in Intent) ([]ds.PolicyEvaluationV1Input, error) {
	action := base.Action
	if action.Kind == "" {
		action.Kind = ds.PolicyEvaluationV1ActionKindSettlement
	}
	hash, err := ArgsHash(text(action.ArgsHash), in.Quote)
	if err != nil {
		return nil, err
	}
	action.ArgsHash, action.AmountSats = &hash, &in.Quote.AmountSats
	if !in.Quote.Known {
		unknown := true
		action.AmountUnknown = &unknown
	}
	action.Provider = first(in.Provider, in.Quote.Provider, text(action.Provider))
	action.Payee = first(in.Quote.Payee, text(action.Provider))
	action.Domain = first(in.Quote.Host, text(action.Domain))
	switch in.Kind {
	case ForModel:
		action.Model = first(in.Tool, text(action.Model))
	case ForTool:
		action.ToolName = first(in.Tool, text(action.ToolName))
	}
	base.Action = action
	if a := in.Approval; a != nil {
		base.Approval = &ds.PolicyEvaluationV1Approval{
			ApprovalID: a.ApprovalID, State: a.State, ArgsHash: &a.ArgsHash, PolicyHash: &a.PolicyHash,
		}
	}
	if !c.ReadAt.IsZero() {
		base.EvaluatedAt = &c.ReadAt
	}
	if len(c.Levels) == 0 {
		return []ds.PolicyEvaluationV1Input{base}, nil
	}
	all := make([]ds.PolicyEvaluationV1Input, 0, len(c.Levels))
	for _, l := range c.Levels {
		all = append(all, l.input(base, c.foreign))
	}
	return all, nil
}

func (l Level) input(base ds.PolicyEvaluationV1Input, foreign bool) ds.PolicyEvaluationV1Input {
	a := l.Authorization
	var p ds.PolicyEvaluationV1Policy
	if base.Policy != nil {
		p = *base.Policy
	}
	p.AuthorizationID, p.AuthorizationMode = &a.AuthorizationID, &a.Mode
	if foreign {
		denied, why := policy.Denied, string(ds.ReasonCodePolicyDeniedScopeMismatch)
		p.RequestedDecision, p.RequestedReasonCode = &denied, &why
	}
	base.Policy = &p
	base.Authorization = &ds.PolicyEvaluationV1Authorization{
		IssuedAt: &a.IssuedAt, StartsAt: a.NotBefore, ExpiresAt: a.ExpiresAt, RevokedAt: a.RevokedAt,
		AllowedTools: l.constraints.AllowedTools, AllowedDomains: l.constraints.AllowedDomains,
		AllowedProviders: l.constraints.AllowedProviders, AllowedModels: l.constraints.AllowedModels,
		AllowedPayees: l.constraints.AllowedPayees, UnknownPrice: &a.UnknownPrice,
	}
	b := &ds.PolicyEvaluationV1Budget{
		SpentSats: &a.SpentSats, ReservedSats: &a.ReservedSats, RemainingSats: Remaining(a),
		MaxPerCallSats: a.MaxPerCallSats, ThresholdSats: a.ThresholdSats,
	}
	for _, c := range l.Periods {
		used := c.CapturedSats + c.HeldSats
		if c.Period == "day" {
			b.MaxPerDaySats, b.DaySpentSats = &c.MaxSats, &used
			continue
		}
		b.Periods = append(b.Periods, ds.PolicyEvaluationV1Period{Period: c.Period, MaxSats: c.MaxSats, UsedSats: used})
	}
	base.Budget = b
	return base
}

// first is the first of some texts that is not empty; nil when all are.
func first(texts ...string) *string {
	for _, t := range texts {
		if t != "" {
			return &t
		}
	}
	return nil
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// CreateSpendAuthorization issues an authorization, or answers again for the one
// that the same body issued.
func (s *Server) CreateSpendAuthorization(ctx context.Context, req api.CreateSpendAuthorizationRequestObject) (api.CreateSpendAuthorizationResponseObject, error) {
	body := req.Body.Authorization
	grant, err := grantOf(ctx, body)
	if err != nil {
		return nil, err
	}
	if err := s.mayIssue(ctx, body); err != nil {
		return nil, err
	}
	a, replay, err := spend.Create(ctx, s.Pool, grant, actorOf(ctx))
	if err != nil {
		return nil, spendFault(err, "/authorization/")
	}
	answer := api.CreateSpendAuthorization200JSONResponse{}
	if answer.Body, err = s.spendAnswer(ctx, a.AuthorizationID); err != nil {
		return nil, err
	}
	if replay {
		answer.Headers.IdempotentReplay = &replay
		return answer, nil
	}
	slog.InfoContext(ctx, "an authorization to spend was issued", "authorization_id", a.AuthorizationID, "owner", a.Owner,
		"mode", a.Mode, "scope_kind", a.ScopeKind, "actor", callerOf(ctx).Actor)
	return answer, nil
}

// grantOf is what a body asks for, of the principal.
func grantOf(ctx context.Context, body ds.SpendGrantV1) (spend.Grant, error) {
	c := callerOf(ctx)
	g := spend.Grant{
		AuthorizationID: body.AuthorizationID, ParentAuthorizationID: deref(body.ParentAuthorizationID), ScopeKind: string(body.ScopeKind),
		RunID: deref(body.RunID), ThreadID: deref(body.ThreadID), AutopilotID: deref(body.AutopilotID), Mode: string(body.Mode),
		Terms: spend.Terms{
			MaxTotalSats: body.MaxTotalSats, MaxPerCallSats: body.MaxPerCallSats, MaxPerDaySats: body.MaxPerDaySats, ThresholdSats: body.ThresholdSats,
			MaxPer:      perPeriod(nil, body.MaxPerHourSats, body.MaxPerWeekSats, body.MaxPerMonthSats),
			Constraints: constraintsOf(body.Constraints), OnExhaustion: string(deref(body.OnExhaustion)), UnknownPrice: string(deref(body.UnknownPrice)),
			NotBefore: utc(body.NotBefore), ExpiresAt: utc(body.ExpiresAt),
		},
	}
	switch owner, err := c.Owner(); {
	case err != nil && c.Scope != auth.Operator:
		return g, err
	case err != nil: // the service's own
	case owner.GuestScope != "":
		g.OwnerGuestScope = &owner.GuestScope
	default:
		g.OwnerUserID = &owner.UserID
	}
	if body.Metadata != nil {
		metadata, err := canon.Marshal(body.Metadata)
		if err != nil {
			return g, unfitBody("/authorization/metadata", "cannot be written down")
		}
		g.Terms.Metadata = redact.Strings(metadata)
	}
	return g, nil
}

// perPeriod are caps of periods with those that are given.
func perPeriod(caps map[string]int64, hour, week, month *int64) map[string]int64 {
	for period, n := range map[string]*int64{"hour": hour, "week": week, "month": month} {
		if n == nil {
			continue
		}
		if caps == nil {
			caps = map[string]int64{}
		}
		caps[period] = *n
	}
	return caps
}

func constraintsOf(c *ds.SpendGrantV1Constraints) spend.Constraints {
	if c == nil {
		return spend.Constraints{}
	}
	return spend.Constraints{
		AllowedTools: c.AllowedTools, AllowedDomains: c.AllowedDomains, AllowedProviders: c.AllowedProviders, AllowedModels: c.AllowedModels,
		AllowedPayees: c.AllowedPayees, MaxFeeSats: c.MaxFeeSats, MaxOverageBps: deref(c.MaxOverageBps),
	}
}

// mayIssue refuses what only operators may issue: budgets of organisations and of
// the service, and a part of somebody else's. A token for one run or thread issues
// for that one alone.
func (s *Server) mayIssue(ctx context.Context, body ds.SpendGrantV1) error {
	c := callerOf(ctx)
	switch {
	case c.Claims.RunID != "" && c.Claims.RunID != deref(body.RunID):
		return claimMismatch("run_id", "the body's run_id")
	case c.Claims.ThreadID != "" && body.RunID == nil && c.Claims.ThreadID != deref(body.ThreadID):
		return claimMismatch("thread_id", "the body's thread_id")
	case c.Scope == auth.Operator:
		return nil
	}
	reserved := []string{spend.ScopeOrganisation, spend.ScopeSystem}
	if slices.Contains(reserved, string(body.ScopeKind)) || string(body.Mode) == spend.System {
		return c.Require(auth.Operator)
	}
	if body.ParentAuthorizationID != nil {
		// One that is somebody else's is as if there were none.
		_, err := s.authorizationNamed(ctx, *body.ParentAuthorizationID)
		return err
	}
	return nil
}

// actorOf is who acts, for records of money: somebody always does.
func actorOf(ctx context.Context) string {
	c := callerOf(ctx)
	switch owner, err := ownerOf(ctx); {
	case c.Actor != "":
		return c.Actor
	case err == nil && owner != run.Everybody:
		return string(owner)
	}
	return string(c.Scope)
}

// authorizationNamed finds an authorization of the caller's, with those above it.
func (s *Server) authorizationNamed(ctx context.Context, id string) (spend.Chain, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return spend.Chain{}, err
	}
	chain, ok, err := spend.ChainOfID(ctx, s.Pool, id)
	if err != nil {
		return chain, err
	}
	if !ok || owner != run.Everybody && string(owner) != chain.Leaf().Owner {
		return spend.Chain{}, noAuthorization()
	}
	return chain, touches(callerOf(ctx), deref(chain.Leaf().RunID), deref(chain.Leaf().ThreadID))
}

func noAuthorization() error {
	return fault.New(api.AuthorizationNotFound, "no authorization of yours has this id")
}

func (s *Server) spendAnswer(ctx context.Context, id string) (api.SpendAuthorizationAnswer, error) {
	chain, ok, err := spend.ChainOfID(ctx, s.Pool, id)
	if err != nil {
		return api.SpendAuthorizationAnswer{}, err
	}
	if !ok {
		return api.SpendAuthorizationAnswer{}, noAuthorization()
	}
	return spendAnswer(chain)
}

// GetSpendAuthorization tells an authorization and what its chain allows.
func (s *Server) GetSpendAuthorization(ctx context.Context, req api.GetSpendAuthorizationRequestObject) (api.GetSpendAuthorizationResponseObject, error) {
	chain, err := s.authorizationNamed(ctx, req.AuthorizationIDParam)
	if err != nil {
		return nil, err
	}
	body, err := spendAnswer(chain)
	if err != nil {
		return nil, err
	}
	return api.GetSpendAuthorization200JSONResponse{Body: body}, nil
}

// ListSpendAuthorizations pages through the caller's authorizations, newest first.
func (s *Server) ListSpendAuthorizations(ctx context.Context, req api.ListSpendAuthorizationsRequestObject) (api.ListSpendAuthorizationsResponseObject, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return nil, err
	}
	before, err := placeAfter(req.Params.PageToken)
	if err != nil {
		return nil, err
	}
	if err := narrow(&req.Params.RunID, callerOf(ctx).Claims.RunID, "run_id", "runId"); err != nil {
		return nil, err
	}
	if err := narrow(&req.Params.ThreadID, callerOf(ctx).Claims.ThreadID, "thread_id", "threadId"); err != nil {
		return nil, err
	}
	page := api.SpendAuthorizationPage{Authorizations: []ds.SpendAuthorizationV1{}}
	f := spend.Filter{
		Owner: deref(req.Params.Owner), RunID: deref(req.Params.RunID), ThreadID: deref(req.Params.ThreadID),
		ParentID: deref(req.Params.ParentAuthorizationID), State: string(deref(req.Params.State)),
	}
	if owner != run.Everybody {
		if f.Owner != "" && f.Owner != string(owner) {
			return api.ListSpendAuthorizations200JSONResponse{Body: page}, nil // somebody else's: none
		}
		f.Owner = string(owner)
	}
	if before != nil {
		f.BeforeAt, f.BeforeID = &before.at, before.id
	}
	limit := int(*req.Params.Limit)
	rows, err := spend.List(ctx, s.Pool, f, limit+1)
	if err != nil {
		return nil, err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		last := rows[limit-1]
		page.NextPageToken = place{last.InsertedAt, last.AuthorizationID}.token()
	}
	levels, err := spend.Levels(ctx, s.Pool, rows)
	if err != nil {
		return nil, err
	}
	for _, l := range levels.Levels {
		a, err := authorizationOf(l.Authorization, l.Periods, levels.ReadAt)
		if err != nil {
			return nil, err
		}
		page.Authorizations = append(page.Authorizations, a)
	}
	return api.ListSpendAuthorizations200JSONResponse{Body: page}, nil
}

// AmendSpendAuthorization changes terms at the revision that was read.
func (s *Server) AmendSpendAuthorization(ctx context.Context, req api.AmendSpendAuthorizationRequestObject) (api.AmendSpendAuthorizationResponseObject, error) {
	if _, err := s.authorizationNamed(ctx, req.AuthorizationIDParam); err != nil {
		return nil, err
	}
	if err := changesFit(req.Body.Changes); err != nil {
		return nil, err
	}
	key, err := canon.HashJSON(req.Body)
	if err != nil {
		return nil, unfitBody("/changes", "cannot be written down")
	}
	a, replay, err := spend.Amend(ctx, s.Pool, req.AuthorizationIDParam, spend.Amendment{
		Revision: req.Body.Revision, Key: key, Actor: actorOf(ctx), Reason: redact.Text(req.Body.Reason),
		Change: func(t spend.Terms) (spend.Terms, error) { return amended(t, req.Body.Changes), nil },
	})
	if err != nil {
		err = spendFault(err, "/changes/")
		if fault.Is(err, api.AuthorizationChanged) {
			return nil, s.revisionNow(ctx, req.AuthorizationIDParam, err)
		}
		return nil, err
	}
	answer := api.AmendSpendAuthorization200JSONResponse{}
	if replay {
		answer.Headers.IdempotentReplay = &replay
	} else {
		slog.InfoContext(ctx, "an authorization to spend was amended", "authorization_id", a.AuthorizationID, "revision", a.Revision, "actor", callerOf(ctx).Actor)
	}
	answer.Body, err = s.spendAnswer(ctx, a.AuthorizationID)
	return answer, err
}

// revisionNow tells who changes an old revision which is the present one.
func (s *Server) revisionNow(ctx context.Context, id string, changed error) error {
	a, err := spend.Get(ctx, s.Pool, id)
	if err != nil {
		return err
	}
	var f *fault.Error
	if errors.As(changed, &f) {
		return f.With("revision", a.Revision)
	}
	return changed
}

// changesFit refuses changes that say nothing, or a term twice.
func changesFit(c ds.SpendGrantV1Changes) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return err
	}
	if len(given) == 0 {
		return unfitBody("/changes", "must have a term that is to change")
	}
	for _, term := range c.Clear {
		if _, both := given[string(term)]; both {
			return unfitBody("/changes/clear", "takes away "+string(term)+", which the changes set as well")
		}
	}
	return nil
}

// amended are terms with the changes made.
func amended(t spend.Terms, c ds.SpendGrantV1Changes) spend.Terms {
	for _, term := range c.Clear {
		switch term {
		case ds.SpendGrantV1ChangesClearMaxTotalSats:
			t.MaxTotalSats = nil
		case ds.SpendGrantV1ChangesClearMaxPerCallSats:
			t.MaxPerCallSats = nil
		case ds.SpendGrantV1ChangesClearMaxPerDaySats:
			t.MaxPerDaySats = nil
		case ds.SpendGrantV1ChangesClearMaxPerHourSats:
			delete(t.MaxPer, "hour")
		case ds.SpendGrantV1ChangesClearMaxPerWeekSats:
			delete(t.MaxPer, "week")
		case ds.SpendGrantV1ChangesClearMaxPerMonthSats:
			delete(t.MaxPer, "month")
		case ds.SpendGrantV1ChangesClearNotBefore:
			t.NotBefore = nil
		}
	}
	replace(&t.MaxTotalSats, c.MaxTotalSats)
	replace(&t.MaxPerCallSats, c.MaxPerCallSats)
	replace(&t.MaxPerDaySats, c.MaxPerDaySats)
	replace(&t.ThresholdSats, c.ThresholdSats)
	replace(&t.NotBefore, utc(c.NotBefore))
	replace(&t.ExpiresAt, utc(c.ExpiresAt))
	t.MaxPer = perPeriod(t.MaxPer, c.MaxPerHourSats, c.MaxPerWeekSats, c.MaxPerMonthSats)
	if c.Constraints != nil {
		t.Constraints = constraintsOf(c.Constraints)
	}
	if c.OnExhaustion != nil {
		t.OnExhaustion = string(*c.OnExhaustion)
	}
	if c.UnknownPrice != nil {
		t.UnknownPrice = string(*c.UnknownPrice)
	}
	return t
}

// replace sets what is given.
func replace[T any](to **T, given *T) {
	if given != nil {
		*to = given
	}
}

// RevokeSpendAuthorization lets nothing more be held. Asking twice is fine.
func (s *Server) RevokeSpendAuthorization(ctx context.Context, req api.RevokeSpendAuthorizationRequestObject) (api.RevokeSpendAuthorizationResponseObject, error) {
	if _, err := s.authorizationNamed(ctx, req.AuthorizationIDParam); err != nil {
		return nil, err
	}
	a, replay, err := spend.Revoke(ctx, s.Pool, req.AuthorizationIDParam, actorOf(ctx), redact.Text(deref(req.Body.Reason)))
	if err != nil {
		return nil, spendFault(err, "/")
	}
	if !replay {
		slog.InfoContext(ctx, "an authorization to spend was revoked", "authorization_id", a.AuthorizationID, "actor", callerOf(ctx).Actor)
	}
	answer := api.RevokeSpendAuthorization200JSONResponse{}
	answer.Body, err = s.spendAnswer(ctx, a.AuthorizationID)
	return answer, err
}

// mayPay refuses a run that names an authorization which is not its to spend.
func (s *Server) mayPay(ctx context.Context, e run.Envelope) error {
	if e.AuthorizationID == nil {
		return nil
	}
	a, err := spend.Get(ctx, s.Pool, *e.AuthorizationID)
	switch {
	case errors.Is(err, spend.ErrNotFound), err == nil && a.Owner != string(e.Owner()):
		return noAuthorization()
	case err != nil:
		return err
	}
	as := db.Run{Owner: string(e.Owner()), RunID: e.RunID, ThreadID: e.ThreadID, AutopilotID: e.AutopilotID}
	if !spend.Usable(a, as) {
		return fault.New(api.PolicyDenied, "the authorization is not for this run: its scope is %s", a.ScopeKind).
			With("reasonCode", string(ds.ReasonCodePolicyDeniedScopeMismatch))
	}
	return nil
}

// spendFault gives an error of the room a code. Terms are members of the body
// below a pointer.
func spendFault(err error, below string) error {
	var terms *spend.TermsError
	var used *spend.BelowUsedError
	switch {
	case errors.As(err, &terms):
		return unfitBody(below+terms.Field, terms.Problem)
	case errors.As(err, &used):
		return fault.New(api.AuthorizationInUse, "%s", used.Error()).With("field", used.Field).With("leastSats", used.LeastSats)
	case errors.Is(err, spend.ErrNotFound):
		return noAuthorization()
	case errors.Is(err, spend.ErrConflict):
		return fault.New(api.AuthorizationConflict, "there is an authorization of this id with other terms, or of another owner; use a new id")
	case errors.Is(err, spend.ErrRevision):
		return fault.New(api.AuthorizationChanged, "the authorization was changed since it was read; read it again")
	case errors.Is(err, spend.ErrRevoked):
		return fault.New(api.AuthorizationClosed, "a revoked authorization stays as it is; issue another")
	case errors.Is(err, spend.ErrParent):
		_, why, _ := strings.Cut(err.Error(), spend.ErrParent.Error()+": ")
		return fault.New(api.PolicyDenied, "the parent cannot be above this authorization: %s", why).
			With("reasonCode", string(ds.ReasonCodePolicyDeniedDelegationInvalid))
	}
	return err
}

package policy

import (
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// verdict is an answer of the rules; the zero value says that a rule does not apply.
type verdict struct {
	decision string
	code     ds.ReasonCode
	layer    string
}

func (v verdict) applies() bool { return v.decision != "" }

func deny(code ds.ReasonCode) verdict { return verdict{decision: Denied, code: code} }

// The authorization modes.
const (
	modeInteractive = "interactive"
	modeDelegated   = "delegated_budget"
	modeThreshold   = "delegated_budget_with_threshold"
	modeDeny        = "deny"
	modeSystem      = "system"
)

// question is an input whose absent parts are empty instead of nil.
type question struct {
	action        ds.PolicyEvaluationV1Action
	policy        ds.PolicyEvaluationV1Policy
	authorization ds.PolicyEvaluationV1Authorization
	budget        ds.PolicyEvaluationV1Budget
	context       ds.PolicyEvaluationV1Context
	in            ds.PolicyEvaluationV1Input
	// authorized says that the rules of authorizations and budgets apply.
	authorized bool
	policyHash string
}

// decide asks the rules in the order that docs/policy.md promises.
func decide(in ds.PolicyEvaluationV1Input, policyHash string) verdict {
	q := question{
		action: in.Action, policy: val(in.Policy), authorization: val(in.Authorization),
		budget: val(in.Budget), context: val(in.Context), in: in, policyHash: policyHash,
	}
	// What moves no money needs nobody's authorization; an authorization that is
	// given anyway must hold.
	q.authorized = val(q.action.AmountSats) != 0 || val(q.action.AmountUnknown) || q.action.Kind == ds.PolicyEvaluationV1ActionKindSettlement ||
		in.Authorization != nil || q.policy.AuthorizationID != nil || q.policy.AuthorizationMode != nil
	for _, rule := range []func(question) verdict{
		found, explicit, authorized, toolLists, constraints, amounts, asked,
	} {
		if v := rule(q); v.applies() {
			return v
		}
	}
	if q.mode() == modeSystem {
		return verdict{decision: Allowed, code: ds.ReasonCodePolicyAllowedSystem}
	}
	return verdict{decision: Allowed, code: ds.ReasonCodePolicyAllowedDefault}
}

func (q question) mode() string { return text(q.policy.AuthorizationMode) }

// found passes on what other parts found out. A blank reason is none.
func found(q question) verdict {
	for _, f := range []struct {
		reason   *string
		domain   string
		fallback ds.ReasonCode
	}{
		{q.context.ManifestValidationReason, "manifest_validation.", ds.ReasonCodeManifestValidationInvalidSchema},
		{q.context.LoopDetectedReason, "loop_detected.", ds.ReasonCodeLoopDetectedNoProgress},
		{q.context.SsrfBlockReason, "ssrf_block.", ds.ReasonCodeSsrfBlockPrivateAddress},
	} {
		reason := text(f.reason)
		if reason == "" {
			continue
		}
		if code := ds.ReasonCode(reason); strings.HasPrefix(reason, f.domain) && code.Valid() {
			return deny(code)
		}
		return deny(f.fallback)
	}
	return verdict{}
}

// explicit takes over a decision that was made before. Only the two others are
// no denial: a decision that this package does not know is one.
func explicit(q question) verdict {
	switch strings.ToLower(text(q.policy.RequestedDecision)) {
	case "", Allowed, NeedsApproval:
		return verdict{}
	}
	code := ds.ReasonCode(text(q.policy.RequestedReasonCode))
	if code.Valid() && !strings.HasPrefix(string(code), "policy_allowed.") {
		return deny(code)
	}
	return deny(ds.ReasonCodePolicyDeniedExplicitDeny)
}

func authorized(q question) verdict {
	if !q.authorized {
		return verdict{}
	}
	if text(q.policy.AuthorizationID) == "" {
		return deny(ds.ReasonCodePolicyDeniedAuthorizationMissing)
	}
	switch q.mode() {
	case modeInteractive, modeDelegated, modeThreshold, modeDeny, modeSystem:
	default:
		return deny(ds.ReasonCodePolicyDeniedInvalidAuthorizationMode)
	}
	a, now := q.authorization, q.in.EvaluatedAt
	switch {
	case a.RevokedAt != nil:
		return deny(ds.ReasonCodePolicyDeniedAuthorizationRevoked)
	case now == nil && (a.ExpiresAt != nil || a.StartsAt != nil):
		// Nobody can say that a bound holds without a clock.
		return deny(ds.ReasonCodePolicyDeniedOutsideTimeWindow)
	case a.ExpiresAt != nil && !now.Before(*a.ExpiresAt):
		return deny(ds.ReasonCodePolicyDeniedAuthorizationExpired)
	case a.StartsAt != nil && now.Before(*a.StartsAt):
		return deny(ds.ReasonCodePolicyDeniedAuthorizationNotStarted)
	case q.mode() == modeDeny:
		return deny(ds.ReasonCodePolicyDeniedExplicitDeny)
	}
	return verdict{}
}

func constraints(q question) verdict {
	a := q.authorization
	if len(a.AllowedTools) > 0 && !q.toolIn(a.AllowedTools) {
		return deny(ds.ReasonCodePolicyDeniedToolNotAllowed)
	}
	for _, c := range []struct {
		allowed []string
		value   *string
		match   func(entry, value string) bool
		code    ds.ReasonCode
	}{
		{a.AllowedDomains, q.action.Domain, hostMatches, ds.ReasonCodePolicyDeniedDomainNotAllowed},
		{a.AllowedProviders, q.action.Provider, sameFold, ds.ReasonCodePolicyDeniedProviderNotAllowed},
		{a.AllowedModels, q.action.Model, sameFold, ds.ReasonCodePolicyDeniedModelNotAllowed},
	} {
		// What the action has not got cannot be outside: a tool call has no model.
		value := strings.ToLower(text(c.value))
		if len(c.allowed) == 0 || value == "" {
			continue
		}
		inside := false
		for _, entry := range c.allowed {
			inside = inside || c.match(strings.ToLower(strings.TrimSpace(entry)), value)
		}
		if !inside {
			return deny(c.code)
		}
	}
	// Whom nobody can name is not among those who may be paid.
	if len(a.AllowedPayees) > 0 && q.authorized && !slices.ContainsFunc(a.AllowedPayees, func(entry string) bool {
		return text(q.action.Payee) != "" && strings.EqualFold(strings.TrimSpace(entry), text(q.action.Payee))
	}) {
		return deny(ds.ReasonCodePolicyDeniedPayeeNotAllowed)
	}
	return verdict{}
}

// amounts compares what the call may cost with every limit, itself included.
// Up to 2^53 each, the sums cannot overflow.
func amounts(q question) verdict {
	if !q.authorized {
		return verdict{}
	}
	amount, b := val(q.action.AmountSats), q.budget
	delegated := q.mode() == modeDelegated || q.mode() == modeThreshold
	switch {
	case amount < 0:
		return deny(ds.ReasonCodePolicyDeniedExplicitDeny)
	case val(q.action.AmountUnknown) && (amount == 0 || !strings.EqualFold(text(q.authorization.UnknownPrice), "ask")):
		// A price that nobody knows can be approved up to a bound, and never be skipped.
		return deny(ds.ReasonCodePolicyDeniedPriceUnknown)
	case b.MaxPerCallSats != nil && amount > *b.MaxPerCallSats:
		return deny(ds.ReasonCodePolicyDeniedPerCallLimitExceeded)
	case b.MaxPerDaySats != nil && val(b.DaySpentSats)+amount > *b.MaxPerDaySats:
		return deny(ds.ReasonCodePolicyDeniedPerDayLimitExceeded)
	case slices.ContainsFunc(b.Periods, func(p ds.PolicyEvaluationV1Period) bool { return p.UsedSats+amount > p.MaxSats }):
		return deny(ds.ReasonCodePolicyDeniedPerPeriodLimitExceeded)
	case b.RemainingSats != nil && (*b.RemainingSats <= 0 || amount > *b.RemainingSats):
		return deny(ds.ReasonCodePolicyDeniedBudgetExhausted)
	case b.RemainingSats == nil && delegated && amount > 0:
		// A delegated budget that nobody knows is none.
		return deny(ds.ReasonCodePolicyDeniedBudgetExhausted)
	}
	return verdict{}
}

// asked settles whether a person must be asked, and what one has answered.
func asked(q question) verdict {
	if a := q.in.Approval; a != nil {
		switch strings.ToLower(strings.TrimSpace(a.State)) {
		case "rejected":
			return deny(ds.ReasonCodePolicyDeniedApprovalRejected)
		case "expired":
			return deny(ds.ReasonCodePolicyDeniedApprovalExpired)
		}
	}
	if !q.needsApproval() {
		return verdict{}
	}
	if q.approved() {
		return verdict{decision: Allowed, code: ds.ReasonCodePolicyAllowedApprovedInteractively}
	}
	return verdict{decision: NeedsApproval, code: ds.ReasonCodePolicyDeniedApprovalRequired}
}

func (q question) needsApproval() bool {
	if q.authorized {
		amount := val(q.action.AmountSats)
		if val(q.action.AmountUnknown) {
			return true
		}
		switch q.mode() {
		case modeInteractive:
			return true
		case modeThreshold:
			// Without a threshold every sat is above it.
			if amount > 0 && amount > val(q.budget.ThresholdSats) {
				return true
			}
		}
	}
	if strings.EqualFold(text(q.policy.RequestedDecision), NeedsApproval) {
		return true
	}
	return q.toolIn(q.policy.RequireApproval)
}

// approved holds for an approval of these very arguments under these very rules.
func (q question) approved() bool {
	a := q.in.Approval
	return a != nil && strings.EqualFold(strings.TrimSpace(a.State), "approved") &&
		a.ArgsHash != nil && q.action.ArgsHash != nil && *a.ArgsHash == *q.action.ArgsHash &&
		a.PolicyHash != nil && *a.PolicyHash == q.policyHash
}

// hostMatches takes *.suffix for every host below the suffix, not for itself.
func hostMatches(entry, host string) bool {
	host, entry = strings.TrimSuffix(host, "."), strings.TrimSuffix(entry, ".")
	if suffix, below := strings.CutPrefix(entry, "*."); below {
		return suffix != "" && len(host) > len(suffix)+1 && strings.HasSuffix(host, "."+suffix)
	}
	return entry == host
}

func sameFold(entry, value string) bool { return entry == value }

func text(p *string) string { return strings.TrimSpace(val(p)) }

func val[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

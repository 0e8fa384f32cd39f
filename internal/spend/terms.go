package spend

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// The modes of an authorization.
const (
	Interactive     = "interactive"
	DelegatedBudget = "delegated_budget"
	WithThreshold   = "delegated_budget_with_threshold"
	Deny            = "deny"
	System          = "system"
)

// The scopes of an authorization. An organisation's is only above others.
const (
	ScopeOrganisation = "organisation"
	ScopeOwner        = "owner"
	ScopeAutopilot    = "autopilot"
	ScopeThread       = "thread"
	ScopeRun          = "run"
	ScopeSystem       = "system"
)

// What a run does when a budget has no room.
const (
	Wait     = "wait"
	Finish   = "finish"
	Continue = "continue"
)

// What is done when a price is not known.
const (
	UnknownDeny = "deny"
	UnknownAsk  = "ask"
)

// MaxDepth is how many levels a tree of authorizations has at the most.
const MaxDepth = 5

// DefaultLifetime is until when an authorization counts that does not say so.
const DefaultLifetime = 24 * time.Hour

// Constraints say what an authorization may be used for. An empty list allows all.
type Constraints struct {
	AllowedTools     []string `json:"allowed_tools,omitempty"`
	AllowedDomains   []string `json:"allowed_domains,omitempty"`
	AllowedProviders []string `json:"allowed_providers,omitempty"`
	AllowedModels    []string `json:"allowed_models,omitempty"`
	AllowedPayees    []string `json:"allowed_payees,omitempty"`
	// MaxFeeSats is what a payment's fee may be at the most.
	MaxFeeSats *int64 `json:"max_fee_sats,omitempty"`
	// MaxOverageBps is how much more than was held may be paid without an alarm,
	// in ten-thousandths. More is booked all the same.
	MaxOverageBps int32 `json:"max_overage_bps,omitempty"`
}

func (c Constraints) check() error {
	for name, list := range map[string][]string{
		"allowed_tools": c.AllowedTools, "allowed_domains": c.AllowedDomains, "allowed_providers": c.AllowedProviders,
		"allowed_models": c.AllowedModels, "allowed_payees": c.AllowedPayees,
	} {
		if len(list) > 512 {
			return &TermsError{"constraints." + name, "has more than 512 entries"}
		}
		for _, entry := range list {
			if entry == "" || len(entry) > 253 {
				return &TermsError{"constraints." + name, "has an entry that is empty or longer than 253 bytes"}
			}
		}
	}
	if c.MaxOverageBps < 0 || c.MaxOverageBps > 10_000 {
		return &TermsError{"constraints.max_overage_bps", "is not between 0 and 10000"}
	}
	return amount("constraints.max_fee_sats", c.MaxFeeSats)
}

// constraintsOf reads what an authorization may be used for.
func constraintsOf(a db.SpendAuthorization) (c Constraints, err error) {
	if err := json.Unmarshal(a.Constraints, &c); err != nil {
		return c, fmt.Errorf("constraints of %s: %w", a.AuthorizationID, err)
	}
	return c, nil
}

// Terms are what can be amended of an authorization. A nil cap is none.
type Terms struct {
	MaxTotalSats   *int64 `json:"max_total_sats,omitempty"`
	MaxPerCallSats *int64 `json:"max_per_call_sats,omitempty"`
	MaxPerDaySats  *int64 `json:"max_per_day_sats,omitempty"`
	ThresholdSats  *int64 `json:"threshold_sats,omitempty"`
	// MaxPer caps periods: hour, week, month.
	MaxPer       map[string]int64 `json:"max_per,omitempty"`
	Constraints  Constraints      `json:"constraints"`
	OnExhaustion string           `json:"on_exhaustion,omitempty"` // Wait, Finish or Continue; empty for Wait
	UnknownPrice string           `json:"unknown_price,omitempty"` // UnknownDeny or UnknownAsk; empty for UnknownDeny
	Metadata     json.RawMessage  `json:"metadata,omitempty"`      // an object, for its issuer
	NotBefore    *time.Time       `json:"not_before,omitempty"`
	ExpiresAt    *time.Time       `json:"expires_at,omitempty"`
}

// Period names of MaxPer.
var periods = []string{"hour", "week", "month"}

// allPeriods are the caps of periods by name, the day's included.
func (t Terms) allPeriods() map[string]int64 {
	all := map[string]int64{}
	for p, n := range t.MaxPer {
		all[p] = n
	}
	if t.MaxPerDaySats != nil {
		all["day"] = *t.MaxPerDaySats
	}
	return all
}

// filled are the terms with what they leave out.
func (t Terms) filled(mode string, now time.Time) Terms {
	if t.OnExhaustion == "" {
		t.OnExhaustion = Wait
	}
	if t.UnknownPrice == "" {
		t.UnknownPrice = UnknownDeny
	}
	if len(t.Metadata) == 0 {
		t.Metadata = json.RawMessage(`{}`)
	}
	if t.ExpiresAt == nil && mode != System {
		at := now.Add(DefaultLifetime)
		t.ExpiresAt = &at
	}
	return t
}

// check says what is wrong with terms of a mode, as a *TermsError.
func (t Terms) check(mode string) error {
	for _, a := range []struct {
		name string
		sats *int64
	}{
		{"max_total_sats", t.MaxTotalSats}, {"max_per_call_sats", t.MaxPerCallSats},
		{"max_per_day_sats", t.MaxPerDaySats}, {"threshold_sats", t.ThresholdSats},
	} {
		if err := amount(a.name, a.sats); err != nil {
			return err
		}
	}
	for p, n := range t.MaxPer {
		if !slices.Contains(periods, p) {
			return &TermsError{"max_per." + p, "is not hour, week or month"}
		}
		if err := amount("max_per."+p, &n); err != nil {
			return err
		}
	}
	var object map[string]json.RawMessage
	switch {
	case (mode == WithThreshold) != (t.ThresholdSats != nil):
		return &TermsError{"threshold_sats", "is for the mode " + WithThreshold + ", which needs it"}
	case mode != System && t.MaxTotalSats == nil:
		return &TermsError{"max_total_sats", "is missing: only the mode system can do without"}
	case t.MaxTotalSats == nil && len(t.allPeriods()) == 0:
		return &TermsError{"max_total_sats", "is missing, and so is a cap of a period"}
	case mode != System && t.ExpiresAt == nil:
		return &TermsError{"expires_at", "is missing: only the mode system can do without"}
	case t.NotBefore != nil && t.ExpiresAt != nil && !t.NotBefore.Before(*t.ExpiresAt):
		return &TermsError{"not_before", "is not before expires_at"}
	case t.OnExhaustion != Wait && t.OnExhaustion != Finish && t.OnExhaustion != Continue:
		return &TermsError{"on_exhaustion", "is not wait, finish or continue"}
	case t.UnknownPrice != UnknownDeny && t.UnknownPrice != UnknownAsk:
		return &TermsError{"unknown_price", "is not deny or ask"}
	case json.Unmarshal(t.Metadata, &object) != nil || object == nil:
		return &TermsError{"metadata", "is not an object"}
	case len(t.Metadata) > 16<<10:
		return &TermsError{"metadata", "is longer than 16 kB"}
	}
	return t.Constraints.check()
}

func amount(field string, n *int64) error {
	if n != nil && (*n < 0 || *n > MaxSats) {
		return &TermsError{field, fmt.Sprintf("is not between 0 and %d", int64(MaxSats))}
	}
	return nil
}

// TermsError says which term is wrong, and how.
type TermsError struct{ Field, Problem string }

func (e *TermsError) Error() string { return e.Field + " " + e.Problem }

// BelowUsedError says that a cap would be lower than what is spent and held under it.
type BelowUsedError struct {
	Field     string
	LeastSats int64
}

func (e *BelowUsedError) Error() string {
	return fmt.Sprintf("%s cannot be lower than the %d sats that are spent and held", e.Field, e.LeastSats)
}

var (
	// ErrConflict says that there is an authorization of that id with other terms.
	ErrConflict = errors.New("there is another authorization of that id")
	// ErrRevision says that the authorization was changed since it was read.
	ErrRevision = errors.New("the authorization has another revision")
	// ErrRevoked says that a revoked authorization stays as it is.
	ErrRevoked = errors.New("the authorization is revoked")
	// ErrParent says that there is no such authorization to be above another, or
	// that it cannot be.
	ErrParent = errors.New("the parent does not take this authorization")
)

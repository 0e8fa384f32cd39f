package spend

import (
	"encoding/json"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

// Shortfall is what stands in the way of a call that was denied for want of room.
type Shortfall struct {
	// Level is the authorization that has no room, OnExhaustion what the run does.
	Level        db.SpendAuthorization
	OnExhaustion string
	Event        event.PolicyBudgetExhaustedV1
}

// Exhausted says which cap a denied call does not fit in, and by how much. ok is
// false when the denial is not for want of room.
func (c Chain) Exhausted(in Intent, e policy.Evaluation) (s Shortfall, ok bool, err error) {
	var doc ds.PolicyEvaluationV1
	if err := json.Unmarshal(e.Document, &doc); err != nil {
		return s, false, fmt.Errorf("read the evaluation: %w", err)
	}
	if e.Decision != policy.Denied || doc.Input.Policy == nil || doc.Input.Budget == nil {
		return s, false, nil
	}
	lack, which, ok := lacking(ds.ReasonCode(e.ReasonCode), in.Quote.AmountSats, *doc.Input.Budget)
	if !ok {
		return s, false, nil
	}
	for _, l := range c.Levels {
		if l.Authorization.AuthorizationID != text(doc.Input.Policy.AuthorizationID) {
			continue
		}
		a, b := l.Authorization, doc.Input.Budget
		s = Shortfall{Level: a, OnExhaustion: c.Leaf().OnExhaustion, Event: event.PolicyBudgetExhaustedV1{
			AuthorizationID: a.AuthorizationID, Revision: a.Revision, RequestedSats: in.Quote.AmountSats, ShortfallSats: lack,
			Cap: event.PolicyBudgetExhaustedV1Cap(which), Chain: c.IDs(),
			Budget: event.PolicyBudgetExhaustedV1Budget{
				MaxTotalSats: a.MaxTotalSats, MaxPerCallSats: b.MaxPerCallSats, MaxPerDaySats: b.MaxPerDaySats,
				DaySpentSats: b.DaySpentSats, ThresholdSats: b.ThresholdSats,
				SpentSats: a.SpentSats, ReservedSats: a.ReservedSats, RemainingSats: b.RemainingSats,
			},
			OnExhaustion: event.PolicyBudgetExhaustedV1OnExhaustion(c.Leaf().OnExhaustion),
			ReasonCode:   e.ReasonCode, EvaluationHash: e.Hash,
		}}
		if in.Kind == ForModel {
			s.Event.CallID = &in.CallID
		} else {
			s.Event.ToolCallID = &in.CallID
		}
		return s, true, nil
	}
	return s, false, nil
}

func lacking(code ds.ReasonCode, amount int64, b ds.PolicyEvaluationV1Budget) (lack int64, which string, ok bool) {
	switch code {
	case ds.ReasonCodePolicyDeniedBudgetExhausted:
		if b.RemainingSats == nil {
			return amount, "total", true
		}
		return max(1, amount-*b.RemainingSats), "total", true
	case ds.ReasonCodePolicyDeniedPerCallLimitExceeded:
		return amount - *b.MaxPerCallSats, "per_call", true
	case ds.ReasonCodePolicyDeniedPerDayLimitExceeded:
		return *b.DaySpentSats + amount - *b.MaxPerDaySats, "per_day", true
	case ds.ReasonCodePolicyDeniedPerPeriodLimitExceeded:
		for _, p := range b.Periods {
			if p.UsedSats+amount > p.MaxSats {
				return p.UsedSats + amount - p.MaxSats, "per_" + p.Period, true
			}
		}
	}
	return 0, "", false
}

// Package policy decides whether something may be done, from its inputs alone.
package policy

import (
	"encoding/json"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// The decisions.
const (
	Allowed       = "allowed"
	Denied        = "denied"
	NeedsApproval = "needs_approval"
)

// Evaluation is a decision with everything that it was made from.
type Evaluation struct {
	Decision   string
	ReasonCode string
	// Document is the canonical policy_evaluation.v1, Hash its digest.
	Document json.RawMessage
	Hash     string
}

// Decide evaluates the rules in their fixed order.
func Decide(in ds.PolicyEvaluationV1Input) (Evaluation, error) {
	panic("not yet written")
}

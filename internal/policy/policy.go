// Package policy decides whether something may be done, from its inputs alone.
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// The decisions.
const (
	Allowed       = "allowed"
	Denied        = "denied"
	NeedsApproval = "needs_approval"
)

const (
	// Version names the rules of this package. Any change of what Decide answers
	// changes it.
	Version = "pe/1.1.0"
	// before is the version before it. It knew no payees, no prices that nobody
	// knows, and no periods but the day; of what it knew it answered the same.
	before = "pe/1.0.0"
	// ReasonCodesVersion names the taxonomy that reason codes are from.
	ReasonCodesVersion = ds.ReasonCodesVersion
)

// Evaluation is a decision with everything that it was made from.
type Evaluation struct {
	Decision   string
	ReasonCode string
	// Layer is the label of the tool list that refused, for people; empty when
	// none did. It is not part of the document.
	Layer string
	// Document is the canonical policy_evaluation.v1, Hash its digest.
	Document json.RawMessage
	Hash     string
	// PolicyHash is PolicyHash of the input: what an approval binds.
	PolicyHash string
}

// Decide evaluates the rules in their fixed order; the first that applies
// decides. It reads no clock and no state: the same input gives the same
// document and hash. An error means that the input cannot be written down
// (a number beyond ±(2^53−1), text that is not UTF-8); then nothing is allowed.
func Decide(in ds.PolicyEvaluationV1Input) (Evaluation, error) { return decideAs(Version, in) }

func decideAs(version string, in ds.PolicyEvaluationV1Input) (Evaluation, error) {
	in = utc(in)
	hash, err := PolicyHash(in)
	if err != nil {
		return Evaluation{}, err
	}
	v := decide(in, hash)
	doc, err := canon.Marshal(ds.PolicyEvaluationV1{
		Format:             ds.PolicyEvaluationV1FormatOpenagentsDsPolicyEvaluation,
		FormatVersion:      ds.PolicyEvaluationV1FormatVersionN1,
		EvaluatorVersion:   version,
		ReasonCodesVersion: ReasonCodesVersion,
		Input:              in,
		Decision:           ds.PolicyEvaluationV1Decision(v.decision),
		ReasonCode:         string(v.code),
	})
	if err != nil {
		return Evaluation{}, fmt.Errorf("write policy evaluation: %w", err)
	}
	return Evaluation{
		Decision: v.decision, ReasonCode: string(v.code), Layer: v.layer,
		Document: doc, Hash: canon.Hash(doc), PolicyHash: hash,
	}, nil
}

// PolicyHash is the digest of the rules alone: the policy, what the
// authorization is bound to, and its limits. The action, the amounts spent, the
// clock and an approval are left out, so that an approval binds rules that do
// not move while a person thinks.
func PolicyHash(in ds.PolicyEvaluationV1Input) (string, error) {
	in = utc(in)
	rules := struct {
		Policy        *ds.PolicyEvaluationV1Policy        `json:"policy,omitempty"`
		Authorization *ds.PolicyEvaluationV1Authorization `json:"authorization,omitempty"`
		Limits        *ds.PolicyEvaluationV1Budget        `json:"limits,omitempty"`
	}{Policy: in.Policy}
	if a := in.Authorization; a != nil {
		bound := *a
		bound.RevokedAt = nil
		rules.Authorization = &bound
	}
	if b := in.Budget; b != nil {
		rules.Limits = &ds.PolicyEvaluationV1Budget{
			MaxPerCallSats: b.MaxPerCallSats, MaxPerDaySats: b.MaxPerDaySats, ThresholdSats: b.ThresholdSats,
		}
		for _, p := range b.Periods {
			p.UsedSats = 0
			rules.Limits.Periods = append(rules.Limits.Periods, p)
		}
	}
	hash, err := canon.HashJSON(rules)
	if err != nil {
		return "", fmt.Errorf("hash policy: %w", err)
	}
	return hash, nil
}

// ErrReplay says that a document does not follow from its own input.
var ErrReplay = errors.New("the evaluation does not follow from its input")

// Replay decides again from a stored document's input. A document that Decide
// would not write is an error: ErrReplay when it can be read. Spacing and the
// order of members do not matter.
func Replay(document json.RawMessage) (Evaluation, error) {
	stored, err := canon.JSON(document)
	if err != nil {
		return Evaluation{}, fmt.Errorf("replay policy evaluation: %w", err)
	}
	var doc ds.PolicyEvaluationV1
	dec := json.NewDecoder(bytes.NewReader(stored))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return Evaluation{}, fmt.Errorf("replay policy evaluation: %w", err)
	}
	if doc.EvaluatorVersion != Version && (doc.EvaluatorVersion != before || newer(doc.Input)) {
		return Evaluation{}, fmt.Errorf("replay policy evaluation: %w: it was made by %.32q, this is %s", ErrReplay, doc.EvaluatorVersion, Version)
	}
	again, err := decideAs(doc.EvaluatorVersion, doc.Input)
	if err != nil {
		return Evaluation{}, fmt.Errorf("replay policy evaluation: %w", err)
	}
	if !bytes.Equal(stored, again.Document) {
		return again, fmt.Errorf("replay policy evaluation: %w: stored %s, made again %s", ErrReplay, canon.Hash(stored), again.Hash)
	}
	return again, nil
}

// newer says whether an input has what the version before did not know.
func newer(in ds.PolicyEvaluationV1Input) bool {
	a, b := val(in.Authorization), val(in.Budget)
	return in.Action.Payee != nil || in.Action.AmountUnknown != nil ||
		a.AllowedPayees != nil || a.UnknownPrice != nil || b.Periods != nil
}

// utc writes every moment in one zone, so that the zone of a process does not
// reach the hash. It does not change its argument.
func utc(in ds.PolicyEvaluationV1Input) ds.PolicyEvaluationV1Input {
	in.EvaluatedAt = utcTime(in.EvaluatedAt)
	if in.Authorization != nil {
		a := *in.Authorization
		a.IssuedAt, a.StartsAt = utcTime(a.IssuedAt), utcTime(a.StartsAt)
		a.ExpiresAt, a.RevokedAt = utcTime(a.ExpiresAt), utcTime(a.RevokedAt)
		in.Authorization = &a
	}
	return in
}

func utcTime(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

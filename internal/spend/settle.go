package spend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// What Reconcile can find.
const (
	FoundPaid    = "commit"
	FoundNotPaid = "release"
)

// Start notes that the provider may be asked from now on, under this epoch. It is
// committed before the provider is.
func Start(r db.SpendReservation, epoch int64) runlog.Change {
	b := bookingOf(r, "runtime")
	b.move = &move{from: Reserved, to: Reserved, committedSats: -1, started: true, epoch: epoch}
	return runlog.Change{Joints: []runlog.Joint{b}}
}

// Commit is the change that books what was paid: less than was held releases the
// rest; more is booked as well, as overage, and told as amount_mismatch when it is
// more than the authorization lets pass. A reservation that is committed at this
// amount is a replay and gives an empty change; one that was otherwise settled is
// ErrMoved, here or when the unit is committed (Cause).
func Commit(r db.SpendReservation, s Settled, epoch int64) (runlog.Change, error) {
	return commit(r, s, epoch, "runtime", "")
}

func commit(r db.SpendReservation, s Settled, epoch int64, actor, evidence string) (runlog.Change, error) {
	switch {
	case s.AmountSats < 0 || s.AmountSats > MaxSats:
		return runlog.Change{}, fmt.Errorf("commit %s: %d sats cannot have been paid", r.ToolCallID, s.AmountSats)
	case r.State == Committed && r.CommittedSats != nil && *r.CommittedSats == s.AmountSats:
		return runlog.Change{}, nil
	case r.State != Reserved && r.State != ReconcileRequired:
		return runlog.Change{}, fmt.Errorf("commit %s: %w: it is %s", r.ToolCallID, ErrMoved, r.State)
	}
	proof, proofHash, err := document(s.Proof)
	if err != nil {
		return runlog.Change{}, fmt.Errorf("commit %s: the proof: %w", r.ToolCallID, err)
	}
	captured := min(s.AmountSats, r.AmountSats)
	over := s.AmountSats - captured
	b := bookingOf(r, actor)
	b.evidence = evidence
	b.spentSats, b.reservedSats, b.overageSats = s.AmountSats, -r.AmountSats, over
	b.add(capture, captured)
	b.add(release, r.AmountSats-captured)
	b.add(overage, over)
	b.move = &move{from: r.State, to: Committed, committedSats: s.AmountSats, correlationID: s.CorrelationID, proof: proof,
		maybeBilled: s.MaybeBilled, failureReason: plain(s.Reason), epoch: epoch}
	if r.State == ReconcileRequired {
		b.move.reconciledBy = actor
	}
	told := settled(r, Committed, s.Reason, b.move.reconciledBy)
	told.CommittedSats, told.OverageSats = &s.AmountSats, sats(over)
	told.CorrelationID, told.ProofHash = optional(s.CorrelationID), optional(proofHash)
	if s.MaybeBilled {
		told.MaybeBilled = &s.MaybeBilled
	}
	if over > part(r.AmountSats, r.MaxOverageBps) {
		told.ReasonCode = code(ds.ReasonCodeSettlementAmountMismatch)
	}
	return change(r, told, b), nil
}

// part is so many ten-thousandths of an amount, rounded down.
func part(n int64, bps int32) int64 {
	return n/10_000*int64(bps) + n%10_000*int64(bps)/10_000
}

// Release is the change that gives back what is held, because nothing was paid,
// and why, for programs. Of a reservation that is released it is empty; of one
// that was otherwise settled the unit is refused with ErrMoved (Cause).
func Release(r db.SpendReservation, reason string, epoch int64) runlog.Change {
	if r.State == Released {
		return runlog.Change{}
	}
	b := releasing(r, "runtime")
	b.move.failureReason, b.move.epoch = plain(reason), epoch
	return change(r, settled(r, Released, reason, b.move.reconciledBy), b)
}

// releasing gives back what an open reservation holds.
func releasing(r db.SpendReservation, actor string) *booking {
	b := bookingOf(r, actor)
	b.reservedSats = -r.AmountSats
	b.add(release, r.AmountSats)
	b.move = &move{from: open(r), to: Released, committedSats: -1}
	if b.move.from == ReconcileRequired {
		b.move.reconciledBy = actor
	}
	return b
}

// Mark is the change that says that nobody knows whether it was paid: what is held
// stays held until Reconcile. Of a reservation that is marked it is empty; of one
// that was settled the unit is refused with ErrMoved (Cause).
func Mark(r db.SpendReservation, reason string, epoch int64) runlog.Change {
	if r.State == ReconcileRequired {
		return runlog.Change{}
	}
	b := bookingOf(r, "runtime")
	b.move = &move{from: Reserved, to: ReconcileRequired, committedSats: -1, failureReason: plain(reason), epoch: epoch}
	told := settled(r, ReconcileRequired, reason, "")
	told.ReasonCode = code(ds.ReasonCodeSettlementUnknownOutcome)
	return change(r, told, b)
}

// Finding is what somebody found out about a payment.
type Finding struct {
	Outcome string // FoundPaid or FoundNotPaid
	// AmountSats is what was paid; 0 for what was held.
	AmountSats    int64
	CorrelationID string
	Proof         json.RawMessage
	// Evidence is an object that shows it; it is kept in the ledger.
	Evidence json.RawMessage
	Reason   string // a sentence for people
}

// Reconcile is the change that books what was found, whoever holds the run: an
// open reservation is committed or released; one that was committed as maybe
// billed and was not is reversed. What it already says is a replay and gives an
// empty change; what contradicts a settlement is ErrMoved.
func Reconcile(r db.SpendReservation, f Finding, actor string) (runlog.Change, error) {
	evidence, _, err := document(f.Evidence)
	var object map[string]json.RawMessage
	switch {
	case err != nil:
		return runlog.Change{}, &TermsError{"evidence", "is not JSON: " + err.Error()}
	case json.Unmarshal([]byte(evidence), &object) != nil || len(object) == 0:
		return runlog.Change{}, &TermsError{"evidence", "is not an object that says something"}
	case actor == "":
		return runlog.Change{}, errors.New("reconcile: somebody must have found it")
	}
	switch f.Outcome {
	case FoundPaid:
		n := f.AmountSats
		if n == 0 {
			n = r.AmountSats
			if r.State == Committed && r.CommittedSats != nil {
				n = *r.CommittedSats
			}
		}
		s := Settled{AmountSats: n, CorrelationID: f.CorrelationID, Proof: f.Proof, Reason: f.Reason}
		c, err := commit(r, s, 0, actor, evidence)
		return by(c, actor), err
	case FoundNotPaid:
		return notPaid(r, f, actor, evidence)
	}
	return runlog.Change{}, &TermsError{"outcome", "is not commit or release"}
}

func notPaid(r db.SpendReservation, f Finding, actor, evidence string) (runlog.Change, error) {
	var b *booking
	told := settled(r, Released, f.Reason, actor)
	switch {
	case r.State == Released:
		return runlog.Change{}, nil
	case r.State == Committed && r.MaybeBilled && r.CommittedSats != nil && r.CommittedAt != nil:
		b = bookingOf(r, actor)
		b.spentSats, b.reversed = -*r.CommittedSats, r.CommittedAt
		b.add(reversal, *r.CommittedSats)
		b.move = &move{from: Committed, to: Released, committedSats: -1}
		told.ReversedSats = sats(*r.CommittedSats)
	case r.State == Committed:
		return runlog.Change{}, fmt.Errorf("reconcile %s: %w: it is committed", r.ToolCallID, ErrMoved)
	default:
		b = releasing(r, actor)
	}
	b.evidence, b.move.failureReason = evidence, plain(f.Reason)
	return by(change(r, told, b), actor), nil
}

// by names who found out.
func by(c runlog.Change, actor string) runlog.Change {
	for _, j := range c.Joints {
		j.(*booking).move.reconciledBy = actor
	}
	for i, e := range c.Events {
		switch told := e.(type) {
		case event.ToolSettledV1:
			told.ReconciledBy = &actor
			c.Events[i] = told
		case event.PredictSettledV1:
			told.ReconciledBy = &actor
			c.Events[i] = told
		}
	}
	return c
}

// Settling is a unit of a change of this room that settles, fenced by an epoch;
// 0 for who holds no lease. Money is settled after the run has ended, too: then
// the log takes no event, and the ledger alone tells.
func Settling(ctx context.Context, r db.SpendReservation, epoch int64, c runlog.Change) runlog.Unit {
	return runlog.Unit{
		RunKey: r.RunKey, RunID: r.RunID, Epoch: epoch, Trace: telemetry.TraceFrom(ctx),
		Decide: func(h runlog.Head) (runlog.Change, error) {
			if runlog.Terminal(h.Status) {
				return runlog.Change{Joints: c.Joints}, nil
			}
			return c, nil
		},
	}
}

// Settle commits a change that settles, and says what a refusal means (Cause).
func Settle(ctx context.Context, log *runlog.Appender, r db.SpendReservation, epoch int64, c runlog.Change) error {
	_, err := log.Commit(ctx, Settling(ctx, r, epoch, c))
	return Cause(err)
}

func bookingOf(r db.SpendReservation, actor string) *booking {
	return &booking{authorizationID: r.AuthorizationID, path: r.Path, runKey: r.RunKey, callID: r.ToolCallID, actor: actor}
}

// open is the state that a reservation is released from: that in which it was
// read, when it is open.
func open(r db.SpendReservation) string {
	if r.State == ReconcileRequired {
		return ReconcileRequired
	}
	return Reserved
}

func settled(r db.SpendReservation, state, reason, reconciledBy string) event.ToolSettledV1 {
	return event.ToolSettledV1{
		ToolCallID: r.ToolCallID, AuthorizationID: r.AuthorizationID, State: event.ToolSettledV1State(state),
		AmountSats: r.AmountSats, Reason: optional(plain(reason)), ReconciledBy: optional(reconciledBy),
	}
}

func change(r db.SpendReservation, told event.ToolSettledV1, b *booking) runlog.Change {
	c := runlog.Change{Events: []event.Event{told}, Joints: []runlog.Joint{b}}
	if r.Kind == ForModel {
		c.Events[0] = event.PredictSettledV1{
			CallID: told.ToolCallID, AuthorizationID: told.AuthorizationID, State: event.PredictSettledV1State(told.State),
			AmountSats: told.AmountSats, CommittedSats: told.CommittedSats, OverageSats: told.OverageSats, ReversedSats: told.ReversedSats,
			MaybeBilled: told.MaybeBilled, CorrelationID: told.CorrelationID, ProofHash: told.ProofHash,
			ReasonCode: told.ReasonCode, Reason: told.Reason, ReconciledBy: told.ReconciledBy,
		}
	}
	return c
}

// document is a JSON value in its canonical form, with its digest; nothing of none.
func document(raw json.RawMessage) (canonical, hash string, err error) {
	if len(raw) == 0 {
		return "", "", nil
	}
	b, err := canon.JSON(raw)
	if err != nil {
		return "", "", err
	}
	return string(b), canon.Hash(b), nil
}

func code(c ds.ReasonCode) *string {
	s := string(c)
	return &s
}

// plain is a reason as it is stored and told.
func plain(reason string) string { return clip(redact.Text(runlog.Storable(reason)), 200) }

// clip cuts a text at so many bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}

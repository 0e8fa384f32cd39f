package spend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// movement is a kind of ledger entry: from where to where amounts go.
type movement struct{ kind, debit, credit string }

var (
	hold     = movement{"hold", "available", "reserved"}
	capture  = movement{"capture", "reserved", "spent"}
	release  = movement{"release", "reserved", "available"}
	overage  = movement{"overage", "available", "spent"}
	reversal = movement{"reversal", "spent", "available"}
)

// booking is what one call's money does in a commit. It is written together with
// the bookings of the commit's other units: a statement per table, the rows that
// many runs share last.
type booking struct {
	authorizationID string
	path            []string
	runKey          uuid.UUID
	callID          string
	actor, evidence string
	entries         []entry
	hold            *holding // of a new reservation
	move            *move    // of one that is there
	// What the counters of every level of the path change by.
	spentSats, reservedSats, overageSats int64
	reversed                             *time.Time // when what is taken back was committed
}

type entry struct {
	movement
	sats int64
}

type holding struct {
	in             Intent
	evaluationHash string
	epoch          int64
	maxOverageBps  int32
	revisions      []int64 // of the path's levels, as whoever decided knew them
}

type move struct {
	from, to                            string
	committedSats                       int64 // negative to leave it
	correlationID, proof, failureReason string
	maybeBilled, started                bool
	epoch                               int64
	reconciledBy                        string
}

// add notes a movement of the ledger; nothing moves by 0.
func (b *booking) add(m movement, n int64) {
	if n > 0 {
		b.entries = append(b.entries, entry{m, n})
	}
}

// Join queues the statements of all bookings of a commit.
func (b *booking) Join(q *db.Queries, all []runlog.Joint) error {
	bookings := make([]*booking, 0, len(all))
	for _, j := range all {
		other, ok := j.(*booking)
		if !ok {
			return fmt.Errorf("book: a commit joins %T and %T", b, j)
		}
		bookings = append(bookings, other)
	}
	for _, queue := range []func(*db.Queries, []*booking) error{queueHolds, queueMoves, queueEntries, queueCounters} {
		if err := queue(q, bookings); err != nil {
			return err
		}
	}
	return nil
}

func queueHolds(q *db.Queries, all []*booking) error {
	var p db.SpendReservationInsertManyParams
	for _, b := range all {
		h := b.hold
		if h == nil {
			continue
		}
		approvalID := ""
		if h.in.Approval != nil {
			approvalID = h.in.Approval.ApprovalID
		}
		p.RunKeys = append(p.RunKeys, b.runKey)
		p.ToolCallIds = append(p.ToolCallIds, b.callID)
		p.AuthorizationIds = append(p.AuthorizationIds, b.authorizationID)
		p.Paths = append(p.Paths, strings.Join(b.path, ","))
		p.RunIds = append(p.RunIds, h.in.Run.RunID)
		p.Kinds = append(p.Kinds, h.in.Kind)
		p.ToolNames = append(p.ToolNames, h.in.Tool)
		p.Providers = append(p.Providers, text(first(h.in.Provider, h.in.Quote.Provider)))
		p.Hosts = append(p.Hosts, h.in.Quote.Host)
		p.Payees = append(p.Payees, h.in.Quote.Payee)
		p.AmountsSats = append(p.AmountsSats, h.in.Quote.AmountSats)
		p.MaxOveragesBps = append(p.MaxOveragesBps, h.maxOverageBps)
		p.RetryClasses = append(p.RetryClasses, h.in.Boundary)
		p.RequestHashes = append(p.RequestHashes, h.in.Quote.RequestHash)
		p.LeaseEpochs = append(p.LeaseEpochs, h.epoch)
		p.ProviderIdempotencyKeys = append(p.ProviderIdempotencyKeys, h.in.IdempotencyKey)
		p.PaymentHashes = append(p.PaymentHashes, h.in.Quote.PaymentHash)
		p.Quotes = append(p.Quotes, string(h.in.Quote.Detail))
		p.EvaluationHashes = append(p.EvaluationHashes, h.evaluationHash)
		p.ApprovalIds = append(p.ApprovalIds, approvalID)
		p.Starteds = append(p.Starteds, h.in.Started)
	}
	if len(p.RunKeys) == 0 {
		return nil
	}
	return q.SpendReservationInsertMany(context.Background(), p)
}

func queueMoves(q *db.Queries, all []*booking) error {
	var p db.SpendReservationMoveManyParams
	for _, b := range all {
		m := b.move
		if m == nil {
			continue
		}
		p.RunKeys = append(p.RunKeys, b.runKey)
		p.ToolCallIds = append(p.ToolCallIds, b.callID)
		p.KnownStates = append(p.KnownStates, m.from)
		p.States = append(p.States, m.to)
		p.CommittedSats = append(p.CommittedSats, m.committedSats)
		p.ProviderCorrelationIds = append(p.ProviderCorrelationIds, m.correlationID)
		p.Proofs = append(p.Proofs, m.proof)
		p.MaybeBilleds = append(p.MaybeBilleds, m.maybeBilled)
		p.FailureReasons = append(p.FailureReasons, m.failureReason)
		p.LeaseEpochs = append(p.LeaseEpochs, m.epoch)
		p.Starteds = append(p.Starteds, m.started)
		p.ReconciledBys = append(p.ReconciledBys, m.reconciledBy)
	}
	if len(p.RunKeys) == 0 {
		return nil
	}
	return q.SpendReservationMoveMany(context.Background(), p)
}

func queueEntries(q *db.Queries, all []*booking) error {
	var p db.SpendLedgerEntryInsertManyParams
	for _, b := range all {
		for _, e := range b.entries {
			p.AuthorizationIds = append(p.AuthorizationIds, b.authorizationID)
			p.EntryIds = append(p.EntryIds, canon.NewKey())
			p.RunKeys = append(p.RunKeys, b.runKey)
			p.ToolCallIds = append(p.ToolCallIds, b.callID)
			p.Kinds = append(p.Kinds, e.kind)
			p.Debits = append(p.Debits, e.debit)
			p.Credits = append(p.Credits, e.credit)
			p.AmountsSats = append(p.AmountsSats, e.sats)
			p.Actors = append(p.Actors, b.actor)
			p.Evidences = append(p.Evidences, b.evidence)
		}
	}
	if len(p.EntryIds) == 0 {
		return nil
	}
	return q.SpendLedgerEntryInsertMany(context.Background(), p)
}

// level is what a commit does to one authorization.
type level struct {
	spentSats, reservedSats, overageSats int64
	largestSats                          int64
	revision                             int64 // 0 when nothing is held; -1 when it is known in two
}

// queueCounters moves the counters of every level of every booking, by their sums.
// The rows are locked in the order of their ids, and no more than a flush long.
func queueCounters(q *db.Queries, all []*booking) error {
	levels := map[string]*level{}
	for _, b := range all {
		if b.spentSats == 0 && b.reservedSats == 0 {
			continue
		}
		for i, id := range b.path {
			l := levels[id]
			if l == nil {
				l = &level{}
				levels[id] = l
			}
			l.spentSats += b.spentSats
			l.reservedSats += b.reservedSats
			l.overageSats += b.overageSats
			if b.hold != nil {
				l.knownAs(b.hold.revisions[i])
				l.largestSats = max(l.largestSats, b.reservedSats)
			}
		}
	}
	if len(levels) == 0 {
		return nil
	}
	var a db.SpendAuthorizationMoveManyParams
	var p db.SpendPeriodMoveManyParams
	a.AuthorizationIds = slices.Sorted(maps.Keys(levels))
	for _, id := range a.AuthorizationIds {
		l := levels[id]
		a.SpentSats = append(a.SpentSats, l.spentSats)
		a.ReservedSats = append(a.ReservedSats, l.reservedSats)
		a.OverageSats = append(a.OverageSats, l.overageSats)
		a.LargestSats = append(a.LargestSats, l.largestSats)
		a.Revisions = append(a.Revisions, l.revision)
		p.CapturedSats = append(p.CapturedSats, l.spentSats)
		p.Holding = append(p.Holding, l.revision != 0)
	}
	p.AuthorizationIds, p.HeldSats, p.OverageSats = a.AuthorizationIds, a.ReservedSats, a.OverageSats
	ctx := context.Background()
	if len(a.AuthorizationIds) > 1 {
		if err := q.SpendAuthorizationLockMany(ctx, a.AuthorizationIds); err != nil {
			return err
		}
	}
	if err := q.SpendAuthorizationMoveMany(ctx, a); err != nil {
		return err
	}
	return queuePeriods(q, all, p)
}

// queuePeriods moves the periods of the same levels. What is taken back leaves the
// period that it was captured in, and no other.
func queuePeriods(q *db.Queries, all []*booking, p db.SpendPeriodMoveManyParams) error {
	ctx := context.Background()
	for _, b := range all {
		if b.reversed == nil {
			continue
		}
		for i, id := range p.AuthorizationIds {
			if slices.Contains(b.path, id) {
				p.CapturedSats[i] -= b.spentSats
			}
		}
	}
	if err := q.SpendPeriodMoveMany(ctx, p); err != nil {
		return err
	}
	for _, b := range all {
		if b.reversed == nil {
			continue
		}
		if err := q.SpendPeriodReverse(ctx, db.SpendPeriodReverseParams{
			AuthorizationIds: b.path, AmountSats: -b.spentSats, CommittedAt: *b.reversed,
		}); err != nil {
			return err
		}
	}
	return nil
}

func (l *level) knownAs(revision int64) {
	switch l.revision {
	case 0:
		l.revision = revision
	case revision:
	default:
		l.revision = -1
	}
}

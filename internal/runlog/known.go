package runlog

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// known are heads as this lane left them. Whoever else appends to a run makes
// its entry wrong, which the commit notices: it moves on only what is as it
// believes, and asks again when that fails.
type known map[uuid.UUID]Head

const knownHeads = 8192 // a lane remembers; then it starts anew

// remember notes the heads of a batch that was committed.
func (k known) remember(b *batch) {
	if len(k)+len(b.heads) > knownHeads {
		clear(k)
	}
	for key, h := range b.heads {
		if Terminal(h.Status) {
			delete(k, key)
		} else {
			k[key] = *h
		}
	}
}

// forget drops the heads of a batch whose fate is not certain.
func (k known) forget(items []*item) {
	for _, it := range items {
		delete(k, it.unit.RunKey)
	}
}

// heads are the heads of the items' runs, or nil when one is not known.
func (k known) heads(items []*item) map[uuid.UUID]*Head {
	heads := make(map[uuid.UUID]*Head, len(items))
	for _, it := range items {
		h, ok := k[it.unit.RunKey]
		if !ok {
			return nil
		}
		heads[it.unit.RunKey] = &h
	}
	return heads
}

// believe decides by heads that are known and commits in one round trip, which
// moves the heads on only while they are as they are known. ok is false when that
// says nothing: a unit was not plainly accepted, or a head has moved. Then nothing
// is written, and the batch is decided again under locked heads.
func (l *lane) believe(ctx context.Context, conn *pgx.Conn, items []*item) (b *batch, ok bool, err error) {
	heads := l.known.heads(items)
	if heads == nil {
		return nil, false, nil
	}
	b = l.newBatch(heads)
	for _, it := range items {
		ack, err := b.add(it.unit)
		if err != nil || ack.LastSeq < ack.FirstSeq {
			return nil, false, nil
		}
		b.out[it] = outcome{ack: ack}
	}
	if len(b.grown) == 1 {
		key := b.grown[0]
		if was := l.known[key]; b.isOneEvent(was) {
			ok, err = b.storeOne(ctx, conn, was)
			return b, ok, err
		}
	}
	ok, err = b.storeKnown(ctx, conn, l.known)
	return b, ok, err
}

// storeKnown writes everything in one transaction, which needs no BEGIN: what is
// sent together commits together.
func (b *batch) storeKnown(ctx context.Context, conn *pgx.Conn, was known) (ok bool, err error) {
	slices.SortFunc(b.grown, func(x, y uuid.UUID) int { return bytes.Compare(x[:], y[:]) })
	var heads db.RunHeadAdvanceManyParams
	for _, key := range b.grown {
		h := b.heads[key]
		heads.RunKeys = append(heads.RunKeys, key)
		heads.KnownSeqs = append(heads.KnownSeqs, was[key].Seq)
		heads.LeaseEpochs = append(heads.LeaseEpochs, was[key].Epoch)
		heads.LatestSeqs = append(heads.LatestSeqs, h.Seq)
		heads.LatestHashes = append(heads.LatestHashes, h.Hash[:])
		heads.FrameCounts = append(heads.FrameCounts, h.FrameCount)
		heads.FramePositions = append(heads.FramePositions, h.FramePosition)
		heads.Statuses = append(heads.Statuses, h.Status)
		heads.CancelRequesteds = append(heads.CancelRequesteds, h.CancelRequested)
	}
	pb := &pgx.Batch{}
	q := db.New(queuer{batch: pb})
	if err := q.RunHeadAdvanceMany(ctx, heads); err != nil {
		return false, err
	}
	if err := b.queueRows(ctx, q); err != nil {
		return false, err
	}
	err = conn.SendBatch(ctx, pb).Close()
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == divisionByZero {
		return false, nil
	}
	return true, outcomeOf(err)
}

// divisionByZero is how RunHeadAdvanceMany fails.
const divisionByZero = "22012"

// isOneEvent says whether the batch is nothing but one event of one log.
func (b *batch) isOneEvent(was Head) bool {
	was.Seq, was.Hash = was.Seq+1, b.heads[b.grown[0]].Hash
	return len(b.rows.Seqs)+len(b.deltas.Seqs) == 1 && len(b.stmts) == 0 && len(b.joints) == 0 && *b.heads[b.grown[0]] == was
}

// storeOne writes a batch of one event by a statement that does nothing else: what
// many waiting units share, a lone one would pay alone.
func (b *batch) storeOne(ctx context.Context, conn *pgx.Conn, was Head) (ok bool, err error) {
	q, many := db.New(conn), b.rows
	if len(b.deltas.Seqs) == 1 {
		many = b.deltas
	}
	one := db.RunLogInsertOneParams{
		RunKey: many.RunKeys[0], KnownSeq: was.Seq, LeaseEpoch: was.Epoch,
		EventType: many.EventTypes[0], EventVersion: many.EventVersions[0], Payload: []byte(many.Payloads[0]),
		ContentHash: many.ContentHashes[0], EventHash: many.EventHashes[0],
		Traceparent: nonEmpty(many.Traceparents[0]), Tracestate: nonEmpty(many.Tracestates[0]), RequestID: nonEmpty(many.RequestIds[0]),
	}
	var written int64
	if len(b.deltas.Seqs) == 1 {
		written, err = q.RunLogDeltaInsertOne(ctx, db.RunLogDeltaInsertOneParams(one))
	} else {
		written, err = q.RunLogInsertOne(ctx, one)
	}
	return written == 1 || err != nil, outcomeOf(err)
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

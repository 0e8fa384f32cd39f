package runlog

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// known are heads as this lane left them. Whoever else appends to a run makes
// its entry wrong, which the commit notices: it asserts what it believes before
// it writes, and asks again when that fails.
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
// first asserts them. ok is false when that says nothing: a unit was not plainly
// accepted, or a head has moved. Then nothing is written, and the batch is
// decided again under locked heads.
func (l *lane) believe(ctx context.Context, conn *pgx.Conn, items []*item) (b *batch, ok bool, err error) {
	heads := l.known.heads(items)
	if heads == nil {
		return nil, false, nil
	}
	b = l.newBatch(heads)
	assert := db.RunHeadAssertManyParams{Wanted: int64(len(heads))}
	for key, h := range heads {
		assert.RunKeys = append(assert.RunKeys, key)
		assert.LatestSeqs = append(assert.LatestSeqs, h.Seq)
		assert.LeaseEpochs = append(assert.LeaseEpochs, h.Epoch)
	}
	for _, it := range items {
		ack, err := b.add(it.unit)
		if err != nil || ack.LastSeq < ack.FirstSeq {
			return nil, false, nil
		}
		b.out[it] = outcome{ack: ack}
	}
	err = b.store(ctx, conn, func(pb *pgx.Batch, q *db.Queries) error {
		pb.Queue("BEGIN")
		return q.RunHeadAssertMany(ctx, assert)
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == divisionByZero {
		return nil, false, rollback(conn, nil)
	}
	return b, true, err
}

// divisionByZero is how RunHeadAssertMany fails.
const divisionByZero = "22012"

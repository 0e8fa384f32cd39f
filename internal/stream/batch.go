package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// batch is the blocks of consecutive events. Readers share it and never change it.
type batch struct {
	after  int64  // the seq before the first event
	ends   []int  // where each event's block ends in data
	data   []byte // the blocks
	closed bool   // the last event is stream.closed
}

// last is the seq of the last event.
func (b batch) last() int64 { return b.after + int64(len(b.ends)) }

// from is the blocks after a cursor that is not before the batch.
func (b batch) from(cursor int64) []byte {
	if cursor == b.after {
		return b.data
	}
	return b.data[b.ends[cursor-b.after-1]:]
}

// errGap says that the log no longer holds the next event.
var errGap = errors.New("the log has a gap")

const (
	readTries = 4
	readPause = 50 * time.Millisecond // before the second try; it doubles
)

// read makes the blocks of at most limit events after a seq. The database may
// fail for a moment, as when it restarts, without all streams breaking off.
func read(ctx context.Context, pool *pgxpool.Pool, key uuid.UUID, after int64, limit int) (batch, error) {
	rows, err := runlog.After(ctx, pool, key, after, limit)
	for try, pause := 1, readPause; err != nil && try < readTries; try, pause = try+1, 2*pause {
		select {
		case <-ctx.Done():
			return batch{}, ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
		rows, err = runlog.After(ctx, pool, key, after, limit)
	}
	if err != nil {
		return batch{}, err
	}
	return encode(after, rows)
}

func encode(after int64, rows []db.RunLog) (batch, error) {
	const blockBytes = 128 // of a small delta
	b := batch{after: after, ends: make([]int, 0, len(rows)), data: make([]byte, 0, blockBytes*len(rows))}
	for _, r := range rows {
		if r.Seq != b.last()+1 {
			return batch{}, fmt.Errorf("%w: %d comes after %d", errGap, r.Seq, b.last())
		}
		var err error
		if b.data, err = appendPart(b.data, r); err != nil {
			return batch{}, err
		}
		b.ends = append(b.ends, len(b.data))
		b.closed = r.EventType == event.TypeStreamClosed
	}
	return b, nil
}

package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// batch is the blocks of consecutive events. Readers share it and never change it.
type batch struct {
	after  int64 // the seq before the first event
	count  int64 // of events
	closed bool  // the last event is stream.closed
	// views are the blocks in each dialect; nil where they are the same as in
	// the dialect before. AI5 is always there.
	views [dialects]*view
}

// view is the blocks in one dialect.
type view struct {
	ends []int  // where each event's block ends in data
	data []byte // the blocks
}

func (v *view) add(block []byte) {
	v.data = append(v.data, block...)
	v.ends = append(v.ends, len(v.data))
}

// first copies the first n blocks.
func (v *view) first(n int) *view {
	if n == 0 {
		return &view{}
	}
	return &view{ends: slices.Clone(v.ends[:n]), data: slices.Clone(v.data[:v.ends[n-1]])}
}

func (b *batch) in(d Dialect) *view {
	for b.views[d] == nil {
		d--
	}
	return b.views[d]
}

// last is the seq of the last event.
func (b *batch) last() int64 { return b.after + b.count }

// bytes is how much memory the blocks take.
func (b *batch) bytes() int {
	n := 0
	for _, v := range b.views {
		if v != nil {
			n += len(v.data)
		}
	}
	return n
}

// from is the blocks after a cursor that is not before the batch.
func (b *batch) from(cursor int64, d Dialect) []byte {
	v := b.in(d)
	if cursor == b.after {
		return v.data
	}
	return v.data[v.ends[cursor-b.after-1]:]
}

// errGap says that the log no longer holds the next event.
var errGap = errors.New("the log has a gap")

const (
	readTries = 4
	readPause = 50 * time.Millisecond // before the second try; it doubles
)

// pager reads at most a page of a run's events after a seq.
type pager func(ctx context.Context, key uuid.UUID, after int64) ([]db.RunLog, error)

// read makes the blocks of at most a page of events after a seq. The database may
// fail for a moment, as when it restarts, without all streams breaking off.
func read(ctx context.Context, page pager, key uuid.UUID, after int64) (batch, error) {
	rows, err := page(ctx, key, after)
	for try, pause := 1, readPause; err != nil && try < readTries; try, pause = try+1, 2*pause {
		select {
		case <-ctx.Done():
			return batch{}, ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
		}
		rows, err = page(ctx, key, after)
	}
	if err != nil {
		return batch{}, err
	}
	return encode(after, rows)
}

// encode makes the blocks. The dialects' differ in few events, and mostly in
// none, so they have one view until the first that does.
func encode(after int64, rows []db.RunLog) (batch, error) {
	const blockBytes = 128 // of a small delta
	common := &view{ends: make([]int, 0, len(rows)), data: make([]byte, 0, blockBytes*len(rows))}
	b := batch{after: after, views: [dialects]*view{AI5: common}}
	split := false
	for _, r := range rows {
		if r.Seq != b.last()+1 {
			return batch{}, fmt.Errorf("%w: %d comes after %d", errGap, r.Seq, b.last())
		}
		begin := len(common.data)
		var err error
		if common.data, err = appendPart(common.data, r, AI5); err != nil {
			return batch{}, err
		}
		common.ends = append(common.ends, len(common.data))
		if split || slices.Contains(variants, r.EventType) {
			if err := b.addVariants(r, common.data[begin:]); err != nil {
				return batch{}, err
			}
			split = b.views != [dialects]*view{AI5: common}
		}
		b.count++
		b.closed = r.EventType == event.TypeStreamClosed
	}
	return b, nil
}

// addVariants adds an event to the views beside the common one, which has it as
// block, and begins those in which it is the first to differ.
func (b *batch) addVariants(r db.RunLog, block []byte) error {
	for d := AI5 + 1; d < dialects; d++ {
		before := block
		if table[r.EventType][d] != nil {
			var err error
			if block, err = appendPart(nil, r, d); err != nil {
				return err
			}
		}
		if b.views[d] == nil && !bytes.Equal(block, before) {
			b.views[d] = b.in(d).first(int(b.count))
		}
		if b.views[d] != nil {
			b.views[d].add(block)
		}
	}
	return nil
}

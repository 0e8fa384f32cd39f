package stream

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// tails has one tail per run that is read at its end, however many read it.
type tails struct {
	logs  *gatherer
	watch *runlog.Watch
	// keepBytes bounds what a tail keeps for readers that are a little behind.
	keepBytes int

	mu   sync.Mutex
	all  map[uuid.UUID]*tail
	byID map[string]*tail // the same, by run id
}

// tail is the newest blocks of one run, kept up to date while somebody reads.
type tail struct {
	run     db.Run // as the first reader found it
	readers int    // guarded by tails.mu
	stop    context.CancelFunc

	mu      sync.Mutex
	batches []batch
	bytes   int
	start   int64         // the seq before the oldest batch
	end     int64         // the seq of the newest event
	err     error         // why nothing follows, unless the stream is closed
	changed chan struct{} // closed at the next change
}

// join gives a reader the run's tail. When there is none, one that starts after
// the cursor is begun if the reader is within a page of the log's end, and else
// it is nil. So readers that come back together share what they missed.
func (ts *tails) join(r *db.Run, cursor, head int64) *tail {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	t := ts.all[r.RunKey]
	if t == nil && head-cursor > pageEvents {
		return nil
	}
	if t == nil {
		ctx, stop := context.WithCancel(context.Background())
		t = &tail{run: *r, stop: stop, start: cursor, end: cursor, changed: make(chan struct{})}
		ts.all[r.RunKey], ts.byID[r.RunID] = t, t
		go ts.follow(ctx, t, head)
	}
	t.readers++
	return t
}

func (ts *tails) leave(t *tail) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t.readers--; t.readers == 0 {
		t.stop()
		ts.forget(t)
	}
}

// forget makes the next reader begin a new tail; ts.mu is held.
func (ts *tails) forget(t *tail) {
	if ts.all[t.run.RunKey] == t {
		delete(ts.all, t.run.RunKey)
		delete(ts.byID, t.run.RunID)
	}
}

// followed is a run that somebody reads at its end, and a seq that its log has
// reached, if the tail has all that follows the cursor and the run goes on.
func (ts *tails) followed(runID string, cursor int64) (r db.Run, head int64, ok bool) {
	ts.mu.Lock()
	t := ts.byID[runID]
	ts.mu.Unlock()
	if t == nil {
		return r, 0, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	closed := len(t.batches) > 0 && t.batches[len(t.batches)-1].closed
	return t.run, t.end, t.start <= cursor && cursor <= t.end && t.err == nil && !closed
}

// follow reads the log whenever it may have grown. It has reached head already.
func (ts *tails) follow(ctx context.Context, t *tail, head int64) {
	bell := ts.watch.Run(t.run.RunKey)
	defer bell.Close()
	for after := t.end; ; {
		b, err := read(ctx, ts.logs.after, t.run.RunKey, after)
		if err == nil && b.count == 0 && after < head {
			err = fmt.Errorf("%w: nothing follows %d", errGap, after)
		}
		if err != nil {
			ts.mu.Lock()
			ts.forget(t)
			ts.mu.Unlock()
			t.fail(err)
			return
		}
		if after = b.last(); b.count > 0 {
			t.add(b, ts.keepBytes)
		}
		if b.count == pageEvents {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-bell.C:
		}
	}
}

// add publishes a batch and drops the oldest ones; the newest always stays.
func (t *tail) add(b batch, keepBytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.batches = append(t.batches, b)
	t.bytes += b.bytes()
	drop := 0
	for t.bytes > keepBytes && drop < len(t.batches)-1 {
		t.bytes -= t.batches[drop].bytes()
		drop++
	}
	t.batches = t.batches[drop:] // readers may still use what is dropped
	t.start, t.end = t.batches[0].after, b.last()
	t.ring()
}

func (t *tail) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	t.ring()
}

func (t *tail) ring() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// after is the batches with events after a cursor. When there are none, changed
// is closed when there may be some. behind says that the cursor is older than
// what the tail keeps, so the reader must ask the log.
func (t *tail) after(cursor int64) (found []batch, changed <-chan struct{}, behind bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if cursor < t.start {
		return nil, nil, true, nil
	}
	for i := len(t.batches); i > 0 && t.batches[i-1].last() > cursor; i-- {
		found = t.batches[i-1:]
	}
	if len(found) == 0 {
		return nil, t.changed, false, t.err
	}
	return found, nil, false, nil
}

package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Held is a lease that this process holds, and its pen: what Commit writes is
// refused once anybody else has taken the run.
type Held struct {
	RunKey uuid.UUID
	RunID  string
	Epoch  int64
	// Losses counts the holders before this one that were lost, one after
	// another, without progress; 0 when the one before released the run.
	Losses int64
	// LostSince is when the first of those losses was, zero without any, and
	// LostFor how long ago that was when the lease was taken; both by the
	// database's clock.
	LostSince time.Time
	LostFor   time.Duration
	// ProgressSeq is the seq of the last commit that was progress, or 0.
	ProgressSeq int64
	// Head is the run's head when the lease was taken.
	Head runlog.Head

	keeper *Keeper
	sent   time.Time // before the last renewal was sent

	mu       sync.Mutex
	timer    *time.Timer
	cancel   context.CancelCauseFunc
	released bool
	done     bool
}

func (h *Held) window() time.Duration { return h.keeper.ttl * 2 / 3 }

func (h *Held) begin(cancel context.CancelCauseFunc) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cancel = cancel
	h.timer = time.AfterFunc(h.window()-time.Since(h.sent), func() { cancel(ErrLost) })
}

// trust starts the trust window anew, from the moment a renewal was sent.
func (h *Held) trust(sent time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done || h.timer == nil {
		return
	}
	h.sent = sent
	h.timer.Reset(h.window() - time.Since(sent))
}

// Trusted says whether the trust window is open.
func (h *Held) Trusted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.done && time.Since(h.sent) < h.window()
}

func (h *Held) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done || h.released
}

// finish ends the holding and says whether a commit has released the lease.
func (h *Held) finish() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
	h.timer.Stop()
	return h.released
}

// Commit writes a unit of the run under the lease's epoch. ErrLost means that
// nothing was written.
func (h *Held) Commit(ctx context.Context, decide func(runlog.Head) (runlog.Change, error)) (runlog.Ack, error) {
	for {
		if !h.Trusted() {
			return runlog.Ack{}, ErrLost
		}
		crash.At("commit.trusted")
		ack, err := h.keeper.log.Commit(ctx, runlog.Unit{
			RunKey: h.RunKey, RunID: h.RunID, Epoch: h.Epoch, Trace: telemetry.TraceFrom(ctx), Decide: decide,
		})
		switch {
		case errors.Is(err, runlog.ErrFenced):
			return ack, fmt.Errorf("%w: %w", ErrLost, err)
		case !errors.Is(err, runlog.ErrLocked):
			return ack, err
		}
		// Somebody else keeps the head locked, and nothing is written: it is
		// tried again as long as the lease is ours.
		select {
		case <-ctx.Done():
			return ack, err
		case <-time.After(lockedPause):
		}
	}
}

// lockedPause is between two tries to commit while the head is locked.
const lockedPause = 50 * time.Millisecond

// Release is a change's row that releases the lease in the same commit. Call
// Released when the commit is done.
func (h *Held) Release() runlog.Row {
	return func(q *db.Queries, _ int64) error {
		return q.RunLeaseRelease(context.Background(), db.RunLeaseReleaseParams{RunKey: h.RunKey, LeaseEpoch: h.Epoch, Released: true})
	}
}

// Released notes that a commit has released the lease.
func (h *Held) Released() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.released = true
}

// Progress is a change's row that notes how far the holder has come, so that a
// later loss counts from there.
func (h *Held) Progress() runlog.Row {
	return func(q *db.Queries, firstSeq int64) error {
		return q.RunLeaseProgress(context.Background(), db.RunLeaseProgressParams{
			RunKey: h.RunKey, LeaseEpoch: h.Epoch, ProgressSeq: firstSeq,
		})
	}
}

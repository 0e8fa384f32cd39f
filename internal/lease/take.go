package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

const (
	// lockWait is how long the taking of a lease waits for somebody who
	// writes to the run: one whose commit takes long must not hold up the
	// renewals, which go by the same connections, nor the other runs.
	lockWait         = 250 * time.Millisecond
	lockNotAvailable = "55P03"

	// takesAtOnce bounds how many leases one statement takes.
	takesAtOnce = 256
)

// acquire takes the run's lease: with those that others of this process want at
// the same moment when it is to be had, else by itself, which tells why.
func (k *Keeper) acquire(ctx context.Context, r db.Run) (*Held, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// A process that is told to stop now finishes this: a lease that was taken
	// and that nobody knows of would count as lost.
	ctx = context.WithoutCancel(ctx)
	h, err := k.together(r)
	if h == nil && err == nil {
		h, err = k.acquireAlone(ctx, r)
	}
	switch {
	case errors.Is(err, ErrHeld):
		k.taken.WithLabelValues("held").Inc()
		return nil, ErrHeld
	case err != nil:
		k.taken.WithLabelValues("error").Inc()
		return nil, err
	}
	crash.At("lease.acquired")
	k.taken.WithLabelValues("taken").Inc()
	return h, nil
}

// wish is a lease that somebody waits for.
type wish struct {
	run  db.Run
	told chan struct{} // closed when held and err are set
	held *Held         // nil when the lease was not to be had at once
	err  error
}

// together takes a lease in the next statement that takes leases. There is no
// timer: whatever is asked for while one statement is under way shares the next.
func (k *Keeper) together(r db.Run) (*Held, error) {
	w := &wish{run: r, told: make(chan struct{})}
	k.wishing.Lock()
	k.wishes = append(k.wishes, w)
	if !k.granting {
		k.granting = true
		go k.grant()
	}
	k.wishing.Unlock()
	<-w.told
	return w.held, w.err
}

// grant takes leases until nobody waits for one.
func (k *Keeper) grant() {
	for {
		k.wishing.Lock()
		some := k.wishes[:min(len(k.wishes), takesAtOnce)]
		k.wishes = k.wishes[len(some):]
		if len(some) == 0 {
			k.granting = false
			k.wishing.Unlock()
			return
		}
		k.wishing.Unlock()
		k.takeMany(some)
	}
}

func (k *Keeper) takeMany(some []*wish) {
	ctx, stop := context.WithTimeout(context.Background(), k.ttl/3+lockWait)
	defer stop()
	byKey := make(map[uuid.UUID]*wish, len(some))
	ask := db.RunLeaseAcquireManyParams{LeaseOwner: k.owner, Ttl: k.ttl}
	for _, w := range some {
		if byKey[w.run.RunKey] == nil { // a second wish for the same run is told that it is held
			byKey[w.run.RunKey] = w
			ask.RunKeys = append(ask.RunKeys, w.run.RunKey)
		}
	}
	sent := time.Now()
	rows, err := db.New(k.takes()).RunLeaseAcquireMany(ctx, ask)
	for _, row := range rows {
		w := byKey[row.RunKey]
		h := &Held{RunKey: w.run.RunKey, RunID: w.run.RunID, keeper: k, sent: sent, Epoch: row.LeaseEpoch,
			Losses: row.LostCount, LostFor: time.Duration(row.LostForMs) * time.Millisecond, ProgressSeq: row.ProgressSeq,
			Head: *runlog.HeadOf(db.RunHead{RunKey: row.RunKey, LatestSeq: row.LatestSeq, LatestHash: row.LatestHash,
				OldestSeq: row.OldestSeq, FloorHash: row.FloorHash, LeaseEpoch: row.LeaseEpoch, FrameCount: row.FrameCount,
				FramePosition: row.FramePosition, Status: row.Status, CancelRequested: row.CancelRequested}),
		}
		if row.LostSince != nil {
			h.LostSince = *row.LostSince
		}
		w.held = h
	}
	for _, w := range some {
		if err != nil {
			w.held, w.err = nil, fmt.Errorf("acquire the lease: %w", err)
		}
		close(w.told)
	}
}

// acquireAlone takes a lease under the locked head, for which it waits a little.
func (k *Keeper) acquireAlone(ctx context.Context, r db.Run) (*Held, error) {
	h := &Held{RunKey: r.RunKey, RunID: r.RunID, keeper: k}
	ctx, stop := context.WithTimeout(ctx, k.ttl/3+lockWait)
	defer stop()
	err := pgx.BeginFunc(ctx, k.takes(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", lockWait.Milliseconds())); err != nil {
			return fmt.Errorf("bound the wait for the head: %w", err)
		}
		head, err := runlog.LockHead(ctx, tx, r.RunKey)
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == lockNotAvailable {
			return errLocked
		}
		if err != nil {
			return err
		}
		// The lease begins when the lock is had, however long that took.
		h.sent = time.Now()
		row, err := db.New(tx).RunLeaseAcquire(ctx, db.RunLeaseAcquireParams{RunKey: r.RunKey, LeaseOwner: k.owner, Ttl: k.ttl})
		if errors.Is(err, pgx.ErrNoRows) {
			return ErrHeld
		}
		if err != nil {
			return fmt.Errorf("acquire the lease: %w", err)
		}
		h.Epoch, h.Losses, h.Head = row.LeaseEpoch, row.LostCount, head
		h.LostFor, h.ProgressSeq = time.Duration(row.LostForMs)*time.Millisecond, row.ProgressSeq
		if row.LostSince != nil {
			h.LostSince = *row.LostSince
		}
		h.Head.Epoch = h.Epoch
		return runlog.Fence(ctx, tx, r.RunKey, h.Epoch)
	})
	if errors.Is(err, errLocked) {
		err = k.evict(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	return h, nil
}

package runlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// GetHead reads a head without locking it.
func GetHead(ctx context.Context, q db.DBTX, key uuid.UUID) (Head, error) {
	r, err := db.New(q).RunHeadGet(ctx, key)
	if errors.Is(err, pgx.ErrNoRows) {
		return Head{}, ErrNoRun
	}
	if err != nil {
		return Head{}, fmt.Errorf("read the head: %w", err)
	}
	return *HeadOf(r), nil
}

// Floor is the smallest cursor from which every later event is still kept.
func (h Head) Floor() int64 { return h.Oldest - 1 }

// After reads at most limit events after a seq, in order.
func After(ctx context.Context, q db.DBTX, key uuid.UUID, seq int64, limit int) ([]db.RunLog, error) {
	rows, err := db.New(q).RunLogListAfter(ctx, db.RunLogListAfterParams{RunKey: key, AfterSeq: seq, MaxEvents: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return rows, nil
}

const pageEvents = 1000

// Each calls f with every event after a seq, in order, until the log ends.
func Each(ctx context.Context, q db.DBTX, key uuid.UUID, seq int64, f func(db.RunLog) error) error {
	for {
		rows, err := After(ctx, q, key, seq, pageEvents)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := f(r); err != nil {
				return err
			}
			seq = r.Seq
		}
		if len(rows) < pageEvents {
			return nil
		}
	}
}

// OfTypes reads the events of some types of some runs, by run and seq.
func OfTypes(ctx context.Context, q db.DBTX, keys []uuid.UUID, types ...string) ([]db.RunLog, error) {
	rows, err := db.New(q).RunLogListOfTypes(ctx, db.RunLogListOfTypesParams{RunKeys: keys, EventTypes: types})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return rows, nil
}

// Decode reads a stored payload into its type, in today's shape.
func Decode(r db.RunLog) (event.Event, error) {
	e, err := event.Decode(r.EventType, int(r.EventVersion), r.Payload)
	if err != nil {
		return nil, fmt.Errorf("event %d: %w", r.Seq, err)
	}
	return e, nil
}

// ChainError names the first event whose hash is not what the events make it.
type ChainError struct {
	Seq   int64
	Cause string
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("the chain breaks at seq %d: %s", e.Seq, e.Cause)
}

// Verify recomputes a whole log's chain, from its first event to its head, and
// returns how many events it has. A broken chain is a *ChainError.
func Verify(ctx context.Context, q db.DBTX, key uuid.UUID, runID string) (int64, error) {
	prev, seq := canon.FirstPrevHash(runID), int64(0)
	err := Each(ctx, q, key, 0, func(r db.RunLog) error {
		seq++
		if r.Seq != seq {
			return &ChainError{seq, fmt.Sprintf("the next stored seq is %d", r.Seq)}
		}
		if canon.Sum(r.Payload) != canon.Digest(r.ContentHash) {
			return &ChainError{seq, "the payload is not the one that was hashed"}
		}
		hash, err := canon.EventHash(runID, r.Seq, r.EventType, int(r.EventVersion), canon.Digest(r.ContentHash), prev)
		if err != nil {
			return err
		}
		if hash != canon.Digest(r.EventHash) {
			return &ChainError{seq, "the event is not the one that was hashed"}
		}
		prev = hash
		return nil
	})
	if err != nil {
		return seq, err
	}
	head, err := GetHead(ctx, q, key)
	if err != nil {
		return seq, err
	}
	if head.Seq != seq || canon.Digest(head.Hash) != prev {
		return seq, &ChainError{head.Seq, fmt.Sprintf("the head is at %d, the events end at %d", head.Seq, seq)}
	}
	return seq, nil
}

// LockHead locks a head for the rest of the transaction. Whoever changes the
// lease of a run does so under this lock.
func LockHead(ctx context.Context, tx pgx.Tx, key uuid.UUID) (Head, error) {
	rows, err := db.New(tx).RunHeadLockMany(ctx, []uuid.UUID{key})
	if err != nil {
		return Head{}, fmt.Errorf("lock the head: %w", err)
	}
	if len(rows) == 0 {
		return Head{}, ErrNoRun
	}
	return *HeadOf(rows[0]), nil
}

// Fence makes an epoch the only one that may write.
func Fence(ctx context.Context, tx pgx.Tx, key uuid.UUID, epoch int64) error {
	if err := db.New(tx).RunHeadFence(ctx, db.RunHeadFenceParams{RunKey: key, LeaseEpoch: epoch}); err != nil {
		return fmt.Errorf("fence the head: %w", err)
	}
	return nil
}

// NewsAmong says which of some runs have a cancel request, or more frames than
// were seen; seen has a count for each key.
func NewsAmong(ctx context.Context, q db.DBTX, keys []uuid.UUID, seen []int64) ([]uuid.UUID, error) {
	news, err := db.New(q).RunHeadListNews(ctx, db.RunHeadListNewsParams{RunKeys: keys, SeenFrames: seen})
	if err != nil {
		return nil, fmt.Errorf("look for news of runs: %w", err)
	}
	return news, nil
}

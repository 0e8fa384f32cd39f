package runlog

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// ChainError names the first event whose hash is not what the events make it.
type ChainError struct {
	Seq   int64
	Cause string
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("the chain breaks at seq %d: %s", e.Seq, e.Cause)
}

// Verify recomputes a log's chain, from the first event that is kept to its
// head, and returns the head's seq. A broken chain is a *ChainError.
func Verify(ctx context.Context, q db.DBTX, key uuid.UUID, runID string) (int64, error) {
	head, err := GetHead(ctx, q, key)
	if err != nil {
		return 0, err
	}
	prev, seq := canon.Digest(head.PrevHash(runID)), head.Floor()
	err = Each(ctx, q, key, seq, func(r db.RunLog) error {
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
	if head, err = GetHead(ctx, q, key); err != nil {
		return seq, err
	}
	if head.Seq != seq || canon.Digest(head.Hash) != prev {
		return seq, &ChainError{head.Seq, fmt.Sprintf("the head is at %d, the events end at %d", head.Seq, seq)}
	}
	return seq, nil
}

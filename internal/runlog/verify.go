package runlog

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
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

// Mark is an event's hash that was kept outside the database. The chain has no
// key: who may write to the database can make it anew, and only a mark tells.
type Mark struct {
	Seq  int64
	Hash canon.Digest
}

// Verify recomputes a log's chain, from the first event that is kept to its
// head, and returns the head's seq. A broken chain is a *ChainError, and so is
// one that does not go through the marks.
func Verify(ctx context.Context, q db.DBTX, key uuid.UUID, runID string, marks ...Mark) (int64, error) {
	head, err := GetHead(ctx, q, key)
	if err != nil {
		return 0, err
	}
	kept := make(map[int64]canon.Digest, len(marks))
	for _, m := range marks {
		if was, twice := kept[m.Seq]; twice && was != m.Hash {
			return 0, &ChainError{m.Seq, "two hashes of it were kept"}
		}
		kept[m.Seq] = m.Hash
	}
	prev, seq, last := canon.Digest(head.PrevHash(runID)), head.Floor(), ""
	if want, there := kept[seq]; there && want != prev {
		return seq, &ChainError{seq, notKept}
	}
	delete(kept, seq)
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
		if want, there := kept[seq]; there && want != hash {
			return &ChainError{seq, notKept}
		}
		delete(kept, seq)
		prev, last = hash, r.EventType
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
	if Terminal(head.Status) && last != event.TypeStreamClosed && seq > head.Floor() {
		return seq, &ChainError{seq, "the run has ended and its log has not: the end is cut off"}
	}
	for at := range kept {
		if at > seq {
			return seq, &ChainError{at, fmt.Sprintf("its hash was kept, and the log ends at %d", seq)}
		}
		return seq, &ChainError{at, fmt.Sprintf("its hash was kept, and events up to %d have aged out", head.Floor())}
	}
	return seq, nil
}

const notKept = "the event is not the one whose hash was kept"

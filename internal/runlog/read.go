package runlog

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
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

// PrevHash is the hash of the event before the first one that is kept.
func (h Head) PrevHash(runID string) [32]byte {
	if h.FloorHash == nil {
		return canon.FirstPrevHash(runID)
	}
	return *h.FloorHash
}

// After reads the limit events after a seq, fewer where the log ends, in order.
// Deltas that were folded are given as they were.
func After(ctx context.Context, q db.DBTX, key uuid.UUID, seq int64, limit int) ([]db.RunLog, error) {
	until := seq + int64(limit)
	rows, err := db.New(q).RunLogListAfter(ctx, db.RunLogListAfterParams{RunKey: key, AfterSeq: seq, UntilSeq: until})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	if n := len(rows); n > 0 && rows[n-1].Seq > until {
		rows = rows[:n-1]
	} else if n > 0 {
		until = rows[n-1].Seq // the end of the log
	} else {
		return rows, nil
	}
	if int64(len(rows)) == until-seq {
		return rows, nil
	}
	folds, err := db.New(q).RunLogFoldListAfter(ctx, db.RunLogFoldListAfterParams{RunKey: key, AfterSeq: seq, UntilSeq: until, LastSeq: until + stretchEvents})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	if rows, err = unfold(rows, folds, seq, until); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return rows, nil
}

// unfold adds to rows the events of folds whose seqs are after one and not after
// another. What is in both is the same.
func unfold(rows []db.RunLog, folds []db.RunLogFoldListAfterRow, after, until int64) (_ []db.RunLog, err error) {
	for _, f := range folds {
		if rows, err = appendUnfolded(rows, f, after, until); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(rows, func(a, b db.RunLog) int {
		return cmp.Or(bytes.Compare(a.RunKey[:], b.RunKey[:]), cmp.Compare(a.Seq, b.Seq))
	})
	return slices.CompactFunc(rows, func(a, b db.RunLog) bool { return a.RunKey == b.RunKey && a.Seq == b.Seq }), nil
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
	var control, deltas []string
	for _, t := range types {
		if isDelta(t) {
			deltas = append(deltas, t)
		} else {
			control = append(control, t)
		}
	}
	var rows []db.RunLog
	var err error
	if len(control) > 0 {
		rows, err = db.New(q).RunLogListOfTypes(ctx, db.RunLogListOfTypesParams{RunKeys: keys, EventTypes: control})
	}
	if err == nil && len(deltas) > 0 {
		rows, err = withDeltas(ctx, q, keys, deltas, rows)
	}
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return rows, nil
}

// withDeltas adds the deltas of some types. A run's deltas may be there and
// folded as well; both are the same events.
func withDeltas(ctx context.Context, q db.DBTX, keys []uuid.UUID, types []string, rows []db.RunLog) ([]db.RunLog, error) {
	deltas, err := db.New(q).RunLogDeltaListOfTypes(ctx, db.RunLogDeltaListOfTypesParams{RunKeys: keys, EventTypes: types})
	if err != nil {
		return nil, err
	}
	for _, d := range deltas {
		rows = append(rows, db.RunLog(d))
	}
	folds, err := db.New(q).RunLogFoldListOfTypes(ctx, db.RunLogFoldListOfTypesParams{RunKeys: keys, EventTypes: types})
	if err != nil {
		return nil, err
	}
	all := make([]db.RunLogFoldListAfterRow, len(folds))
	for i, f := range folds {
		all[i] = db.RunLogFoldListAfterRow(f)
	}
	return unfold(rows, all, 0, math.MaxInt64)
}

// EachOfTypes calls f with every control event of some types of a run after a
// seq, in order, until the log ends. Deltas have their own table and are not
// among them.
func EachOfTypes(ctx context.Context, q db.DBTX, key uuid.UUID, seq int64, types []string, f func(db.RunLog) error) error {
	for {
		rows, err := db.New(q).RunLogListOfTypesAfter(ctx, db.RunLogListOfTypesAfterParams{
			RunKey: key, AfterSeq: seq, EventTypes: types, MaxEvents: pageEvents,
		})
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
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

// NewestOfTypes reads, for each of some runs, at most limit of its newest
// control events of some types before a seq, by run and newest first. It reads no
// further back than that, however long the logs are.
func NewestOfTypes(ctx context.Context, q db.DBTX, keys []uuid.UUID, before []int64, limit int, types ...string) ([]db.RunLog, error) {
	rows, err := db.New(q).RunLogListNewestOfTypes(ctx, db.RunLogListNewestOfTypesParams{
		RunKeys: keys, BeforeSeqs: before, EventTypes: types, MaxEvents: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return rows, nil
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

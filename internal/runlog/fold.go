package runlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// Retention keeps the log from growing for ever. Its sweeps are safe to run in
// every process at once.
//
// A range of deltas is folded when it takes no new runs any more: deltas of runs
// that have ended become stretches, those of runs at work move to the default
// partition, and the range is dropped. Stretches and control events age out
// by their own windows, range by range; the floor of a run whose events go
// moves with them.
type Retention struct {
	Pool *pgxpool.Pool
	// FoldAfter is how long a run has ended at the least before its deltas fold.
	FoldAfter time.Duration
	// Deltas and Events are how long, after a run's end, its deltas and all its
	// events are kept at the least. 0 is for ever. Events bounds Deltas.
	Deltas, Events time.Duration
}

// deltaPeriod is how much time a partition of deltas is for. They are many, and
// folded when it is over.
const deltaPeriod = 24 * time.Hour

// windows are how long folds and control events are kept, 0 for ever.
func (r Retention) windows() map[string]time.Duration {
	w := map[string]time.Duration{folds: r.Deltas, control: r.Events}
	if r.Events > 0 && (r.Deltas == 0 || r.Deltas > r.Events) {
		w[folds] = r.Events
	}
	return w
}

// periodOf is how much time a partition is for whose rows are kept for a
// window: so much that few are live at once, because each costs every query.
func periodOf(window time.Duration) time.Duration {
	const live = 12
	if window == 0 {
		return 90 * 24 * time.Hour
	}
	return max(24*time.Hour, (window / live).Truncate(time.Hour))
}

// settled is how long after its end a range is left alone: clocks differ.
const settled = time.Hour

const foldRuns = 200 // runs that one question names

// Fold folds what can be folded and drops the ranges that are done with. It
// returns how many runs it folded.
func (r Retention) Fold(ctx context.Context) (int64, error) {
	parts, now, err := listPartitions(ctx, r.Pool, deltas)
	if err != nil {
		return 0, err
	}
	q := db.New(r.Pool)
	n, failed := r.foldEach(ctx, true, func(after uuid.UUID) ([]db.RunLogDeltaListFoldableRow, error) {
		rows, err := q.RunLogDeltaListFoldableStray(ctx, db.RunLogDeltaListFoldableStrayParams{AfterKey: after, Grace: r.FoldAfter, MaxRuns: foldRuns})
		out := make([]db.RunLogDeltaListFoldableRow, len(rows))
		for i, row := range rows {
			out[i] = db.RunLogDeltaListFoldableRow(row)
		}
		return out, err
	})
	for _, p := range parts {
		if now.Before(p.until.Add(settled)) {
			continue
		}
		folded, err := r.foldEach(ctx, false, func(after uuid.UUID) ([]db.RunLogDeltaListFoldableRow, error) {
			if after == uuid.Nil {
				after = before(keyAt(p.from))
			}
			return q.RunLogDeltaListFoldable(ctx, db.RunLogDeltaListFoldableParams{
				AfterKey: after, UntilKey: keyAt(p.until), Grace: r.FoldAfter, MaxRuns: foldRuns})
		})
		n += folded
		if err == nil {
			err = r.dropFolded(ctx, p)
		}
		failed = errors.Join(failed, err)
	}
	return n, failed
}

// foldEach folds the runs that list names, page by page. stray says that their
// deltas lie in the default partition, where only deleting makes room.
func (r Retention) foldEach(ctx context.Context, stray bool, list func(after uuid.UUID) ([]db.RunLogDeltaListFoldableRow, error)) (n int64, failed error) {
	for after := uuid.Nil; ; {
		runs, err := list(after)
		if err != nil {
			return n, errors.Join(failed, fmt.Errorf("list what can be folded: %w", err))
		}
		for _, one := range runs {
			folded := false
			err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) (err error) {
				folded, err = foldRun(ctx, tx, one.RunKey, one.RunID, stray)
				return err
			})
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("fold run %s: %w", one.RunID, err))
			} else if folded {
				n++
			}
			after = one.RunKey
		}
		if len(runs) < foldRuns || ctx.Err() != nil {
			return n, failed
		}
	}
}

// foldRun writes the stretches of a run that has ended. It answers false when
// another process does or has done so.
func foldRun(ctx context.Context, tx pgx.Tx, key uuid.UUID, runID string, stray bool) (bool, error) {
	q := db.New(tx)
	if _, err := q.RunLogFoldLock(ctx, key); err != nil {
		return false, ignoring(err, pgx.ErrNoRows)
	}
	if was, err := q.RunLogFoldExists(ctx, key); err != nil || was {
		return false, err
	}
	head, err := GetHead(ctx, tx, key)
	if err != nil {
		return false, err
	}
	prev := canon.Digest(head.PrevHash(runID))
	var open *stretch
	flush := func() error {
		if open == nil {
			return nil
		}
		row := open.done()
		open = nil
		return q.RunLogFoldInsert(ctx, row)
	}
	err = Each(ctx, tx, key, head.Floor(), func(row db.RunLog) error {
		took := isDelta(row.EventType) && open != nil && open.take(runID, row)
		if !took {
			if err := flush(); err != nil {
				return err
			}
			if isDelta(row.EventType) {
				s := newStretch(runID, prev, row)
				open = &s
			}
		}
		copy(prev[:], row.EventHash)
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err == nil && stray {
		_, err = q.RunLogDeltaDeleteStray(ctx, key)
	}
	return err == nil, err
}

func ignoring(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// dropFolded drops a range of deltas that are folded. What runs at work have in
// it moves to the default partition, where the rest of them goes from then on.
func (r Retention) dropFolded(ctx context.Context, p partition) error {
	err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) error {
		left, err := db.New(tx).RunLogDeltaListUnfolded(ctx, db.RunLogDeltaListUnfoldedParams{
			FromKey: keyAt(p.from), UntilKey: keyAt(p.until)})
		if err != nil {
			return err
		}
		ended, err := db.New(tx).RunHeadListEnded(ctx, left)
		if err != nil {
			return err
		}
		if len(ended) > 0 {
			return nil // they fold when their time has come
		}
		return dropPartition(ctx, tx, p, left)
	})
	if busy(err) {
		return nil
	}
	return err
}

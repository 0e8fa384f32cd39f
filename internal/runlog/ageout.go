package runlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

const agedRuns = 500 // floors that one commit moves

// AgeOut drops what is older than its window: folds first, because control
// events go with their whole run. It returns how many floors it moved.
func (r Retention) AgeOut(ctx context.Context) (n int64, failed error) {
	for _, table := range []string{folds, control} {
		window := r.windows()[table]
		if window == 0 {
			continue
		}
		parts, now, err := listPartitions(ctx, r.Pool, table)
		if err != nil {
			return n, errors.Join(failed, err)
		}
		for _, p := range parts {
			if now.Before(p.until.Add(max(window, settled))) {
				continue
			}
			moved, err := r.ageRange(ctx, p, window)
			n, failed = n+moved, errors.Join(failed, err)
		}
		moved, err := r.ageStray(ctx, table, window)
		n, failed = n+moved, errors.Join(failed, err)
	}
	return n, failed
}

// ageRange moves the floors of a range's runs, then drops it in the commit that
// moves the last of them. Runs at work, and those that ended within the window,
// keep their rows in the default partition.
func (r Retention) ageRange(ctx context.Context, p partition, window time.Duration) (n int64, err error) {
	for last := false; !last; {
		err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) error {
			keys, err := raiseFloors(ctx, tx, p.table, keyAt(p.from), keyAt(p.until), window)
			if err != nil {
				return err
			}
			n += int64(len(keys))
			if last = len(keys) < agedRuns; !last {
				return nil
			}
			keep, err := db.New(tx).RunHeadListUnaged(ctx, db.RunHeadListUnagedParams{
				FromKey: keyAt(p.from), UntilKey: keyAt(p.until), Age: window})
			if err != nil {
				return err
			}
			if p.table == folds {
				// A fold of theirs may be on its way.
				unfolded, err := db.New(tx).RunLogDeltaListUnfolded(ctx, db.RunLogDeltaListUnfoldedParams{
					FromKey: keyAt(p.from), UntilKey: keyAt(p.until)})
				if err != nil {
					return err
				}
				keep = append(keep, unfolded...)
			}
			return dropPartition(ctx, tx, p, keep)
		})
		switch {
		case busy(err):
			return n, nil
		case err != nil:
			return n, fmt.Errorf("age out %s: %w", p.name, err)
		}
	}
	return n, nil
}

// ageStray forgets aged runs' rows in a table's default partition, where only
// deleting can.
func (r Retention) ageStray(ctx context.Context, table string, window time.Duration) (n int64, err error) {
	for after := uuid.Nil; ; {
		keys, err := strayKeys(ctx, r.Pool, table, after)
		if err != nil || len(keys) == 0 {
			return n, err
		}
		for _, key := range keys {
			err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) error {
				aged, err := raiseFloors(ctx, tx, table, key, next(key), window)
				if err != nil || len(aged) == 0 {
					return err
				}
				n++
				_, err = tx.Exec(ctx, fmt.Sprintf("DELETE FROM %s_default WHERE run_key = $1", table), key)
				return err
			})
			if err != nil {
				return n, fmt.Errorf("age out %s_default: %w", table, err)
			}
		}
		after = keys[len(keys)-1]
	}
}

// strayKeys are runs after a key that have rows in a table's default partition,
// found by an index lookup each.
func strayKeys(ctx context.Context, q db.DBTX, table string, after uuid.UUID) ([]uuid.UUID, error) {
	rows, err := q.Query(ctx, fmt.Sprintf(`WITH RECURSIVE k AS (
			(SELECT run_key FROM %[1]s_default WHERE run_key > $1 ORDER BY run_key LIMIT 1)
			UNION ALL
			SELECT (SELECT d.run_key FROM %[1]s_default d WHERE d.run_key > k.run_key ORDER BY d.run_key LIMIT 1)
			FROM k WHERE k.run_key IS NOT NULL)
		SELECT run_key FROM k WHERE run_key IS NOT NULL LIMIT $2`, table), after, agedRuns)
	if err != nil {
		return nil, fmt.Errorf("list the runs of %s_default: %w", table, err)
	}
	return pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
}

// raiseFloors moves the floors of aged runs over what a table has of them, and
// says of which.
func raiseFloors(ctx context.Context, tx pgx.Tx, table string, from, until uuid.UUID, window time.Duration) ([]uuid.UUID, error) {
	q := db.New(tx)
	keys, err := q.RunHeadLockAged(ctx, db.RunHeadLockAgedParams{
		FromKey: from, UntilKey: until, Age: window, Folded: table == folds, MaxRuns: agedRuns})
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	if table == folds {
		return keys, q.RunHeadRaiseFloorOverFolds(ctx, keys)
	}
	return keys, q.RunHeadRaiseFloor(ctx, keys)
}

// next is the key after another.
func next(key uuid.UUID) uuid.UUID {
	for i := len(key) - 1; i >= 0; i-- {
		key[i]++
		if key[i] != 0 {
			break
		}
	}
	return key
}

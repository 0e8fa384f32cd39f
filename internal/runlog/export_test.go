package runlog

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// MakePartition makes a range of a table as Prepare does, and again when the
// table's lock was not to be had in time, as the next pass of the sweep does.
func MakePartition(ctx context.Context, pool *pgxpool.Pool, table string, from, until time.Time) error {
	for {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return makePartition(ctx, tx, table, from, until) })
		if !busy(err) || ctx.Err() != nil {
			return err
		}
	}
}

// Busy says that a pass gave up because a lock was not to be had in time.
func Busy(err error) bool { return busy(err) }

// Ranges are the names of a table's partitions, the default one aside.
func Ranges(ctx context.Context, pool *pgxpool.Pool, table string) (names []string, err error) {
	parts, _, err := listPartitions(ctx, pool, table)
	for _, p := range parts {
		names = append(names, p.name)
	}
	return names, err
}

// KeyAt is a key of a run that began at a moment.
func KeyAt(t time.Time) uuid.UUID {
	key, random := keyAt(t), uuid.New()
	copy(key[8:], random[8:])
	return key
}

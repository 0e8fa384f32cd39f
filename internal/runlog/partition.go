package runlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// The tables that are partitioned.
const (
	control = "run_log"
	deltas  = "run_log_deltas"
	folds   = "run_log_folds"
)

// partition is a range of a table's keys, and so of the times at which runs
// began. The default partition is none.
type partition struct {
	table, name string
	from, until time.Time
}

// keyAt is the smallest key of a run that began at a moment.
func keyAt(t time.Time) uuid.UUID {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(max(0, t.UnixMilli()))<<16)
	var key uuid.UUID
	copy(key[:], ms[:])
	return key
}

func timeOf(key uuid.UUID) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(key[:8]) >> 16)).UTC()
}

// before is the key before another.
func before(key uuid.UUID) uuid.UUID {
	for i := len(key) - 1; i >= 0; i-- {
		key[i]--
		if key[i] != 0xff {
			break
		}
	}
	return key
}

var bounds = regexp.MustCompile(`FROM \('([0-9a-f-]{36})'\) TO \('([0-9a-f-]{36})'\)`)

// listPartitions lists a table's ranges in order of time, and the database's time.
func listPartitions(ctx context.Context, q db.DBTX, table string) ([]partition, time.Time, error) {
	var now time.Time
	if err := q.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return nil, now, fmt.Errorf("list the partitions of %s: %w", table, err)
	}
	rows, err := q.Query(ctx, `SELECT c.relname, pg_get_expr(c.relpartbound, c.oid)
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = $1::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
		ORDER BY 2`, table)
	if err != nil {
		return nil, now, fmt.Errorf("list the partitions of %s: %w", table, err)
	}
	defer rows.Close()
	var parts []partition
	for rows.Next() {
		var name, bound string
		if err := rows.Scan(&name, &bound); err != nil {
			return nil, now, err
		}
		m := bounds.FindStringSubmatch(bound)
		if m == nil {
			return nil, now, fmt.Errorf("partition %s is no range of keys: %s", name, bound)
		}
		parts = append(parts, partition{table: table, name: name, from: timeOf(uuid.MustParse(m[1])), until: timeOf(uuid.MustParse(m[2]))})
	}
	return parts, now, rows.Err()
}

// lockWait bounds how long appends may have to wait behind a change of
// partitions that waits for its lock itself.
const lockWait = "SET LOCAL lock_timeout = '200ms'"

// ahead is how long before its time a range is made.
const ahead = time.Minute

// Prepare makes the ranges that runs will need next: after each table's last
// one, until a whole period ahead. Runs of the time before the first range, or
// of a gap that no sweep came to fill, are in the default partition. It returns
// how many it made.
func (r Retention) Prepare(ctx context.Context) (int64, error) {
	made := int64(0)
	periods := map[string]time.Duration{deltas: deltaPeriod}
	for table, window := range r.windows() {
		periods[table] = periodOf(window)
	}
	for table, period := range periods {
		err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) error {
			// One process makes them; the others find them made.
			if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('runlog partitions'))"); err != nil {
				return err
			}
			parts, now, err := listPartitions(ctx, tx, table)
			if err != nil {
				return err
			}
			from := now.Add(ahead).Truncate(time.Minute).Add(time.Minute)
			if n := len(parts); n > 0 && parts[n-1].until.After(from) {
				from = parts[n-1].until
			}
			for ; from.Before(now.Add(period)); from = from.Add(period) {
				if err := makePartition(ctx, tx, table, from, from.Add(period)); err != nil {
					return err
				}
				made++
			}
			return nil
		})
		if err != nil {
			return made, fmt.Errorf("make partitions of %s: %w", table, err)
		}
	}
	return made, nil
}

func makePartition(ctx context.Context, tx pgx.Tx, table string, from, until time.Time) error {
	name := table + "_" + from.UTC().Format("20060102_1504")
	if _, err := tx.Exec(ctx, lockWait); err != nil {
		return err
	}
	// Attaching lets appends and reads go on; creating in place does not.
	for _, sql := range []string{
		fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING ALL)", name, table),
		fmt.Sprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", table, name, keyAt(from), keyAt(until)),
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// dropPartition drops a range. What some runs have in it moves to the default
// partition first. A range that another process has dropped is no error. Heads
// that the transaction writes are written before: appends lock them first too.
func dropPartition(ctx context.Context, tx pgx.Tx, p partition, keep []uuid.UUID) error {
	for _, sql := range []string{lockWait, "LOCK TABLE " + p.table + " IN ACCESS EXCLUSIVE MODE"} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return fmt.Errorf("drop %s: %w", p.name, err)
		}
	}
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", p.name).Scan(&there); err != nil || !there {
		return err
	}
	if len(keep) > 0 {
		sql := fmt.Sprintf("CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM %s WHERE run_key = ANY($1)", p.name)
		if _, err := tx.Exec(ctx, sql, keep); err != nil {
			return fmt.Errorf("drop %s: keep what is in use: %w", p.name, err)
		}
	}
	if _, err := tx.Exec(ctx, "DROP TABLE "+p.name); err != nil {
		return fmt.Errorf("drop %s: %w", p.name, err)
	}
	if len(keep) > 0 {
		if _, err := tx.Exec(ctx, fmt.Sprintf("INSERT INTO %s SELECT * FROM kept", p.table)); err != nil {
			return fmt.Errorf("drop %s: keep what is in use: %w", p.name, err)
		}
	}
	return nil
}

// busy says that a lock was not to be had in time.
func busy(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "55P03"
}

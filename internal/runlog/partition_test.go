package runlog_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

const day = 24 * time.Hour

// ranges makes a partition of each table for the runs that began 12 to 8 days ago.
func ranges(t testing.TB, pool *pgxpool.Pool, tables ...string) {
	t.Helper()
	for _, table := range tables {
		now := time.Now().Truncate(time.Minute)
		require.NoError(t, runlog.MakePartition(t.Context(), pool, table, now.Add(-12*day), now.Add(-8*day)))
	}
}

// prepared is how many ranges Prepare makes. A busy machine may keep it from a
// table's lock for longer than it waits; what it has made by then stays.
func prepared(t testing.TB, keep runlog.Retention) (made int64) {
	t.Helper()
	for {
		n, err := keep.Prepare(t.Context())
		made += n
		if err == nil {
			return made
		}
		require.True(t, runlog.Busy(err), "%v", err)
	}
}

func left(t testing.TB, pool *pgxpool.Pool, table string) int {
	t.Helper()
	names, err := runlog.Ranges(t.Context(), pool, table)
	require.NoError(t, err)
	return len(names)
}

func TestRangesAreMadeAheadOnceAndTakeTheRunsOfTheirTime(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	keep := runlog.Retention{Pool: pool, Deltas: 30 * day, Events: 300 * day}
	require.EqualValues(t, 3, prepared(t, keep), "one range of each table covers what comes")
	require.Zero(t, prepared(t, keep))

	r := began(t, pool, runtest.Run(t, pool), -time.Hour) // in an hour
	p.Append(t, r, reply(3)...)
	verified(t, pool, r)
	for _, table := range []string{"run_log", "run_log_deltas"} {
		require.Zero(t, number(t, pool, "SELECT count(*) FROM "+table+"_default"))
	}
}

// A range whose runs have ended is folded and dropped; what a run at work has in
// it stays, and the run goes on.
func TestARangeThatIsFoldedIsDropped(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	ranges(t, pool, "run_log_deltas", "run_log_folds")
	p := runtest.NewProcess(t, pool)
	live := began(t, pool, runtest.Run(t, pool), 10*day)
	p.Append(t, live, delta("a"), delta("b"))
	var ended []db.Run
	before := map[uuid.UUID][]db.RunLog{}
	for range 3 {
		r := runtest.Run(t, pool)
		p.Append(t, r, reply(30)...)
		r = began(t, pool, r, 10*day)
		before[r.RunKey] = all(t, pool, r, 0, 100)
		ended = append(ended, r)
	}
	require.Zero(t, number(t, pool, "SELECT count(*) FROM run_log_deltas_default"))

	// Before the runs' time has come nothing happens to the range.
	n, err := runlog.Retention{Pool: pool, FoldAfter: 11 * day}.Fold(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	require.Equal(t, 1, left(t, pool, "run_log_deltas"))

	n, err = runlog.Retention{Pool: pool}.Fold(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	require.Zero(t, left(t, pool, "run_log_deltas"))
	require.EqualValues(t, 2, number(t, pool, "SELECT count(*) FROM run_log_deltas_default"))
	for _, r := range ended {
		require.Equal(t, before[r.RunKey], all(t, pool, r, 0, 100))
		verified(t, pool, r)
	}
	p.Append(t, live, delta("c"))
	p.Append(t, live, ending()...)
	require.EqualValues(t, 6, verified(t, pool, live))

	n, err = runlog.Retention{Pool: pool}.Fold(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Zero(t, number(t, pool, "SELECT count(*) FROM run_log_deltas"))
	require.EqualValues(t, 6, verified(t, pool, live))
}

// A reader that follows a run, and a writer of it, while the run's range goes.
func TestADroppedRangeDisturbsNobody(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	ranges(t, pool, "run_log", "run_log_deltas", "run_log_folds")
	r := began(t, pool, runtest.Run(t, pool), 10*day)
	read := make(chan int64)
	go func() {
		bell := p.Watch.Run(r.RunKey)
		defer bell.Close()
		seq := int64(0)
		for {
			rows, err := runlog.After(t.Context(), pool, r.RunKey, seq, 50)
			if err != nil {
				t.Error(err)
				break
			}
			for _, row := range rows {
				if seq++; row.Seq != seq {
					t.Errorf("seq %d comes after %d", row.Seq, seq-1)
				}
				if row.EventType == event.TypeStreamClosed {
					read <- seq
					return
				}
			}
			if len(rows) == 0 {
				<-bell.C
			}
		}
		close(read)
	}()
	written := int64(1)
	write := func() {
		p.Append(t, r, delta("x"), event.ReasoningDeltaV1{PartID: "p", Delta: "y"}, event.RunStartedV1{MessageID: "m"})
		written += 3
	}
	write()
	swept := make(chan error, 1)
	go func() {
		k := runlog.Retention{Pool: pool, Events: 5 * day}
		_, err := k.Fold(t.Context())
		if err == nil {
			_, err = k.AgeOut(t.Context())
		}
		swept <- err
	}()
	for done := false; !done; {
		select {
		case err := <-swept:
			require.NoError(t, err)
			done = true
		default:
			write()
		}
	}
	write()
	require.Zero(t, left(t, pool, "run_log")+left(t, pool, "run_log_deltas")+left(t, pool, "run_log_folds"))
	p.Append(t, r, ending()...)
	require.Equal(t, written+2, <-read)
	require.Equal(t, written+2, verified(t, pool, r))
}

// Deltas go by their window: the floor moves over the last of them, and the rest
// still verifies. Then everything goes by its own.
func TestEventsAgeOutByTheirWindows(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"ranges", "default partitions"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			if where == "ranges" {
				ranges(t, pool, "run_log", "run_log_deltas", "run_log_folds")
			}
			p := runtest.NewProcess(t, pool)
			old := runtest.Run(t, pool)
			p.Append(t, old, reply(30)...)
			old = began(t, pool, old, 10*day)
			live := began(t, pool, runtest.Run(t, pool), 10*day)
			p.Append(t, live, delta("a"))
			late := began(t, pool, runtest.Run(t, pool), 10*day) // and ends now
			p.Append(t, late, reply(5)...)
			rows := all(t, pool, old, 0, 100)
			sweep := func(k runlog.Retention) int64 {
				k.Pool, k.FoldAfter = pool, 0
				_, err := k.Fold(t.Context())
				require.NoError(t, err)
				n, err := k.AgeOut(t.Context())
				require.NoError(t, err)
				return n
			}
			head := func() runlog.Head {
				h, err := runlog.GetHead(t.Context(), pool, old.RunKey)
				require.NoError(t, err)
				return h
			}

			require.Zero(t, sweep(runlog.Retention{}), "for ever")
			require.Zero(t, sweep(runlog.Retention{Deltas: 30 * day, Events: 40 * day}))
			require.Zero(t, head().Floor())

			require.EqualValues(t, 1, sweep(runlog.Retention{Deltas: 5 * day}))
			require.EqualValues(t, 34, head().Floor(), "the last delta")
			require.Equal(t, rows[33].EventHash, head().FloorHash[:])
			require.Equal(t, rows[34:], all(t, pool, old, 34, 100))
			require.EqualValues(t, 39, verified(t, pool, old))
			told, err := runlog.OfTypes(t.Context(), pool, []uuid.UUID{old.RunKey}, event.TypeRunStarted, event.TypeMessageFinished)
			require.NoError(t, err)
			require.Len(t, told, 2, "what was said is still told")
			require.Zero(t, sweep(runlog.Retention{Deltas: 5 * day}), "nothing is left to do")

			require.EqualValues(t, 1, sweep(runlog.Retention{Events: 5 * day}))
			require.EqualValues(t, 39, head().Floor())
			require.Empty(t, all(t, pool, old, 39, 100))
			require.EqualValues(t, 39, verified(t, pool, old))
			require.Zero(t, number(t, pool, "SELECT count(*) FROM run_events WHERE run_key = $1", old.RunKey))

			require.Zero(t, left(t, pool, "run_log")+left(t, pool, "run_log_deltas")+left(t, pool, "run_log_folds"))
			require.EqualValues(t, 14, verified(t, pool, late), "it has not ended so long ago")
			p.Append(t, live, delta("b"))
			require.EqualValues(t, 3, verified(t, pool, live))
			require.Len(t, all(t, pool, live, 0, 10), 3)
		})
	}
}

// Tampering with the kept hash is found at the first event that is kept.
func TestTheKeptHeadIsVerified(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Append(t, r, reply(5)...)
	k := runlog.Retention{Pool: pool, Deltas: time.Nanosecond}
	_, err := k.Fold(t.Context())
	require.NoError(t, err)
	_, err = k.AgeOut(t.Context())
	require.NoError(t, err)
	verified(t, pool, r)
	_, err = pool.Exec(t.Context(), `UPDATE run_heads SET floor_hash = sha256('')`)
	require.NoError(t, err)
	_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	var broken *runlog.ChainError
	require.ErrorAs(t, err, &broken)
	require.EqualValues(t, 10, broken.Seq)
}

// explainer notes the plan of each question before it asks it.
type explainer struct {
	db.DBTX
	t       testing.TB
	options string
	plans   []string
}

func (e *explainer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	e.explain(ctx, sql, args...)
	return e.DBTX.Query(ctx, sql, args...)
}

func (e *explainer) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	e.explain(ctx, sql, args...)
	return e.DBTX.QueryRow(ctx, sql, args...)
}

func (e *explainer) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	e.explain(ctx, sql, args...)
	return e.DBTX.Exec(ctx, sql, args...)
}

func (e *explainer) explain(ctx context.Context, sql string, args ...any) {
	rows, err := e.DBTX.Query(ctx, "EXPLAIN "+e.options+sql, args...)
	require.NoError(e.t, err, sql)
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(e.t, err, sql)
	e.plans = append(e.plans, strings.Join(plan, "\n"))
}

// The log's reads ask the partitions of their runs alone, by index, however
// many partitions and rows there are.
func TestReadsOfThePartitionedLogUseIndexes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	now := time.Now().Truncate(time.Minute)
	for _, table := range []string{"run_log", "run_log_deltas", "run_log_folds"} {
		for i := range 12 {
			from := now.Add(-time.Duration(i+1) * day)
			require.NoError(t, runlog.MakePartition(t.Context(), pool, table, from, from.Add(day)))
		}
	}
	for i := range 4 {
		r := runtest.Run(t, pool)
		p.Append(t, r, reply(2000)...)
		r = began(t, pool, r, time.Duration(i)*2*day+day/2)
		if i == 0 {
			continue
		}
		require.EqualValues(t, 2009, verified(t, pool, r))
	}
	for i := range 12 { // rows of other runs
		keys := make([]uuid.UUID, 1000)
		for k := range keys {
			keys[k] = runlog.KeyAt(now.Add(-time.Duration(i)*day - day/2))
		}
		for _, table := range []string{"run_log", "run_log_deltas"} {
			_, err := pool.Exec(t.Context(), `INSERT INTO `+table+` SELECT unnest($1::uuid[]), 1, 't', 1, '{}', sha256(''), sha256('')`, keys)
			require.NoError(t, err)
		}
		_, err := pool.Exec(t.Context(), `INSERT INTO run_log_folds SELECT unnest($1::uuid[]), 1, 1, 't', 1, '{}', '', sha256(''), '', '', NULL, NULL, NULL, now()`, keys)
		require.NoError(t, err)
	}
	_, err := runlog.Retention{Pool: pool}.Fold(t.Context())
	require.NoError(t, err)
	require.Greater(t, left(t, pool, "run_log_deltas"), 0)
	_, err = pool.Exec(t.Context(), "ANALYZE run_log, run_log_deltas, run_log_folds, run_heads, runs")
	require.NoError(t, err)
	var keys []uuid.UUID
	rows, err := pool.Query(t.Context(), "SELECT run_key FROM runs ORDER BY run_key")
	require.NoError(t, err)
	keys, err = pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	require.NoError(t, err)

	e := &explainer{DBTX: pool, t: t}
	for _, key := range keys {
		_, err = runlog.After(t.Context(), e, key, 1000, 100)
		require.NoError(t, err)
	}
	_, err = runlog.OfTypes(t.Context(), e, keys[:2], event.TypeMessageFinished)
	require.NoError(t, err)
	_, err = runlog.OfTypes(t.Context(), e, keys[:1], event.TypeMessageDelta)
	require.NoError(t, err)
	require.Greater(t, len(e.plans), 6)
	for _, plan := range e.plans {
		require.NotContains(t, strings.ReplaceAll(plan, "Seq Scan on runs", "") /* of four rows */, "Seq Scan", plan)
		require.LessOrEqual(t, strings.Count(plan, " on run_log"), 4, "other runs' partitions are not asked:\n%s", plan)
	}
}

// What a turn costs does not depend on how many came before: neither the bytes
// that it adds nor the pages that are read for what is new.
func TestALateTurnCostsWhatAnEarlyOneDoes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	turn := reply(20)[1:26] // without the run's start and end
	touched := func(after int64) (pages int) {
		e := &explainer{DBTX: pool, t: t, options: "(ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) "}
		rows, err := runlog.After(t.Context(), e, r.RunKey, after, 256)
		require.NoError(t, err)
		require.Len(t, rows, len(turn))
		require.Len(t, e.plans, 1)
		execution, _, _ := strings.Cut(e.plans[0], "Planning:")
		for _, m := range regexp.MustCompile(`shared hit=(\d+)`).FindAllStringSubmatch(execution, 1) {
			pages, err = strconv.Atoi(m[1])
			require.NoError(t, err)
		}
		return pages
	}
	var early int
	for i := range 1000 {
		ack := p.Append(t, r, turn...)
		if i == 10 {
			early = touched(ack.FirstSeq - 1)
		}
	}
	_, err := pool.Exec(t.Context(), "ANALYZE run_log, run_log_deltas")
	require.NoError(t, err)
	head, err := runlog.GetHead(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	require.Positive(t, early)
	require.LessOrEqual(t, touched(head.Seq-int64(len(turn))), early+4, "the index is a level or two deeper")

	bytes := func(turn int64) int64 {
		const n = 25
		return number(t, pool, `SELECT sum(pg_column_size(l.*)) FROM (SELECT * FROM run_log UNION ALL SELECT * FROM run_log_deltas) l
			WHERE seq > 1 + $1 * $2::bigint AND seq <= 1 + ($1 + 1) * $2::bigint`, turn, n)
	}
	require.Equal(t, bytes(10), bytes(999))
}

func BenchmarkForgettingARange(b *testing.B) {
	const runs, events = 100, 860
	for _, how := range []string{"delete", "drop"} {
		b.Run(how, func(b *testing.B) {
			var wal, rows int64
			for range b.N {
				b.StopTimer()
				pool := dbtest.New(b)
				ranges(b, pool, "run_log_deltas")
				_, err := pool.Exec(b.Context(), `INSERT INTO run_log_deltas
					SELECT k.key, n, 'message.delta', 1, '{"delta":"word ","part_id":"text-1-1"}', sha256(n::text::bytea), sha256(n::text::bytea), repeat('0', 55), 'req'
					FROM unnest($1::uuid[]) k(key), generate_series(1, $2) n`, oldKeys(runs), events)
				require.NoError(b, err)
				names, err := runlog.Ranges(b.Context(), pool, "run_log_deltas")
				require.NoError(b, err)
				_, err = pool.Exec(b.Context(), "CHECKPOINT")
				require.NoError(b, err)
				was := number(b, pool, "SELECT (pg_current_wal_lsn() - '0/0')::bigint")
				b.StartTimer()
				if how == "drop" {
					_, err = pool.Exec(b.Context(), "DROP TABLE "+names[0])
				} else {
					_, err = pool.Exec(b.Context(), "DELETE FROM run_log_deltas")
				}
				require.NoError(b, err)
				b.StopTimer()
				wal += number(b, pool, "SELECT (pg_current_wal_lsn() - '0/0')::bigint") - was
				rows += runs * events
				_, err = pool.Exec(b.Context(), "DROP TABLE IF EXISTS "+names[0])
				require.NoError(b, err)
			}
			b.ReportMetric(float64(wal)/float64(rows), "WAL-B/row")
		})
	}
}

func oldKeys(n int) (keys []string) {
	for range n {
		keys = append(keys, fmt.Sprint(runlog.KeyAt(time.Now().Add(-10*day))))
	}
	return keys
}

// What one event after a cursor costs, and one commit of a delta, when each
// table has so many partitions besides the default one.
func BenchmarkPartitions(b *testing.B) {
	pool := dbtest.New(b)
	made := 0
	for _, n := range []int{0, 4, 12, 24} {
		for ; made < n; made++ {
			// The first begins in a minute, so that the runs before it stay where they are.
			from := time.Now().Truncate(time.Minute).Add(2*time.Minute + time.Duration(made)*day)
			for _, table := range []string{"run_log", "run_log_deltas", "run_log_folds"} {
				require.NoError(b, runlog.MakePartition(b.Context(), pool, table, from, from.Add(day)))
			}
		}
		p := runtest.NewProcess(b, pool)
		r := runtest.Run(b, pool)
		if n > 0 {
			r = began(b, pool, r, -2*time.Hour)
		}
		b.Run(fmt.Sprintf("append/%d", n), func(b *testing.B) {
			for range b.N {
				p.Append(b, r, delta("x"))
			}
		})
		last := p.Append(b, r, delta("x")).LastSeq
		b.Run(fmt.Sprintf("tail/%d", n), func(b *testing.B) {
			for range b.N {
				rows, err := runlog.After(b.Context(), pool, r.RunKey, last-1, 256)
				require.NoError(b, err)
				require.Len(b, rows, 1)
			}
		})
		b.Run(fmt.Sprintf("page/%d", n), func(b *testing.B) {
			for range b.N {
				rows, err := runlog.After(b.Context(), pool, r.RunKey, 1, 256)
				require.NoError(b, err)
				require.Len(b, rows, 256)
			}
		})
	}
}

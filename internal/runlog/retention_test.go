package runlog_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// all is a run's log as readers get it, in pages of a size, after a cursor.
func all(t testing.TB, pool *pgxpool.Pool, r db.Run, cursor int64, page int) []db.RunLog {
	t.Helper()
	var rows []db.RunLog
	for {
		got, err := runlog.After(t.Context(), pool, r.RunKey, cursor, page)
		require.NoError(t, err)
		rows = append(rows, got...)
		if len(got) < page {
			return rows
		}
		cursor = got[len(got)-1].Seq
	}
}

func number(t testing.TB, pool *pgxpool.Pool, sql string, args ...any) (n int64) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), sql, args...).Scan(&n))
	return n
}

func verified(t testing.TB, pool *pgxpool.Pool, r db.Run) int64 {
	t.Helper()
	n, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
	return n
}

// began makes a run one that began, and ended if it has, so long ago.
func began(t testing.TB, pool *pgxpool.Pool, r db.Run, ago time.Duration) db.Run {
	t.Helper()
	key := runlog.KeyAt(time.Now().Add(-ago))
	for _, table := range []string{"runs", "run_heads", "run_log", "run_log_deltas", "run_log_folds"} {
		_, err := pool.Exec(t.Context(), "UPDATE "+table+" SET run_key = $1 WHERE run_key = $2", key, r.RunKey)
		require.NoError(t, err)
	}
	_, err := pool.Exec(t.Context(), "UPDATE runs SET finished_at = finished_at - $2::interval WHERE run_key = $1", key, ago)
	require.NoError(t, err)
	r.RunKey = key
	return r
}

func reply(n int) []event.Event {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprintf("word%d ", i)
	}
	return runtest.Reply(words...)
}

// anyEvents is what a run may say: parts of both kinds, side by side and taken
// back, with other events between their deltas.
func anyEvents(rt *rapid.T) []event.Event {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", `"`, `\`, `\"`, "\n", "\x00", "\u2028", "é", "😀", `","part_id":"x"}`}))
	part := rapid.SampledFrom([]string{"a", "b", `"q"`})
	one := rapid.Custom(func(rt *rapid.T) event.Event {
		p := part.Draw(rt, "part")
		switch rapid.IntRange(0, 9).Draw(rt, "kind") {
		case 0:
			return event.MessageDiscardedV1{PartID: p}
		case 1:
			return event.StepDiscardedV1{Step: 1, FromSeq: 1, ToSeq: 2, Reason: event.StepDiscardedV1ReasonModelFailed}
		case 2:
			return event.MessageFinishedV1{PartID: p, Text: text.Draw(rt, "text")}
		case 3, 4:
			return event.ReasoningDeltaV1{PartID: p, Delta: text.Draw(rt, "delta")}
		default:
			return event.MessageDeltaV1{PartID: p, Delta: text.Draw(rt, "delta")}
		}
	})
	return rapid.SliceOfN(one, 0, 60).Draw(rt, "events")
}

func ending() []event.Event {
	script := runtest.Reply()
	return script[len(script)-2:]
}

// Whatever a run said, each reader gets every event after its cursor as it was,
// to the byte and the microsecond, before and after its deltas were folded.
func TestFoldingChangesNothingThatIsRead(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	rapid.Check(t, func(rt *rapid.T) {
		r := runtest.Run(t, pool)
		script := anyEvents(rt)
		for len(script) > 0 {
			n := rapid.IntRange(1, len(script)).Draw(rt, "events of a commit")
			p.Append(t, r, script[:n]...)
			script = script[n:]
		}
		p.Append(t, r, ending()...)
		before := all(t, pool, r, 0, 1000)
		deltas, err := runlog.OfTypes(t.Context(), pool, []uuid.UUID{r.RunKey}, event.TypeMessageDelta, event.TypeReasoningDelta, event.TypeMessageFinished)
		require.NoError(rt, err)
		length := verified(t, pool, r)

		_, err = runlog.Retention{Pool: pool}.Fold(t.Context())
		require.NoError(rt, err)
		require.Zero(rt, number(t, pool, "SELECT count(*) FROM run_log_deltas WHERE run_key = $1", r.RunKey))

		page := rapid.IntRange(1, 70).Draw(rt, "page")
		for cursor := range before {
			require.Equal(rt, before[cursor:], all(t, pool, r, int64(cursor), page))
		}
		folded, err := runlog.OfTypes(t.Context(), pool, []uuid.UUID{r.RunKey}, event.TypeMessageDelta, event.TypeReasoningDelta, event.TypeMessageFinished)
		require.NoError(rt, err)
		require.Equal(rt, deltas, folded)
		require.Equal(rt, length, verified(t, pool, r))
	})
}

// A long part is few rows, each small enough to be read for the sake of a page.
func TestALongPartFoldsIntoFewRows(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Append(t, r, reply(3000)...)
	before := all(t, pool, r, 0, 5000)
	raw := number(t, pool, "SELECT sum(pg_column_size(d.*)) FROM run_log_deltas d")

	n, err := runlog.Retention{Pool: pool}.Fold(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.EqualValues(t, 12, number(t, pool, "SELECT count(*) FROM run_log_folds"))
	require.Less(t, 3*number(t, pool, "SELECT sum(pg_column_size(f.*)) FROM run_log_folds f"), raw)
	for _, cursor := range []int64{0, 1, 5, 255, 256, 257, 2999} {
		require.Equal(t, before[cursor:], all(t, pool, r, cursor, 100))
	}
}

func TestOnlyRunsThatHaveEndedFoldAndNotBeforeTheirTime(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	ended, live := runtest.Run(t, pool), runtest.Run(t, pool)
	p.Append(t, ended, reply(5)...)
	p.Append(t, live, delta("a"), delta("b"))

	n, err := runlog.Retention{Pool: pool, FoldAfter: time.Hour}.Fold(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = runlog.Retention{Pool: pool}.Fold(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.EqualValues(t, 2, number(t, pool, "SELECT count(*) FROM run_log_deltas"))
	p.Append(t, live, delta("c"))
	require.EqualValues(t, 4, verified(t, pool, live))
}

func TestVerifyFindsWhatWasDoneToAFold(t *testing.T) {
	t.Parallel()
	// The deltas are 5 to 9. Most of their hashes are not stored but follow from
	// what is, so what is wrong with all of them shows at the last.
	for name, c := range map[string]struct {
		tamper string
		seq    int64
	}{
		"a letter of the third delta": {`UPDATE run_log_folds SET payload = replace(payload::text, 'word2', 'word9')::json`, 7},
		"the part":                    {`UPDATE run_log_folds SET payload = replace(payload::text, 'text-1', 'text-2')::json`, 5},
		"the order":                   {`UPDATE run_log_folds SET payload = replace(payload::text, 'word1 word2', 'word2 word1')::json`, 6},
		"more text":                   {`UPDATE run_log_folds SET payload = replace(payload::text, 'word4', 'word4!')::json`, 9},
		"no delta at all":             {`UPDATE run_log_folds SET payload = '{}'`, 5},
		"a mark":                      {`UPDATE run_log_folds SET marks = set_byte(marks, 0, 5)`, 9},
		"marks cut off":               {`UPDATE run_log_folds SET marks = substr(marks, 1, 1)`, 5},
		"a content hash":              {`UPDATE run_log_folds SET content_hashes = set_byte(content_hashes, 64, 255 - get_byte(content_hashes, 64))`, 7},
		"the hash before":             {`UPDATE run_log_folds SET prev_hash = decode(repeat('00', 32), 'hex')`, 5},
		"a short hash before":         {`UPDATE run_log_folds SET prev_hash = ''`, 5},
		"the last hash":               {`UPDATE run_log_folds SET event_hash = decode(repeat('00', 32), 'hex')`, 9},
		"the type":                    {`UPDATE run_log_folds SET event_type = 'reasoning.delta'`, 9},
		"the version":                 {`UPDATE run_log_folds SET event_version = 0`, 5},
		"the place":                   {`UPDATE run_log_folds SET seq = seq + 1, first_seq = first_seq + 1`, 5},
		"gone":                        {`DELETE FROM run_log_folds`, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p := runtest.NewProcess(t, pool)
			r := runtest.Run(t, pool)
			p.Append(t, r, reply(5)...)
			_, err := runlog.Retention{Pool: pool}.Fold(t.Context())
			require.NoError(t, err)
			verified(t, pool, r)

			_, err = pool.Exec(t.Context(), c.tamper)
			require.NoError(t, err)
			_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
			var broken *runlog.ChainError
			require.ErrorAs(t, err, &broken)
			require.Equal(t, c.seq, broken.Seq, broken.Cause)
		})
	}
}

// What was tampered with before it was folded is found afterwards as before.
func TestFoldingHidesNoTampering(t *testing.T) {
	t.Parallel()
	for name, tamper := range map[string]string{
		"payload":      `UPDATE run_log_deltas SET payload = '{"delta":"x","part_id":"text-1"}' WHERE seq = 7`,
		"other form":   `UPDATE run_log_deltas SET payload = '{"part_id":"text-1", "delta":"word2 "}' WHERE seq = 7`,
		"content hash": `UPDATE run_log_deltas SET content_hash = decode(repeat('00', 32), 'hex') WHERE seq = 7`,
		"event hash":   `UPDATE run_log_deltas SET event_hash = decode(repeat('00', 32), 'hex') WHERE seq = 7`,
		"missing":      `DELETE FROM run_log_deltas WHERE seq = 7`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p := runtest.NewProcess(t, pool)
			r := runtest.Run(t, pool)
			p.Append(t, r, reply(5)...)
			_, err := pool.Exec(t.Context(), tamper)
			require.NoError(t, err)
			before := all(t, pool, r, 0, 100)
			_, err = runlog.Retention{Pool: pool}.Fold(t.Context())
			require.NoError(t, err)
			require.Equal(t, before, all(t, pool, r, 0, 100))
			_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
			var broken *runlog.ChainError
			require.ErrorAs(t, err, &broken)
			require.EqualValues(t, 7, broken.Seq)
		})
	}
}

func TestManyWhoFoldAtOnceFoldEachRunOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	var runs []db.Run
	for range 20 {
		runs = append(runs, runtest.Run(t, pool))
		p.Append(t, runs[len(runs)-1], reply(20)...)
	}
	var wg sync.WaitGroup
	counts := make([]int64, 4)
	for i := range counts {
		wg.Go(func() {
			n, err := runlog.Retention{Pool: pool}.Fold(t.Context())
			if err != nil {
				t.Error(err)
			}
			counts[i] = n
		})
	}
	wg.Wait()
	require.EqualValues(t, 20, counts[0]+counts[1]+counts[2]+counts[3])
	require.EqualValues(t, 20, number(t, pool, "SELECT count(*) FROM run_log_folds"))
	for _, r := range runs {
		verified(t, pool, r)
	}
}

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestAServerWhoseCommitsAreNotDurableIsRefused(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	url := dbtest.EmptyURL(t)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	defer pool.Close()
	_, err = pool.Exec(t.Context(), "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit TO off', current_database()); END $$")
	require.NoError(t, err)

	err = bench(t.Context(), []string{"-quick", "-database", url}, &out, io.Discard)
	require.ErrorContains(t, err, "= off, so that its commits are not durable")
	require.Empty(t, out.String())
}

func TestArgumentsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-rounds", "0"}, {"-seconds", "0"}, {"-only", "("}, {"more"}, {"-no-such"}} {
		require.Error(t, bench(t.Context(), args, io.Discard, io.Discard), "%v", args)
	}
}

func TestEachRowComparesCellsThatAreMeasured(t *testing.T) {
	t.Parallel()
	s := &subjects{plain: &plain{}, std: &process{}, lone: &process{}, reader: &child{}, posts: &poster{}}
	s.held = append(s.held, make([]*lease.Held, manyRuns)...)
	s.heldLone = append(s.heldLone, make([]*lease.Held, batchRuns)...)
	names := map[string]bool{}
	for _, c := range s.cells() {
		require.False(t, names[c.name], "%s comes twice", c.name)
		names[c.name] = true
	}
	rows, cells := chosen(table(), s.cells(), regexp.MustCompile(""))
	for _, r := range rows {
		require.True(t, names[r.ours] && (names[r.plain] || r.plain == ""), r.what)
	}
	require.Len(t, cells, len(names), "a cell is in no row")

	rows, cells = chosen(table(), s.cells(), regexp.MustCompile("start runs, 1 client"))
	require.Len(t, rows, 2)
	require.Len(t, cells, 2)
}

func TestARatioIsTheMedianOfTheRoundsRatios(t *testing.T) {
	t.Parallel()
	at := func(rates ...float64) (all []result) {
		for _, r := range rates {
			all = append(all, result{perSecond: r})
		}
		return all
	}
	report := markdown([]row{{what: "work", ours: "o", plain: "p", unit: perSecond, figure: rate, want: want{ratio, 1, 2}}},
		map[string][]result{"o": at(30, 1000, 1_234_567), "p": at(10, 2000, 1_000_000)}, "Here.")
	require.Contains(t, report, "| work | 1,000 | 2,000 | 1.23 (0.50–3.00) | /s, higher is better | 1 x | 2 x | floor |")
	require.Contains(t, report, "Here.")
	for _, r := range table() {
		require.Contains(t, r.unit, " is better", r.what)
		_, note, _ := strings.Cut(r.what, "[")
		n, _, _ := strings.Cut(note, "]")
		require.Contains(t, notes, "\n"+n+". ", "the note of %q", r.what)
	}
}

func TestLoadCountsWhatIsFinishedAndStopsAtAnError(t *testing.T) {
	t.Parallel()
	r, err := load(t.Context(), 2, 50*time.Millisecond, 10, func(context.Context, int) error {
		return nil
	})
	require.NoError(t, err)
	require.Positive(t, r.perSecond)
	require.False(t, math.IsInf(r.perSecond, 0))
	require.LessOrEqual(t, r.p50, r.p99)

	broken := errors.New("broken")
	_, err = load(t.Context(), 2, time.Hour, 1, func(context.Context, int) error {
		return broken
	})
	require.ErrorIs(t, err, broken)
}

func TestAGoalIsMetByTheNumberThatItIsFor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		want  want
		lower bool
		mark  string
	}{
		{want{ratio, 1.5, 2.5}, false, "floor"},
		{want{ratio, 1, 2}, false, "goal"},
		{want{ratio, 3, 4}, false, "**short**"},
		{want{ratio, 3, 2}, true, "goal"},
		{want{excess, 5, 1}, true, "floor"},
		{want{excess, 1, .5}, true, "**short**"},
		{want{itself, 8, 4}, true, "goal"},
		{want{}, true, ""},
	} {
		require.Equal(t, c.mark, c.want.mark(4, 2, 2, c.lower), "%+v", c)
	}
	require.Contains(t, want{ratio, 1, 2}.mark(math.NaN(), 2, math.NaN(), true), "not measured")
}

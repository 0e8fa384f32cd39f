package executor_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// within bounds a run's time.
func within(bound time.Duration) func(*run.Envelope) {
	return func(e *run.Envelope) { e.Limits = &run.Limits{MaxWallClockMs: bound.Milliseconds()} }
}

func lasted(t *testing.T, pool *pgxpool.Pool, r db.Run) time.Duration {
	t.Helper()
	var ms float64
	require.NoError(t, pool.QueryRow(t.Context(),
		`SELECT 1000 * extract(epoch FROM finished_at - started_at)::float8 FROM runs WHERE run_key = $1`, r.RunKey).Scan(&ms))
	return time.Duration(ms * float64(time.Millisecond))
}

// A run's time goes on while it waits for others, and nobody need come by for it
// to be over.
func TestARunThatWaitsHasItsTime(t *testing.T) {
	t.Parallel()
	for what, envelope := range map[string]run.Envelope{
		"approval": allowing(askPeople("test.echo")),
		"tool":     allowing(clientTools("ask_user")),
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			const bound = 2 * time.Second
			within(bound)(&envelope)
			pool := dbtest.New(t)
			asks := map[string]string{"approval": "test_echo", "tool": "ask_user"}[what]
			p := workWith(t, pool, model.NewScript(calls(asks, "a")), with(t, echo("test.echo")))
			r := runtest.Start(t, pool, envelope)
			p.Message(t, r, "f1", "Go.")
			waits(t, p, r, 1, what)
			end := finished(t, p, r)
			require.Equal(t, event.RunFinishedV1StatusFailed, end.Status)
			require.Equal(t, "max_wall_clock_exceeded", end.ReasonClass)
			settled(t, pool, r)
			require.GreaterOrEqual(t, lasted(t, pool, r), bound)
			require.Less(t, lasted(t, pool, r), bound+5*time.Second, "the tick is a fraction of a second")
			require.Len(t, states(t, pool, r), 1)
			require.Contains(t, states(t, pool, r)[0], "canceled run_ended")
			row, err := run.ByKey(t.Context(), pool, r.RunKey)
			require.NoError(t, err)
			require.Nil(t, row.DueAt)
		})
	}
}

// Who waits for the next message has no bound, and the run's time is told anew
// each time it begins to wait.
func TestARunThatWaitsForAMessageHasNoMoment(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := workWith(t, pool, model.NewScript(calls("ask_user", "a"), model.Say("Thanks.")), with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user"), within(time.Hour), func(e *run.Envelope) { e.KeepOpen = true }))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	row, err := run.ByKey(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	require.NotNil(t, row.DueAt)
	require.Equal(t, row.StartedAt.Add(time.Hour), *row.DueAt)
	result(t, p, r, "r1", all[event.ToolStartedV1](t, pool, r)[0].ToolCallID, "yes")
	waits(t, p, r, 2, "frame")
	row, err = run.ByKey(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	require.Nil(t, row.DueAt)
	require.False(t, row.Runnable)
}

package executor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// placed are an executor's tools with a runner whose places the test can take.
func placed(t *testing.T, tools ...tool.Tool) executor.Tools {
	t.Helper()
	all := with(t, tools...)
	all.Runner = tool.NewRunner(tool.Config{}, all.Catalog, telemetry.NewMetrics())
	return all
}

// parallel lets a run have so many calls at work.
func parallel(n int32) func(*run.Envelope) {
	return func(e *run.Envelope) { e.Limits = &run.Limits{MaxParallelTools: n} }
}

// fill takes all of a run's places that are free, and says how many there were.
func fill(tools executor.Tools, r db.Run, s tool.Spec, most int) (taken int, empty func()) {
	var all []func()
	for {
		release, ok := tools.Runner.Acquire(r.RunKey, r.Owner, s, most)
		if !ok {
			return len(all), func() {
				for _, release := range all {
					release()
				}
			}
		}
		all = append(all, release)
	}
}

func TestTheCallsOfAStepBeginInOneCommit(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	var pairs []string
	for i := range 20 {
		pairs = append(pairs, "test_echo", fmt.Sprint(i))
	}
	tools := placed(t, echo("test.echo"))
	p := workWith(t, pool, model.NewScript(calls(pairs...), model.Say("Done.")), tools)
	r := runtest.Start(t, pool, allowing(parallel(18)))
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Len(t, all[event.ToolStartedV1](t, pool, r), 20)
	var together int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM run_log
		WHERE run_key = $1 AND event_type = 'tool.started' GROUP BY xmin ORDER BY min(seq) LIMIT 1`, r.RunKey).Scan(&together))
	require.Equal(t, 16, together, "as many as one commit takes")
	free, _ := fill(tools, r, specOf("test.echo", tool.SafeRetry), 18)
	require.Equal(t, 18, free, "every place is given back")
}

// One of the calls is changed by somebody else each time when all are to begin:
// the others begin all the same, and each is made once.
func TestACallThatHasMovedDoesNotHoldTheOthersUp(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	_, err := pool.Exec(t.Context(), `
		CREATE SEQUENCE moves;
		CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF OLD.state = 'queued' AND NEW.state = 'running' AND NEW.input->>'text' = 'moves' AND nextval('moves') <= 6 THEN
				RETURN NULL; -- as if the row were not what the caller expects
			END IF;
			RETURN NEW;
		END $$;
		CREATE TRIGGER move BEFORE UPDATE ON tool_tasks FOR EACH ROW EXECUTE FUNCTION move()`)
	require.NoError(t, err)
	slow := echo("test.echo")
	tools := placed(t, slow)
	p := workWith(t, pool, model.NewScript(calls("test_echo", "a", "test_echo", "moves", "ask_user", "b", "test_echo", "c"), model.Say("Done.")), tools)
	r := runtest.Start(t, pool, allowing(parallel(3), clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	for _, e := range all[event.ToolRequestedV1](t, pool, r) {
		if e.ToolName == "ask_user" {
			result(t, p, r, "r1", e.ToolCallID, "yes")
		}
	}
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.ElementsMatch(t, []string{"test.echo succeeded", "test.echo succeeded", "test.echo succeeded", "ask_user succeeded"}, states(t, pool, r))
	require.Len(t, slow.made(), 3)
	for _, e := range all[event.ToolFinishedV1](t, pool, r) {
		require.EqualValues(t, 1, e.Attempts)
	}
	var moves int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT last_value FROM moves").Scan(&moves))
	require.Greater(t, moves, 6)
	free, _ := fill(tools, r, specOf("test.echo", tool.SafeRetry), 3)
	require.Equal(t, 3, free, "every place is given back")
}

// beforeTheStart does something when a session has looked at its run's head and
// is about to begin three calls that waited for room.
func beforeTheStart(t *testing.T, p *runtest.Process, tools executor.Tools, r db.Run, act func()) {
	t.Helper()
	taken, empty := fill(tools, r, specOf("test.echo", tool.SafeRetry), 3)
	require.Equal(t, 3, taken)
	p.Message(t, r, "f1", "Go.")
	until(t, p, r, "the calls are asked for", func() bool { return len(all[event.ToolRequestedV1](t, p.Pool, r)) == 3 })
	lock, err := p.Pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = lock.Exec(t.Context(), "LOCK TABLE tool_tasks IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	empty()
	until(t, p, r, "the session looks for its calls", func() bool { return waiting(t, p.Pool) })
	act()
	require.NoError(t, lock.Rollback(t.Context()))
}

// waiting says whether somebody waits for the lock on the calls.
func waiting(t *testing.T, pool *pgxpool.Pool) (waits bool) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'tool_tasks'::regclass AND NOT granted)").Scan(&waits))
	return waits
}

func TestACancelComesBeforeTheCallsBegin(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	unused := echo("test.echo")
	tools := placed(t, unused)
	p := workWith(t, pool, asking{}, tools)
	r := runtest.Start(t, pool, allowing(parallel(3)))
	other := runtest.NewProcess(t, pool)
	beforeTheStart(t, p, tools, r, func() {
		_, err := run.Cancel(t.Context(), other.Log, r, "test", "enough")
		require.NoError(t, err)
	})
	require.Equal(t, event.RunFinishedV1StatusCanceled, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Empty(t, all[event.ToolStartedV1](t, pool, r))
	require.Empty(t, unused.made())
	free, _ := fill(tools, r, unused.spec, 3)
	require.Equal(t, 3, free, "every place is given back")
}

// The lease is another's when the calls are to begin: none begins here, and each
// begins once there.
func TestCallsDoNotBeginUnderALostLease(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	unused, used := echo("test.echo"), echo("test.echo")
	tools := placed(t, unused)
	p, stop := beginWith(t, pool, asking{}, tools)
	t.Cleanup(stop)
	r := runtest.Start(t, pool, allowing(parallel(3)))
	beforeTheStart(t, p, tools, r, func() {
		runtest.Expire(t, pool, r)
		workWith(t, pool, asking{}, with(t, used))
		until(t, p, r, "another takes the run", func() bool {
			h, err := runlog.GetHead(t.Context(), pool, r.RunKey)
			require.NoError(t, err)
			return h.Epoch == 2
		})
	})
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Len(t, all[event.ToolStartedV1](t, pool, r), 3)
	require.Len(t, used.made(), 3)
	stop()
	require.Empty(t, unused.made())
	free, _ := fill(tools, r, unused.spec, 3)
	require.Equal(t, 3, free, "every place is given back")
}

// A step is over when its own calls are, whatever the API has at work beside them.
func TestACallOfTheAPIDoesNotHoldAStepUp(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	defer letGo()
	quick, quickBegun, quickLetGo := held("test.quick", tool.SafeRetry)
	defer quickLetGo()
	script := model.NewScript(calls("test_quick", "a"), model.Say("Done."))
	p := workWith(t, pool, script, with(t, slow, quick))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	<-quickBegun
	require.NoError(t, execute(t, p, r, "mine", "test.slow"))
	<-begun
	quickLetGo()
	until(t, p, r, "the next step is finished", func() bool { return len(all[event.RunStepFinishedV1](t, pool, r)) == 2 })
	var after time.Duration
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT max(inserted_at) FILTER (WHERE event_type = 'run.step_started') -
		max(inserted_at) FILTER (WHERE event_type = 'tool.finished') FROM run_log WHERE run_key = $1`, r.RunKey).Scan(&after))
	require.Less(t, after, 4*time.Second, "the next step begins as soon as the call has ended, not when the session looks again by itself")
	letGo()
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
}

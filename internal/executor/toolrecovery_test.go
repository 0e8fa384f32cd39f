package executor_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// The executor of a run is gone while a tool works. What may be done again is
// done again, under the same key; otherwise the provider is asked.
func TestATakeoverGoesOnWithACallAtWork(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		boundary  tool.Boundary
		asker     bool
		known     bool
		ends      string
		attempts  int64
		callsNext int
	}{
		"it may be made again":       {tool.SafeRetry, false, false, "test.slow succeeded", 2, 1},
		"its provider knows":         {tool.Reconcile, true, true, "test.slow succeeded", 1, 0},
		"its provider does not know": {tool.Reconcile, true, false, "test.slow failed outcome_unknown", 1, 0},
		"nobody can be asked":        {tool.Reconcile, false, false, "test.slow failed outcome_unknown", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			slow, begun, letGo := held("test.slow", c.boundary)
			t.Cleanup(letGo)
			p := workWith(t, pool, model.NewScript(calls("test_slow", "a")), with(t, slow), func(c *executor.Config) { c.ToolDrain = time.Millisecond })
			r := runtest.Start(t, pool, allowing())
			p.Message(t, r, "f1", "Go.")
			id := <-begun
			runtest.Expire(t, pool, r)

			again, _, letNext := held("test.slow", c.boundary)
			letNext()
			var next tool.Tool = again
			if c.asker {
				next = reconciling{made: again, known: c.known, result: tool.Result{Output: json.RawMessage(`"it was done"`)}}
			}
			script := model.NewScript(model.Say("Done."))
			q := workWith(t, pool, script, with(t, next))
			require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, q, r).Status)
			settled(t, pool, r)
			require.Equal(t, []string{c.ends}, states(t, pool, r))
			require.Len(t, again.made(), c.callsNext)
			if c.callsNext > 0 {
				require.Equal(t, slow.made()[0].IdempotencyKey, again.made()[0].IdempotencyKey)
				require.Equal(t, 2, again.made()[0].Attempt)
			}
			end := all[event.ToolFinishedV1](t, pool, r)[0]
			require.Equal(t, id, end.ToolCallID)
			require.Equal(t, c.attempts, end.Attempts)
			require.Len(t, toolMessages(script.Requests()[0]), 1)
		})
	}
}

// A drained process hands a call over that may be made again, and waits for one
// that must not.
func TestADrainedProcessHandsItsCallsOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		boundary tool.Boundary
		inTime   bool
		ends     string
	}{
		"it may be made again":           {tool.SafeRetry, false, "test.slow succeeded"},
		"it ends in time":                {tool.Reconcile, true, "test.slow succeeded"},
		"it must not, and ends too late": {tool.Reconcile, false, "test.slow failed outcome_unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			slow, begun, letGo := held("test.slow", c.boundary)
			t.Cleanup(letGo)
			p, stop := beginWith(t, pool, model.NewScript(calls("test_slow", "a")), with(t, slow), func(c *executor.Config) { c.ToolDrain = 300 * time.Millisecond })
			r := runtest.Start(t, pool, allowing())
			p.Message(t, r, "f1", "Go.")
			<-begun
			if c.inTime {
				letGo()
			}
			stop()
			again, _, letNext := held("test.slow", c.boundary)
			letNext()
			q := workWith(t, pool, model.NewScript(model.Say("Done.")), with(t, again))
			require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, q, r).Status)
			settled(t, pool, r)
			require.Equal(t, []string{c.ends}, states(t, pool, r))
			require.Empty(t, all[event.RunExecutorLostV1](t, pool, r), "a drained run is not lost")
		})
	}
}

// A run is taken over while a call is queued, because there is no room for it.
func TestATakeoverStartsWhatIsQueued(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	t.Cleanup(letGo)
	p := workWith(t, pool, model.NewScript(calls("test_slow", "a", "test_slow", "b")), with(t, slow))
	r := runtest.Start(t, pool, allowing(func(e *run.Envelope) { e.Limits = &run.Limits{MaxParallelTools: 1} }))
	p.Message(t, r, "f1", "Go.")
	<-begun
	runtest.Expire(t, pool, r)
	q := workWith(t, pool, model.NewScript(model.Say("Done.")), with(t, echo("test.slow")))
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, q, r).Status)
	settled(t, pool, r)
	require.Equal(t, []string{"test.slow succeeded", "test.slow succeeded"}, states(t, pool, r))
}

// What redaction took out of an input is known to the process that heard it
// alone: after a takeover the call is not made with other arguments.
func TestACallWithASecretIsNotMadeWithoutIt(t *testing.T) {
	t.Parallel()
	const secret = "sk-live-abcdefghijklmnopqrstuvwxyz0123456789ABCD"
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	t.Cleanup(letGo)
	p := workWith(t, pool, model.NewScript(calls("test_slow", "use "+secret)), with(t, slow))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	<-begun
	require.Contains(t, string(slow.made()[0].Input), secret, "the tool itself gets the whole input")
	runtest.Expire(t, pool, r)
	q := workWith(t, pool, model.NewScript(model.Say("Done.")), with(t, echo("test.slow")))
	finished(t, q, r)
	settled(t, pool, r)
	require.Equal(t, []string{"test.slow failed input_redacted"}, states(t, pool, r))
	var found int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM tool_tasks WHERE input::text LIKE '%sk-live-%') + (SELECT count(*) FROM run_log WHERE payload::text LIKE '%sk-live-%')").Scan(&found))
	require.Zero(t, found, "what is stored has no secret")
}

func TestATakeoverOfAWaitingRunTakesTheResult(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p, stop := beginWith(t, pool, model.NewScript(calls("ask_user", "a")), with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	stop()
	result(t, p, r, "r1", all[event.ToolStartedV1](t, pool, r)[0].ToolCallID, "yes")
	script := model.NewScript(model.Say("Done."))
	q := workWith(t, pool, script, with(t))
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, q, r).Status)
	settled(t, pool, r)
	require.Equal(t, []string{`"yes"`}, toolMessages(script.Requests()[0]))
}

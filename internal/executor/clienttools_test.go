package executor_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// waits waits until the run holds nothing and waits for something, with so many
// waitings in its log.
func waits(t *testing.T, p *runtest.Process, r db.Run, times int, what string) {
	t.Helper()
	until(t, p, r, "it waits for a "+what, func() bool {
		told := all[event.RunWaitingV1](t, p.Pool, r)
		return len(told) == times && string(told[times-1].WaitsFor) == what && released(t, p.Pool, r)
	})
}

func released(t *testing.T, pool *pgxpool.Pool, r db.Run) bool {
	t.Helper()
	l, err := db.New(pool).RunLeaseGet(t.Context(), r.RunKey)
	require.NoError(t, err)
	row, err := run.ByKey(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	return l.Released && !row.Runnable
}

func TestAClientToolHoldsNothingUntilItsResultComes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("ask_user", "a", "ask_user", "b"), model.Say("Thanks."))
	p := workWith(t, pool, script, with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	started := all[event.ToolStartedV1](t, pool, r)
	require.Len(t, started, 2)
	require.Equal(t, "client", started[0].Provider)

	// The results come in another order than the calls.
	result(t, p, r, "r2", started[1].ToolCallID, "second")
	waits(t, p, r, 2, "tool")
	require.Len(t, states(t, pool, r), 1)
	// The same frame again is the same frame.
	require.True(t, result(t, p, r, "r2", started[1].ToolCallID, "second").Replay)
	result(t, p, r, "r1", started[0].ToolCallID, "first")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Equal(t, []string{`"first"`, `"second"`}, toolMessages(script.Requests()[1]), "the model sees the order that it asked in")
	ends := all[event.ToolFinishedV1](t, pool, r)
	require.Equal(t, "r2", *ends[0].FrameID)
	require.Equal(t, "r1", *ends[1].FrameID)
	require.Len(t, all[event.FrameFinishedV1](t, pool, r), 3)
	require.Empty(t, all[event.ToolLateV1](t, pool, r))
	require.Len(t, all[event.RunWokenV1](t, pool, r), 2)
	require.EqualValues(t, "tool", all[event.RunWokenV1](t, pool, r)[0].Cause)
}

func TestAResultThatComesLateIsNoted(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("ask_user", "a"), model.Say("Thanks."), model.Say("Yes."))
	p := workWith(t, pool, script, with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user"), func(e *run.Envelope) { e.KeepOpen = true }))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	id := all[event.ToolStartedV1](t, pool, r)[0].ToolCallID
	result(t, p, r, "r1", id, "first")
	waits(t, p, r, 2, "frame")
	result(t, p, r, "r2", id, "again")
	until(t, p, r, "the late frame is finished", func() bool { return len(all[event.FrameFinishedV1](t, pool, r)) == 3 })
	late := all[event.ToolLateV1](t, pool, r)
	require.Len(t, late, 1)
	require.Equal(t, "r2", *late[0].FrameID)
	require.Equal(t, 2, script.Calls(), "no model is asked")

	// A result of a call that nobody knows is a frame like any other.
	result(t, p, r, "r3", "call_of_nobody", "odd")
	until(t, p, r, "it is answered", func() bool { return len(all[event.FrameFinishedV1](t, pool, r)) == 4 })
	require.Equal(t, 3, script.Calls())
	_, err := run.Cancel(t.Context(), p.Log, r, "test", "")
	require.NoError(t, err)
	finished(t, p, r)
	settled(t, pool, r)
}

func TestAClientsErrorAndSilenceAreOutcomes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("ask_user", "a", "ask_user", "b"), model.Say("Well."))
	p := workWith(t, pool, script, with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	ids := all[event.ToolStartedV1](t, pool, r)
	payload, err := json.Marshal(map[string]any{"toolCallId": ids[0].ToolCallID, "errorText": "no such user"})
	require.NoError(t, err)
	_, err = run.AppendFrame(t.Context(), pool, p.Log, r, run.Frame{FrameID: "r1", Type: "tool_result", Payload: payload})
	require.NoError(t, err)
	waits(t, p, r, 2, "tool")
	_, err = pool.Exec(t.Context(), "UPDATE tool_tasks SET deadline_at = clock_timestamp() - interval '1 second' WHERE finished_at IS NULL")
	require.NoError(t, err)
	n, err := tool.Overdue(t.Context(), pool)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	finished(t, p, r)
	settled(t, pool, r)
	require.Equal(t, []string{"ask_user failed client_error", "ask_user timed_out timeout"}, states(t, pool, r))
	require.Contains(t, toolMessages(script.Requests()[1])[0], "no such user")
}

func TestAnInterruptReachesARunThatWaitsForAClient(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("ask_user", "a"), model.Say("Well."))
	p := workWith(t, pool, script, with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	// A message that only waits its turn moves nothing.
	p.Message(t, r, "f2", "Later.")
	until(t, p, r, "the run was looked at and waits again", func() bool { return released(t, pool, r) })
	require.Equal(t, 1, script.Calls())
	stop := runtest.UserMessage("f3", "Never mind.")
	stop.Mode = run.Interrupt
	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, stop)
	require.NoError(t, err)
	finished(t, p, r)
	settled(t, pool, r)
	require.Equal(t, []string{"ask_user canceled interrupted"}, states(t, pool, r))
	require.Equal(t, []model.Role{"system", "user", "assistant", "tool", "user", "user"}, roles(script.Requests()[1].Messages))
}

func TestACancelReachesARunThatWaitsForAClient(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := workWith(t, pool, model.NewScript(calls("ask_user", "a")), with(t))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "tool")
	_, err := run.Cancel(t.Context(), p.Log, r, "test", "enough")
	require.NoError(t, err)
	require.Equal(t, event.RunFinishedV1StatusCanceled, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Equal(t, []string{"ask_user canceled run_ended"}, states(t, pool, r))
}

// execute asks for a call as the API does: a frame with the call beside it.
func execute(t *testing.T, p *runtest.Process, r db.Run, callID, name string) error {
	t.Helper()
	input := json.RawMessage(`{"text":"x"}`)
	of, err := tool.PolicyRun(r)
	require.NoError(t, err)
	spec := specOf(name, tool.SafeRetry)
	e, err := policy.Decide(policy.Default().Input(of, spec.Asked(), policy.Call{ArgsHash: tool.ParamsHash(input), At: time.Now()}))
	require.NoError(t, err)
	require.Equal(t, policy.Allowed, e.Decision)
	requested, err := tool.Requested(tool.Request{Run: r, ToolCallID: callID, Spec: spec, Input: input, RequestedBy: "api", FrameID: "tool:" + callID}, e, "")
	require.NoError(t, err)
	payload, err := json.Marshal(map[string]any{"toolCallId": callID, "tool": name, "input": input})
	require.NoError(t, err)
	_, err = run.AppendFrame(t.Context(), p.Pool, p.Log, r, run.Frame{FrameID: "tool:" + callID, Type: "tool_request", Payload: payload,
		With: func(runlog.Head) (runlog.Change, error) { return requested, nil }})
	return err
}

func TestTheAPIsCallsRunWithoutAModel(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript()
	p := workWith(t, pool, script, with(t, echo("test.echo")))
	r := runtest.Start(t, pool, allowing())
	require.NoError(t, execute(t, p, r, "mine", "test.echo"))
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Zero(t, script.Calls())
	require.Equal(t, []string{"test.echo succeeded"}, states(t, pool, r))
	types := runtest.Types(t, pool, r)
	require.Equal(t, 1, count(types, event.TypeRunStarted))
}

func count(types []string, of string) (n int) {
	for _, s := range types {
		if s == of {
			n++
		}
	}
	return n
}

// A call of the API runs while the model speaks, and the run does not complete
// before it.
func TestTheAPIsCallsRunBesideTheModel(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	defer letGo()
	speaks := make(chan struct{})
	answer := model.Say("Hello.")
	answer.Wait = speaks
	script := model.NewScript(answer)
	p := workWith(t, pool, script, with(t, slow), func(c *executor.Config) { c.Tick = time.Hour })
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Hi")
	p.WaitFor(t, r, event.TypeRunStepStarted)
	require.NoError(t, execute(t, p, r, "mine", "test.slow"))
	<-begun
	close(speaks)
	until(t, p, r, "both frames are finished", func() bool { return len(all[event.FrameFinishedV1](t, pool, r)) == 2 })
	require.Empty(t, all[event.RunFinishedV1](t, pool, r))
	letGo()
	finished(t, p, r)
	settled(t, pool, r)
	require.Equal(t, 1, script.Calls())
}

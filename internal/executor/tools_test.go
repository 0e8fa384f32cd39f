package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

func TestTheModelSeesWhatItsToolCallsCameTo(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("test_echo", "one", "test_echo", "two"), calls("test_echo", "three"), model.Say("Done."))
	p := workWith(t, pool, script, with(t, echo("test.echo")))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)

	asked := script.Requests()
	require.Len(t, asked, 3)
	require.Equal(t, "test_echo", asked[0].Tools[0].Name)
	require.Equal(t, []string{`{"text":"one"}`, `{"text":"two"}`}, toolMessages(asked[1]))
	require.Equal(t, []string{`{"text":"one"}`, `{"text":"two"}`, `{"text":"three"}`}, toolMessages(asked[2]))
	last := asked[2].Messages
	require.Equal(t, "Go.", last[1].Content)
	require.Equal(t, []model.Role{"system", "user", "assistant", "tool", "tool", "assistant", "tool"}, roles(last))
	for i, at := range []int{3, 4} {
		require.Equal(t, last[2].ToolCalls[i].ID, last[at].ToolCallID)
		require.Equal(t, "test_echo", last[2].ToolCalls[i].Name)
	}
	steps := all[event.RunStepFinishedV1](t, pool, r)
	require.Len(t, steps, 3)
	require.EqualValues(t, "tool-calls", steps[0].FinishReason)
	require.EqualValues(t, "stop", steps[2].FinishReason)
	require.Len(t, all[event.FrameFinishedV1](t, pool, r), 1, "the frame is answered once, by the last step")
	require.Len(t, all[event.PolicyDecisionV1](t, pool, r), 3)
	var documents int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM ds_policy_evaluations").Scan(&documents))
	require.NotZero(t, documents)
}

func roles(messages []model.Message) []model.Role {
	var out []model.Role
	for _, m := range messages {
		out = append(out, m.Role)
	}
	return out
}

func TestTheCallsOfAStepRunBesideOneAnother(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	defer letGo()
	script := model.NewScript(calls("test_slow", "a", "test_slow", "b", "test_slow", "c"), model.Say("Done."))
	p := workWith(t, pool, script, with(t, slow))
	r := runtest.Start(t, pool, allowing(func(e *run.Envelope) { e.Limits = &run.Limits{MaxParallelTools: 2} }))
	p.Message(t, r, "f1", "Go.")
	<-begun
	<-begun
	until(t, p, r, "two are started", func() bool { return len(all[event.ToolStartedV1](t, pool, r)) == 2 })
	letGo()
	finished(t, p, r)
	settled(t, pool, r)
	require.Len(t, slow.made(), 3)
	require.Len(t, toolMessages(script.Requests()[1]), 3)
}

// What the model asks for in vain is told to it, and the run goes on.
func TestACallThatCannotBeMadeIsToldToTheModel(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	refused := echo("test.denied")
	script := model.NewScript(
		model.Turn{Events: []model.Event{
			{Kind: model.TextDelta, Delta: "I try."},
			{Kind: model.CallsTool, ToolCall: &model.ToolCall{ID: "1", Name: "test_denied", Arguments: json.RawMessage(`{"text":"x"}`)}},
			{Kind: model.CallsTool, ToolCall: &model.ToolCall{ID: "2", Name: "nothing.like.it", Arguments: json.RawMessage(`{}`)}},
			{Kind: model.CallsTool, ToolCall: &model.ToolCall{ID: "3", Name: "test_echo", Arguments: json.RawMessage(`{"text":3}`)}},
		}}, model.Say("I give up."))
	p := workWith(t, pool, script, with(t, echo("test.echo"), refused))
	r := runtest.Start(t, pool, allowing(func(e *run.Envelope) { e.ToolPolicy = json.RawMessage(`{"allow":["*"],"deny":["test.denied"]}`) }))
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Equal(t, []string{
		"test.denied failed policy_denied", "nothing.like.it failed tool_not_found", "test.echo failed tool_input_invalid",
	}, states(t, pool, r))
	require.Empty(t, refused.made())
	require.Len(t, script.Requests()[0].Tools, 1, "what is denied is not offered")
	told := toolMessages(script.Requests()[1])
	require.Len(t, told, 3)
	require.Contains(t, told[0], "policy_denied")
	require.Contains(t, told[2], "tool_input_invalid")
}

// A tool that panics, hangs or fails harms neither its run nor another.
func TestABrokenToolHarmsNobody(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	never := make(chan struct{})
	defer close(never)
	broken := &made{spec: specOf("test.broken", tool.SafeRetry), do: func(_ context.Context, c tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
		var in struct{ Text string }
		if err := json.Unmarshal(c.Input, &in); err != nil {
			return tool.Result{}, err
		}
		switch in.Text {
		case "panic":
			panic("as asked")
		case "hang":
			<-never
		}
		return tool.Result{}, &tool.Error{Class: "odd", Message: "It does not work."}
	}}
	broken.spec.Timeout = 100 * time.Millisecond
	script := model.NewScript(calls("test_broken", "panic", "test_broken", "hang", "test_broken", "fail"), model.Say("Well."))
	p := workWith(t, pool, script, with(t, broken))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.ElementsMatch(t, []string{"test.broken failed panic", "test.broken timed_out timeout", "test.broken failed odd"}, states(t, pool, r))
}

func TestACapOnToolCallsEndsTheRun(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := workWith(t, pool, model.NewScript(calls("test_echo", "a"), calls("test_echo", "b", "test_echo", "c")), with(t, echo("test.echo")))
	r := runtest.Start(t, pool, allowing(func(e *run.Envelope) { e.Limits = &run.Limits{MaxToolCalls: 2} }))
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, "max_tool_calls_exceeded", finished(t, p, r).ReasonClass)
	settled(t, pool, r)
	require.Len(t, all[event.ToolRequestedV1](t, pool, r), 1)
}

func TestACancelEndsTheCallsAtWork(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	defer letGo()
	p := workWith(t, pool, model.NewScript(calls("test_slow", "a", "ask_user", "b")), with(t, slow))
	other := runtest.NewProcess(t, pool)
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	<-begun
	_, err := run.Cancel(t.Context(), other.Log, r, "test", "enough")
	require.NoError(t, err)
	require.Equal(t, event.RunFinishedV1StatusCanceled, finished(t, p, r).Status)
	settled(t, pool, r)
	require.ElementsMatch(t, []string{"test.slow canceled run_ended", "ask_user canceled run_ended"}, states(t, pool, r))
}

func TestAnInterruptEndsTheCallsAndIsAnswered(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	defer letGo()
	script := model.NewScript(calls("test_slow", "a", "ask_user", "b"), model.Say("Stopped."))
	p := workWith(t, pool, script, with(t, slow))
	r := runtest.Start(t, pool, allowing(clientTools("ask_user")))
	p.Message(t, r, "f1", "Go.")
	<-begun
	stop := runtest.UserMessage("f2", "Stop that.")
	stop.Mode = run.Interrupt
	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, stop)
	require.NoError(t, err)
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.ElementsMatch(t, []string{"test.slow canceled interrupted", "ask_user canceled interrupted"}, states(t, pool, r))
	last := script.Requests()[1].Messages
	require.Equal(t, []model.Role{"system", "user", "assistant", "tool", "tool", "user"}, roles(last))
	require.Equal(t, "Stop that.", last[5].Content)
	require.Len(t, all[event.FrameFinishedV1](t, pool, r), 2)
}

// A message that steers while tools work is answered by the step after them.
func TestAMessageSteersTheStepAfterTheTools(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	slow, begun, letGo := held("test.slow", tool.SafeRetry)
	defer letGo()
	script := model.NewScript(calls("test_slow", "a"), model.Say("Both."))
	p := workWith(t, pool, script, with(t, slow))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	<-begun
	more := runtest.UserMessage("f2", "In French.")
	more.Mode = run.Steer
	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, more)
	require.NoError(t, err)
	letGo()
	finished(t, p, r)
	settled(t, pool, r)
	require.Equal(t, 2, script.Calls())
	require.Equal(t, []model.Role{"system", "user", "assistant", "tool", "user"}, roles(script.Requests()[1].Messages))
	require.Equal(t, []string{"test.slow succeeded"}, states(t, pool, r))
}

func TestProgressIsInTheLog(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	telling := &made{spec: specOf("test.tell", tool.SafeRetry), do: func(_ context.Context, _ tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
		return tool.Result{Output: json.RawMessage(`2`)}, progress(json.RawMessage(`1`))
	}}
	p := workWith(t, pool, model.NewScript(calls("test_tell", "a"), model.Say("Done.")), with(t, telling))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	finished(t, p, r)
	settled(t, pool, r)
}

// The calls of earlier turns are told as lines; those of the open one are not.
func TestEarlierCallsAreReplayedAsLines(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("test_echo", "one"), model.Say("First."), calls("test_echo", "two"), model.Say("Second."), model.Say("Third."))
	p := workWith(t, pool, script, with(t, echo("test.echo")))
	first := allowing()
	r := runtest.Start(t, pool, first)
	p.Message(t, r, "f1", "Go.")
	finished(t, p, r)
	require.Empty(t, all[event.ToolReplayedV1](t, pool, r))

	second := allowing(func(e *run.Envelope) { e.ThreadID, e.KeepOpen = first.ThreadID, true })
	r = runtest.Start(t, pool, second)
	p.Message(t, r, "f1", "Again.")
	waitAnswered(t, p, r, 1)
	p.Message(t, r, "f2", "And?")
	waitAnswered(t, p, r, 2)
	told := all[event.ToolReplayedV1](t, pool, r)
	require.Len(t, told, 3)
	require.Len(t, told[0].Lines, 1)
	require.Equal(t, told[0].Lines, told[1].Lines, "the open turn's calls are messages")
	require.Len(t, told[2].Lines, 2)
	require.Contains(t, told[2].Lines[0], `one`)
	require.Contains(t, told[2].Lines[1], `two`)
	require.Contains(t, script.Requests()[4].Messages[0].Content, told[2].Lines[1])
	require.Equal(t, []model.Role{"system", "user", "assistant", "user", "assistant", "user"}, roles(script.Requests()[4].Messages))
}

func TestReplayLinesKeepTheNewestAndEachToolsLastFailure(t *testing.T) {
	t.Parallel()
	var tasks []db.ToolTask
	for i := range 30 {
		task := db.ToolTask{
			ToolCallID: fmt.Sprintf("call_%02d", 30-i), ToolName: "test.a", State: tool.Succeeded,
			Input: json.RawMessage(`{"n":1}`), Output: json.RawMessage(`"ok"`), QueuedAt: time.Unix(int64(3000-i), 0),
		}
		if i == 25 {
			class := "timeout"
			task.ToolName, task.State, task.ErrorClass = "test.b", tool.TimedOut, &class
		}
		tasks = append(tasks, task)
	}
	lines, omitted := executor.Lines(tasks, executor.Replay{Items: 5, Preview: 100, Bytes: 3500})
	require.EqualValues(t, 25, omitted)
	require.Len(t, lines, 6)
	require.Equal(t, `{"omitted":25}`, lines[0])
	require.Contains(t, lines[1], "call_05")
	require.Contains(t, lines[2], "call_27")
	require.Contains(t, lines[5], "call_30")
	for most := range 1200 {
		lines, _ := executor.Lines(tasks, executor.Replay{Items: 20, Preview: 100, Bytes: most})
		if size := len(joined(lines)) + 1; len(lines) > 1 {
			require.LessOrEqual(t, size, most)
		}
	}
}

// A run whose tool calls go round is warned and ended.
func TestToolCallsThatGoRoundEndTheRun(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	var turns []model.Turn
	for range 40 {
		turns = append(turns, calls("test_echo", "again"))
	}
	p := workWith(t, pool, model.NewScript(turns...), with(t, echo("test.echo")))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, "loop_detected", finished(t, p, r).ReasonClass)
	settled(t, pool, r)
	require.Len(t, all[event.ToolStartedV1](t, pool, r), 20)
}

func TestAHundredRunsUseToolsAtOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := workWith(t, pool, asking{}, with(t, echo("test.echo")))
	var runs []db.Run
	for range 100 {
		r := runtest.Start(t, pool, allowing())
		p.Message(t, r, "f1", "Go.")
		runs = append(runs, r)
	}
	for _, r := range runs {
		require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
		settled(t, pool, r)
		require.Len(t, states(t, pool, r), 3)
	}
}

// asking asks for three tools, then answers.
type asking struct{ tools []string }

func (asking) Info() model.Info { return model.Info{Provider: "asking", Model: "asking"} }

func (a asking) Stream(_ context.Context, q model.Request, emit func(model.Event) error) (model.Result, error) {
	if last := q.Messages[len(q.Messages)-1]; last.Role == model.RoleTool {
		return model.Result{Text: "Done.", FinishReason: model.FinishStop}, emit(model.Event{Kind: model.TextDelta, Delta: "Done."})
	}
	names := a.tools
	if names == nil {
		names = []string{"test_echo", "test_echo", "test_echo"}
	}
	var asked []model.ToolCall
	for i, name := range names {
		asked = append(asked, model.ToolCall{ID: fmt.Sprint(i), Name: name, Arguments: json.RawMessage(`{"text":"x"}`)})
		if err := emit(model.Event{Kind: model.CallsTool, ToolCall: &asked[i]}); err != nil {
			return model.Result{}, err
		}
	}
	return model.Result{ToolCalls: asked, FinishReason: model.FinishToolCalls}, nil
}

// A model's call that comes too often ends at once, and the model is told when to
// come again.
func TestAModelIsHeldToTheRateOfAProvider(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	asked := echo("test.echo")
	tools := with(t, asked)
	tools.Rates = tool.Rates{Pool: pool, Of: func(context.Context, string, tool.Spec) (int, bool, error) { return 2, true, nil }}
	script := model.NewScript(calls("test_echo", "a", "test_echo", "b", "test_echo", "c"), model.Say("Done."))
	p := workWith(t, pool, script, tools)
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	settled(t, pool, r)
	require.Len(t, asked.made(), 2)
	require.Equal(t, "test.echo failed policy_denied", states(t, pool, r)[0])
	require.Regexp(t, `policy_denied.rate_limited\. It may be asked for again in [1-6][0-9]? seconds`, toolMessages(script.Requests()[1])[2])
	decisions := all[event.PolicyDecisionV1](t, pool, r)
	require.Len(t, decisions, 3)
	require.Equal(t, "policy_denied.rate_limited", decisions[2].ReasonCode)
	require.Positive(t, *decisions[2].RetryAfterMs)
	require.Nil(t, decisions[0].RetryAfterMs)
}

package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// obeying asks for the tools that the newest message names, then answers.
type obeying struct{}

func (obeying) Info() model.Info { return model.Info{Provider: "obeying", Model: "obeying"} }

func (obeying) Stream(ctx context.Context, q model.Request, emit func(model.Event) error) (model.Result, error) {
	last := q.Messages[len(q.Messages)-1]
	names, found := strings.CutPrefix(last.Content, "use ")
	if last.Role != model.RoleUser || !found {
		return always{}.Stream(ctx, q, emit)
	}
	return asking{tools: strings.Fields(names)}.Stream(ctx, model.Request{Messages: []model.Message{{}}}, emit)
}

// In whatever order frames, results, decisions, calls of the API, takeovers and
// cancels come: every accepted frame is finished once and in order, every call
// ends once, nobody is asked at the end, and the run ends once.
func TestWhateverHappensEveryCallEndsOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	tools := func() executor.Tools {
		return with(t, echo("test.echo"), echo("test.guarded"), &made{spec: specOf("test.once", tool.Reconcile), do: echo("x").do})
	}
	quick := func(c *executor.Config) { c.ToolDrain, c.Limits.MaxSteps, c.MaxLosses = time.Millisecond, 0, 1000 }
	one := workWith(t, pool, obeying{}, tools(), quick)
	workWith(t, pool, obeying{}, tools(), quick)
	rapid.Check(t, func(rt *rapid.T) {
		e := allowing(askPeople("test.guarded"), clientTools("ask_user"))
		e.KeepOpen = rapid.Bool().Draw(rt, "keep open")
		r := runtest.Start(t, pool, e)
		w := &world{t: t, p: one, r: r}
		for i := range rapid.IntRange(1, 8).Draw(rt, "acts") {
			w.act(i, rapid.SampledFrom([]string{
				"message", "message", "steer", "interrupt", "result", "result", "approve", "reject", "execute", "takeover", "strange result",
			}).Draw(rt, "act"), rapid.SampledFrom([]string{
				"hello", "use test_echo", "use ask_user", "use test_guarded", "use ask_user test_echo test_guarded test_once", "use nothing",
			}).Draw(rt, "text"))
		}
		canceled := rapid.Bool().Draw(rt, "cancel")
		if canceled || e.KeepOpen {
			_, err := run.Cancel(t.Context(), one.Log, r, "test", "")
			require.NoError(rt, err)
		}
		until(t, one, r, "the run ends", func() bool {
			if len(all[event.RunFinishedV1](t, pool, r)) > 0 {
				return true
			}
			w.act(100, "result", "")
			w.act(101, "approve", "")
			if w.frames == 0 {
				w.act(102, "message", "hello")
			}
			return false
		})
		settled(t, pool, r)
		end := all[event.RunFinishedV1](t, pool, r)[0]
		if end.Status == event.RunFinishedV1StatusCompleted {
			require.Len(rt, all[event.FrameFinishedV1](t, pool, r), len(all[event.FrameAppendedV1](t, pool, r)), "every accepted frame is finished")
		}
	})
}

// world does things to one run.
type world struct {
	t      *testing.T
	p      *runtest.Process
	r      db.Run
	frames int
}

func (w *world) act(i int, act, text string) {
	w.t.Helper()
	switch act {
	case "message", "steer", "interrupt":
		f := runtest.UserMessage(fmt.Sprint("f", i), text)
		f.Mode = map[string]run.Mode{"message": run.Enqueue, "steer": run.Steer, "interrupt": run.Interrupt}[act]
		w.append(f)
	case "result", "strange result":
		for n, id := range w.openClientCalls() {
			if act == "strange result" {
				id = "call_" + strings.Repeat("0", 24)
			}
			payload, err := json.Marshal(map[string]any{"toolCallId": id, "output": "yes"})
			require.NoError(w.t, err)
			w.append(run.Frame{FrameID: fmt.Sprint("r", i, "-", n, "-", id), Type: "tool_result", Payload: payload})
		}
	case "approve", "reject":
		state := map[string]string{"approve": approval.Approved, "reject": approval.Rejected}[act]
		asked, err := approval.OfRun(w.t.Context(), w.p.Pool, w.r.RunKey)
		require.NoError(w.t, err)
		for _, a := range asked {
			if a.State != approval.Pending {
				continue
			}
			_, _, err := approval.Decide(w.t.Context(), w.p.Pool, w.p.Log, a.ApprovalID,
				approval.Decider{Owner: run.Owner(w.r.Owner), Actor: "test"}, approval.Decision{State: state})
			var closed *approval.ClosedError
			if err != nil && !errors.As(err, &closed) {
				require.NoError(w.t, err)
			}
		}
	case "execute":
		w.accepted(execute(w.t, w.p, w.r, fmt.Sprint("mine-", i), "test.echo"))
	case "takeover":
		runtest.Expire(w.t, w.p.Pool, w.r)
	}
}

func (w *world) append(f run.Frame) {
	_, err := run.AppendFrame(w.t.Context(), w.p.Pool, w.p.Log, w.r, f)
	w.accepted(err)
}

// accepted counts a frame that the run took.
func (w *world) accepted(err error) {
	var refused *fault.Error
	if errors.As(err, &refused) && refused.Code == api.RunFinished {
		return
	}
	require.NoError(w.t, err)
	w.frames++
}

func (w *world) openClientCalls() (ids []string) {
	open, err := tool.OpenTasks(w.t.Context(), w.p.Pool, w.r.RunKey)
	require.NoError(w.t, err)
	for _, t := range open {
		if t.Kind == string(tool.Client) && t.State != tool.Queued {
			ids = append(ids, t.ToolCallID)
		}
	}
	return ids
}

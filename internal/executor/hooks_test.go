package executor_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// Hooks are asked at their phases, change what they may, and what they do wrong
// ends nothing.
func TestHooksAreAskedAndVisible(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	var mu sync.Mutex
	var phases []hook.Phase
	over := make(chan hook.Event, 1)
	note := func(answer hook.Result, err error) hook.Handler {
		return func(_ context.Context, e hook.Event) (hook.Result, error) {
			mu.Lock()
			defer mu.Unlock()
			if phases = append(phases, e.Phase); e.Phase == hook.AfterRun {
				over <- e
			}
			return answer, err
		}
	}
	var hooks []hook.Hook
	for _, phase := range []hook.Phase{hook.BeforeRun, hook.AfterStep, hook.AfterToolCall, hook.AfterRun} {
		hooks = append(hooks, hook.Hook{ID: "h", Phase: phase, Handle: note(nil, errors.New("odd"))})
	}
	hooks = append(hooks,
		hook.Hook{ID: "h", Phase: hook.BeforeStep, Handle: note(hook.Result{"prepend_context": "It is Monday.", "system_prompt": "Be kind."}, nil)},
		hook.Hook{ID: "h", Phase: hook.BeforeToolCall, Handle: note(hook.Result{"input": map[string]any{"text": "changed"}}, nil)})
	registry, err := hook.NewRegistry(hooks...)
	require.NoError(t, err)
	guarded := echo("test.echo")
	tools := with(t, guarded)
	tools.Hooks = registry
	script := model.NewScript(calls("test_echo", "given"), model.Say("Done."))
	p := workWith(t, pool, script, tools)
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	require.Equal(t, "completed", (<-over).Status)
	settled(t, pool, r)

	require.JSONEq(t, `{"text":"changed"}`, string(guarded.made()[0].Input))
	first := script.Requests()[0].Messages
	require.Equal(t, "Be kind.", first[0].Content)
	require.Equal(t, "It is Monday.\n\nGo.", first[1].Content)
	mu.Lock()
	defer mu.Unlock()
	require.ElementsMatch(t, []hook.Phase{
		hook.BeforeRun, hook.BeforeStep, hook.BeforeToolCall, hook.AfterStep, hook.AfterToolCall, hook.BeforeStep, hook.AfterStep, hook.AfterRun,
	}, phases)
	require.Len(t, all[event.RunHookAppliedV1](t, pool, r), 3)
	require.Len(t, all[event.RunHookErrorV1](t, pool, r), 3, "before_run, after_step and after_tool_call; the run takes nothing after its end")
	types := runtest.Types(t, pool, r)
	require.Equal(t, []string{"run.finished", "stream.closed"}, types[len(types)-2:])
}

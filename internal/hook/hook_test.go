package hook_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
)

func says(id string, phase hook.Phase, priority int64, answer hook.Result) hook.Hook {
	return hook.Hook{ID: id, Phase: phase, Priority: priority, Handle: func(context.Context, hook.Event) (hook.Result, error) { return answer, nil }}
}

func TestHigherPrioritiesWinAndContextsFollowOneAnother(t *testing.T) {
	t.Parallel()
	r, err := hook.NewRegistry(
		says("low", hook.BeforeStep, 1, hook.Result{"system_prompt": "low", "prepend_context": "second"}),
		says("b", hook.BeforeStep, 5, hook.Result{"prepend_context": "first b"}),
		says("a", hook.BeforeStep, 5, hook.Result{"system_prompt": "high", "prepend_context": "first a"}),
		says("quiet", hook.BeforeStep, 9, nil),
		says("in low", hook.BeforeToolCall, 1, nil), // refused: its id has a space
	)
	require.ErrorContains(t, err, "in low")
	answer, told := r.Ask(t.Context(), hook.Event{Phase: hook.BeforeStep})
	require.Equal(t, "high", answer.Text("system_prompt"))
	require.Equal(t, "first a\n\nfirst b\n\nsecond", answer.Text("prepend_context"))
	require.Equal(t, []event.Event{
		event.RunHookAppliedV1{HookID: "a", Phase: "before_step", Priority: 5, ResultKeys: []string{"prepend_context", "system_prompt"}},
		event.RunHookAppliedV1{HookID: "b", Phase: "before_step", Priority: 5, ResultKeys: []string{"prepend_context"}},
		event.RunHookAppliedV1{HookID: "low", Phase: "before_step", Priority: 1, ResultKeys: []string{"prepend_context", "system_prompt"}},
	}, told)
}

func TestMembersOfAnInputAreMergedByPriority(t *testing.T) {
	t.Parallel()
	r, err := hook.NewRegistry(
		says("low", hook.BeforeToolCall, 1, hook.Result{"input": map[string]any{"a": "low", "b": "low"}}),
		says("high", hook.BeforeToolCall, 2, hook.Result{"input": map[string]any{"a": "high"}}),
	)
	require.NoError(t, err)
	answer, told := r.Ask(t.Context(), hook.Event{Phase: hook.BeforeToolCall, ToolCallID: "call_1"})
	require.Equal(t, map[string]any{"a": "high", "b": "low"}, answer.Input())
	require.Equal(t, "call_1", *told[0].(event.RunHookAppliedV1).ToolCallID)
}

func TestABrokenHookIsToldAndChangesNothing(t *testing.T) {
	t.Parallel()
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for name, c := range map[string]struct {
		handle hook.Handler
		class  event.RunHookErrorV1ErrorClass
	}{
		"fails": {func(context.Context, hook.Event) (hook.Result, error) {
			return hook.Result{"system_prompt": "x"}, errors.New("odd")
		}, "failed"},
		"panics": {func(context.Context, hook.Event) (hook.Result, error) { panic("odd") }, "panic"},
		"hangs":  {func(context.Context, hook.Event) (hook.Result, error) { <-never; return nil, nil }, "timeout"},
		"strange key": {func(context.Context, hook.Event) (hook.Result, error) {
			return hook.Result{"event_type": "run.finished", "system_prompt": "x"}, nil
		}, "invalid_result"},
		"strange value": {func(context.Context, hook.Event) (hook.Result, error) { return hook.Result{"system_prompt": 3}, nil }, "invalid_result"},
		"too long": {func(context.Context, hook.Event) (hook.Result, error) {
			return hook.Result{"system_prompt": strings.Repeat("x", hook.MaxText+1)}, nil
		}, "invalid_result"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := hook.NewRegistry(
				hook.Hook{ID: "bad", Phase: hook.BeforeStep, Priority: 2, Timeout: 50 * time.Millisecond, Handle: c.handle},
				says("good", hook.BeforeStep, 1, hook.Result{"system_prompt": "good"}))
			require.NoError(t, err)
			answer, told := r.Ask(t.Context(), hook.Event{Phase: hook.BeforeStep})
			require.Equal(t, "good", answer.Text("system_prompt"))
			require.Len(t, told, 2)
			require.Equal(t, c.class, told[0].(event.RunHookErrorV1).ErrorClass)
			require.LessOrEqual(t, len(*told[0].(event.RunHookErrorV1).Reason), 310)
		})
	}
}

func TestHooksThatCannotBeMeantAreRefused(t *testing.T) {
	t.Parallel()
	ok := says("a", hook.BeforeRun, 0, nil)
	for name, hooks := range map[string][]hook.Hook{
		"no id":      {{Phase: hook.BeforeRun, Handle: ok.Handle}},
		"no phase":   {{ID: "a", Phase: "before_breakfast", Handle: ok.Handle}},
		"no handler": {{ID: "a", Phase: hook.BeforeRun}},
		"too long":   {{ID: "a", Phase: hook.BeforeRun, Handle: ok.Handle, Timeout: time.Hour}},
		"twice":      {ok, ok},
	} {
		_, err := hook.NewRegistry(hooks...)
		require.Error(t, err, name)
	}
	var none *hook.Registry
	answer, told := none.Ask(t.Context(), hook.Event{Phase: hook.BeforeRun})
	require.Nil(t, answer)
	require.Nil(t, told)
}

func TestAHookOverHTTP(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	asked := make(chan hook.Event, 1)
	mux.HandleFunc("POST /ok", func(w http.ResponseWriter, req *http.Request) {
		var e hook.Event
		body, _ := io.ReadAll(req.Body)
		if json.Unmarshal(body, &e) == nil {
			asked <- e
		}
		_, _ = io.WriteString(w, `{"prepend_context":"from afar"}`)
	})
	mux.HandleFunc("POST /none", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	mux.HandleFunc("POST /odd", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[1]`) })
	mux.HandleFunc("POST /moved", func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, "/ok", http.StatusTemporaryRedirect)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "hooks.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"hooks":[
		{"id":"ok","phase":"before_step","url":"`+server.URL+`/ok","priority":9,"timeout":"5s"},
		{"id":"none","phase":"before_step","url":"`+server.URL+`/none"},
		{"id":"broken","phase":"before_step","url":"`+server.URL+`/broken?token=hidden"},
		{"id":"odd","phase":"before_step","url":"`+server.URL+`/odd"},
		{"id":"moved","phase":"before_step","url":"`+server.URL+`/moved"}]}`), 0o600))
	hooks, err := hook.Load(file, egress.New(egress.Config{}))
	require.NoError(t, err)
	r, err := hook.NewRegistry(hooks...)
	require.NoError(t, err)
	answer, told := r.Ask(t.Context(), hook.Event{Phase: hook.BeforeStep, RunID: "run-1"})
	require.Equal(t, "from afar", answer.Text("prepend_context"))
	require.Equal(t, "run-1", (<-asked).RunID)
	classes := map[string]string{}
	for _, e := range told {
		if wrong, ok := e.(event.RunHookErrorV1); ok {
			classes[wrong.HookID] = string(wrong.ErrorClass)
			require.NotContains(t, *wrong.Reason, "hidden")
		}
	}
	require.Equal(t, map[string]string{"broken": "failed", "odd": "invalid_result", "moved": "failed"}, classes)

	for name, content := range map[string]string{
		"no JSON": `nothing`, "strange member": `{"hooks":[{"id":"a","phase":"before_run","url":"http://x","colour":1}]}`,
		"no URL":  `{"hooks":[{"id":"a","phase":"before_run","url":"file:///etc/passwd"}]}`,
		"no time": `{"hooks":[{"id":"a","phase":"before_run","url":"http://x","timeout":"soon"}]}`,
	} {
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err := hook.Load(file, http.DefaultClient)
		require.Error(t, err, name)
	}
	none, err := hook.Load("", nil)
	require.NoError(t, err)
	require.Empty(t, none)
}

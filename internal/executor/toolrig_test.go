package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// made is a tool of a test: what it does is a function.
type made struct {
	spec tool.Spec
	do   func(ctx context.Context, call tool.Call, progress func(json.RawMessage) error) (tool.Result, error)

	mu    sync.Mutex
	calls []tool.Call
}

func (m *made) Spec() tool.Spec { return m.spec }

func (m *made) Run(ctx context.Context, call tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
	m.mu.Lock()
	m.calls = append(m.calls, call)
	m.mu.Unlock()
	return m.do(ctx, call, progress)
}

func (m *made) made() []tool.Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.calls)
}

// reconciling is a made tool that can be asked what became of a call.
type reconciling struct {
	*made
	known  bool
	result tool.Result
}

func (r reconciling) Reconcile(context.Context, tool.Call) (tool.Result, bool, error) {
	return r.result, r.known, nil
}

func specOf(name string, boundary tool.Boundary) tool.Spec {
	return tool.Spec{
		Name: name, Description: "Does what the test says.", Kind: tool.Runtime, Provider: "test", Boundary: boundary,
		Input:   json.RawMessage(`{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}`),
		Timeout: 20 * time.Second,
	}
}

// echo answers with its input.
func echo(name string) *made {
	return &made{spec: specOf(name, tool.SafeRetry), do: func(_ context.Context, c tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
		return tool.Result{Output: c.Input}, nil
	}}
}

// held waits until it is let go, or told to end.
func held(name string, boundary tool.Boundary) (t *made, begun chan string, letGo func()) {
	begun, open := make(chan string, 100), make(chan struct{})
	t = &made{spec: specOf(name, boundary), do: func(ctx context.Context, c tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
		begun <- c.ToolCallID
		select {
		case <-open:
			return tool.Result{Output: json.RawMessage(`"held"`)}, nil
		case <-ctx.Done():
			return tool.Result{}, ctx.Err()
		}
	}}
	return t, begun, sync.OnceFunc(func() { close(open) })
}

// with makes an executor's tools.
func with(t *testing.T, tools ...tool.Tool) executor.Tools {
	t.Helper()
	catalog, err := tool.NewCatalog(tools...)
	require.NoError(t, err)
	return executor.Tools{Catalog: catalog}
}

func workWith(t *testing.T, pool *pgxpool.Pool, m model.Model, tools executor.Tools, change ...func(*executor.Config)) *runtest.Process {
	t.Helper()
	p, stop := beginWith(t, pool, m, tools, change...)
	t.Cleanup(stop)
	return p
}

// calls is a turn that asks for tools, each given as its name and its text.
func calls(pairs ...string) model.Turn {
	t := model.Turn{}
	for i := 0; i < len(pairs); i += 2 {
		arguments, err := json.Marshal(map[string]string{"text": pairs[i+1]})
		if err != nil {
			panic(err) // a text always encodes
		}
		t.Events = append(t.Events, model.Event{Kind: model.CallsTool, ToolCall: &model.ToolCall{
			ID: fmt.Sprint("model-", i), Name: pairs[i], Arguments: arguments,
		}})
	}
	return t
}

// allowing is a run that may call everything, without a person.
func allowing(change ...func(*run.Envelope)) run.Envelope {
	e := runtest.Envelope()
	e.ToolPolicy = json.RawMessage(`{"allow":["*"]}`)
	for _, f := range change {
		f(&e)
	}
	return e
}

// askPeople says whose calls a person must approve.
func askPeople(names ...string) func(*run.Envelope) {
	return func(e *run.Envelope) {
		raw, err := json.Marshal(map[string]any{"allow": []string{"*"}, "requireApproval": names})
		if err != nil {
			panic(err)
		}
		e.ToolPolicy = raw
	}
}

// clientTools declares tools that the test brings the results of.
func clientTools(names ...string) func(*run.Envelope) {
	return func(e *run.Envelope) {
		var all []map[string]any
		for _, n := range names {
			all = append(all, map[string]any{"name": n, "description": "Asks the client.", "inputSchema": map[string]any{"type": "object"}})
		}
		raw, err := json.Marshal(all)
		if err != nil {
			panic(err)
		}
		e.ClientTools = raw
	}
}

// result brings a client tool's result as a frame.
func result(t testing.TB, p *runtest.Process, r db.Run, frameID, callID string, output any) run.Accepted {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"toolCallId": callID, "output": output})
	require.NoError(t, err)
	a, err := run.AppendFrame(t.Context(), p.Pool, p.Log, r, run.Frame{FrameID: frameID, Type: "tool_result", Payload: payload})
	require.NoError(t, err)
	return a
}

// all are the events of a type in a run's log.
func all[E event.Event](t testing.TB, pool *pgxpool.Pool, r db.Run) []E {
	t.Helper()
	var zero E
	rows, err := runlog.OfTypes(t.Context(), pool, []uuid.UUID{r.RunKey}, zero.EventType())
	require.NoError(t, err)
	var out []E
	for _, row := range rows {
		e, err := runlog.Decode(row)
		require.NoError(t, err)
		out = append(out, e.(E))
	}
	return out
}

// until waits for a condition of a run's log.
func until(t testing.TB, p *runtest.Process, r db.Run, what string, holds func() bool) {
	t.Helper()
	bell := p.Watch.Run(r.RunKey)
	defer bell.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !holds() {
		select {
		case <-bell.C:
		case <-tick.C:
		case <-late:
			t.Fatalf("%s: never; the log is %v", what, runtest.Types(t, p.Pool, r))
		}
	}
}

// states are the tools' outcomes as "tool state class", in the order of their ends.
func states(t testing.TB, pool *pgxpool.Pool, r db.Run) []string {
	t.Helper()
	var out []string
	for _, e := range all[event.ToolFinishedV1](t, pool, r) {
		s := e.ToolName + " " + string(e.State)
		if e.ErrorClass != nil {
			s += " " + *e.ErrorClass
		}
		out = append(out, s)
	}
	return out
}

// settled checks what must hold of every run that has ended.
func settled(t testing.TB, pool *pgxpool.Pool, r db.Run) {
	t.Helper()
	var open int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM tool_tasks WHERE run_key = $1 AND finished_at IS NULL", r.RunKey).Scan(&open))
	require.Zero(t, open, "every call has its terminal state")
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM approvals WHERE run_key = $1 AND state = 'pending'", r.RunKey).Scan(&open))
	require.Zero(t, open, "nobody is asked any more")
	ended := map[string]int{}
	for _, e := range all[event.ToolFinishedV1](t, pool, r) {
		ended[e.ToolCallID]++
	}
	asked := all[event.ToolRequestedV1](t, pool, r)
	for _, e := range asked {
		require.Equal(t, 1, ended[e.ToolCallID], "call %s of %s ends once", e.ToolCallID, e.ToolName)
	}
	require.Len(t, ended, len(asked))
	require.Len(t, all[event.RunFinishedV1](t, pool, r), 1)
	var order []int64
	for _, f := range all[event.FrameFinishedV1](t, pool, r) {
		order = append(order, f.FrameSeq)
	}
	for i, seq := range order {
		require.EqualValues(t, i+1, seq, "frames are finished once, in their order")
	}
	_, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
}

// tools are the messages of tools in a request.
func toolMessages(q model.Request) []string {
	var out []string
	for _, m := range q.Messages {
		if m.Role == model.RoleTool {
			out = append(out, m.Content)
		}
	}
	return out
}

func joined(types []string) string { return strings.Join(types, " ") }

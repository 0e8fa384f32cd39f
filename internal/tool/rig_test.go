package tool_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

type runFunc = func(ctx context.Context, c tool.Call, progress func(json.RawMessage) error) (tool.Result, error)

// made is a tool that a test makes.
type made struct {
	spec tool.Spec
	run  runFunc
}

func (m made) Spec() tool.Spec { return m.spec }

func (m made) Run(ctx context.Context, c tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
	return m.run(ctx, c, progress)
}

// asked is a tool that can find out what became of a call.
type asked struct {
	made
	found func(context.Context, tool.Call) (tool.Result, bool, error)
}

func (a asked) Reconcile(ctx context.Context, c tool.Call) (tool.Result, bool, error) {
	return a.found(ctx, c)
}

func spec(name string, change ...func(*tool.Spec)) tool.Spec {
	s := tool.Spec{
		Name: name, Title: name, Description: "A tool.", Kind: tool.Runtime, Provider: "provider." + name,
		Input: json.RawMessage(`{"type":"object"}`), Boundary: tool.SafeRetry, Timeout: time.Second,
	}
	for _, c := range change {
		c(&s)
	}
	return s
}

func gives(output string) runFunc {
	return func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
		return tool.Result{Output: json.RawMessage(output), CorrelationID: "theirs"}, nil
	}
}

func fails(err error) runFunc {
	return func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
		return tool.Result{}, err
	}
}

func runner(t testing.TB, c tool.Config, tools ...tool.Tool) *tool.Runner {
	t.Helper()
	r, _ := measured(t, c, tools...)
	return r
}

func measured(t testing.TB, c tool.Config, tools ...tool.Tool) (*tool.Runner, *telemetry.Metrics) {
	t.Helper()
	catalog, err := tool.NewCatalog(tools...)
	require.NoError(t, err)
	m := telemetry.NewMetrics()
	return tool.NewRunner(c, catalog, m), m
}

func call(name string) tool.Call {
	return tool.Call{RunKey: uuid.New(), RunID: "run", Owner: "user:1", ToolCallID: "call_1", Tool: name,
		Input: json.RawMessage(`{}`), IdempotencyKey: "key", Attempt: 1}
}

func quiet(json.RawMessage) error { return nil }

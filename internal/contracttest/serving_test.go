package contracttest_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// workTools does everything about tools and specs that the API and an executor do.
func workTools(t *testing.T, rig *contracttest.Rig) {
	t.Helper()
	r := runtest.Run(t, rig.Pool)
	require.Equal(t, 202, rig.Do(t, callTool(r, "free", contracttest.FreeTool, page, "")).Status)
	require.Equal(t, 403, rig.Do(t, callTool(r, "denied", contracttest.DeniedTool, map[string]any{}, "")).Status)
	require.Equal(t, 202, rig.Do(t, callTool(r, "asked", contracttest.AskedTool, map[string]any{"to": "ada@example.com"}, "")).Status)
	asked, err := approval.OfRun(t.Context(), rig.Pool, r.RunKey)
	require.NoError(t, err)
	require.Len(t, asked, 1)
	require.Equal(t, 200, rig.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/approvals/" + asked[0].ApprovalID + "/decision",
		Body: `{"decision":"approved"}`}).Status)
	held, ok := runtest.Hold(t, rig.Process, r)
	require.True(t, ok)
	commit := func(c runlog.Change, err error) {
		t.Helper()
		require.NoError(t, err)
		_, err = held.Commit(t.Context(), func(runlog.Head) (runlog.Change, error) { return c, nil })
		require.NoError(t, err)
	}
	tasks, err := tool.OpenTasks(t.Context(), rig.Pool, r.RunKey)
	require.NoError(t, err)
	require.Len(t, tasks, 2)
	for _, task := range tasks {
		rates := tool.Rates{Pool: rig.Pool, Of: func(context.Context, string, tool.Spec) (int, bool, error) { return 9, true, nil }}
		e, err := rates.Decide(t.Context(), ds.PolicyEvaluationV1Input{Action: ds.PolicyEvaluationV1Action{Kind: "tool", ToolName: &task.ToolName}},
			r.Owner, r.RunKey, task.ToolCallID, tool.Spec{Provider: "http"})
		require.NoError(t, err)
		commit(tool.Decided(task, e, held.Epoch), nil)
		commit(tool.Started(task, "http", held.Epoch), nil)
		task = tool.AfterStart(task, "http", held.Epoch)
		commit(tool.Progressed(task, json.RawMessage(`"half"`), held.Epoch), nil)
		task.State = tool.StreamingOutput
		commit(tool.CancelRequested(task, "test", "enough"), nil)
		commit(tool.Finished(task, tool.Ended(task, tool.Canceled, &tool.Error{Class: tool.ClassCanceled, Message: "Enough."}), held.Epoch))
	}
	commit(runlog.Change{Status: "waiting", Rows: []runlog.Row{run.SetWaiting(r, time.Hour)}}, nil)
	runtest.LetGo(held)
	send := func(target string, body any) {
		t.Helper()
		a := rig.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/skills/" + target, Body: body})
		require.Equal(t, 200, a.Status, "%s", a.Body)
	}
	skill := map[string]any{"skill_id": "serving", "version": 1, "name": "Serve", "description": "Serves.", "instructions_markdown": "Serve.\n",
		"allowed_tools": []any{map[string]any{"tool_id": "serving.find", "version": 1}}}
	for range 2 {
		send("tool-specs", toolSpecBody("serving.find"))
	}
	send("skill-specs", map[string]any{"skillSpec": skill})
	send("skill-specs/serving/1/publish", nil)
}

func toolSpecBody(id string) map[string]any {
	return map[string]any{"toolSpec": map[string]any{"tool_id": id, "version": 1, "name": "Find", "description": "Finds.", "tool_pack": "mcp.v1",
		"execution_kind": "mcp", "settlement_boundary": "safe_retry", "input_schema": map[string]any{"type": "object"}, "output_schema": map[string]any{}}}
}

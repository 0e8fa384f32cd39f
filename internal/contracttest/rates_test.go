package contracttest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// orderDesk is a tool of the MCP server acme.
type orderDesk struct{}

func (orderDesk) Spec() tool.Spec {
	return tool.Spec{Name: "acme.lookup", Description: "Looks up an order.", Kind: tool.MCP, Provider: "mcp:acme",
		Input: json.RawMessage(`{"type":"object"}`), Boundary: tool.SafeRetry, Timeout: 10 * time.Second}
}

func (orderDesk) Run(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
	return tool.Result{}, &tool.Error{Class: "failed", Message: "nothing is carried out here"}
}

// A manifest that a user has stored holds that user's runs to its rate, and nobody
// else's.
func TestAManifestsRateHoldsItsOwnersRuns(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	catalog, err := tool.NewCatalog(orderDesk{})
	require.NoError(t, err)
	rules, err := policy.Parse([]byte(`{"format":"openagents.runtime.tool_policy","format_version":1,"default_tools":["*"],"require_approval":[]}`))
	require.NoError(t, err)
	rig := contracttest.New(t, pool, contracttest.Options{Tools: &server.Tools{
		Catalog: catalog, Rules: rules, Rates: server.Rates(pool), Breakers: func() map[string]string { return nil }}})
	put := rig.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/skills/tool-specs", Body: map[string]any{"toolSpec": map[string]any{
		"tool_id": "orders.lookup", "version": 1, "name": "Look up", "description": "Looks up an order.", "tool_pack": "mcp.v1",
		"execution_kind": "mcp", "settlement_boundary": "safe_retry", "input_schema": map[string]any{"type": "object"}, "output_schema": map[string]any{},
		"integration_manifest": map[string]any{
			"manifest_version": "mcp.integration.v1", "integration_id": "acme.orders", "tool_pack": "mcp.v1", "provider": "acme",
			"status": "active", "capabilities": []string{"lookup"}, "policy": map[string]any{"max_requests_per_minute": 2}},
	}}})
	require.Contains(t, []int{http.StatusOK, http.StatusCreated}, put.Status, "%s", put.Body)

	r, another := runtest.Run(t, pool), runtest.Run(t, pool) // of one user
	require.Equal(t, http.StatusAccepted, rig.Do(t, callTool(r, "c1", "acme.lookup", map[string]any{}, "")).Status)
	require.Equal(t, http.StatusAccepted, rig.Do(t, callTool(another, "c1", "acme.lookup", map[string]any{}, "")).Status)
	refused := callTool(r, "c2", "acme.lookup", map[string]any{}, "")
	var details [2]string
	for i := range details {
		a := rig.Do(t, refused)
		require.Equal(t, "policy_denied", a.Code())
		var told struct {
			Error struct {
				Details struct {
					ReasonCode   string
					RetryAfterMs int64
				}
			}
		}
		require.NoError(t, json.Unmarshal(a.Body, &told))
		require.Equal(t, "policy_denied.rate_limited", told.Error.Details.ReasonCode)
		require.Positive(t, told.Error.Details.RetryAfterMs)
		require.LessOrEqual(t, told.Error.Details.RetryAfterMs, time.Minute.Milliseconds())
		details[i] = fmt.Sprint(told)
	}
	require.Equal(t, details[0], details[1], "the same call has the same decision")
	require.Equal(t, 1, countOf(t, rig, r, event.TypeToolRequested))
	require.Equal(t, 2, countOf(t, rig, r, event.TypePolicyDecision))

	envelope := runtest.Envelope()
	*envelope.UserID = 2
	other := runtest.Start(t, pool, envelope)
	for i := range 3 {
		q := callTool(other, fmt.Sprint("c", i), "acme.lookup", map[string]any{}, "")
		q.User = 2
		require.Equal(t, http.StatusAccepted, rig.Do(t, q).Status)
	}
}

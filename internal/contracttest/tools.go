package contracttest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// The rig's tools: one that anybody may call, one that a person must approve,
// and one that no run may call. The rig has no executor, so none is carried out.
const (
	FreeTool   = "http.fetch"
	AskedTool  = "email.send"
	DeniedTool = "github.comment"
)

// Specs are what the rig's tools say of themselves.
var Specs = []tool.Spec{
	{
		Name: FreeTool, Title: "Fetch a page", Description: "Fetches a page.", Kind: tool.Runtime, Provider: "http", Groups: []string{"web"},
		Input: json.RawMessage(`{"type":"object","additionalProperties":false,"required":["url"],` +
			`"properties":{"url":{"type":"string","maxLength":2000},"token":{"type":"string"}}}`),
		Output: json.RawMessage(`{"type":"object"}`), Boundary: tool.SafeRetry, Timeout: 20 * time.Second,
	},
	{
		Name: AskedTool, Title: "Send an e-mail", Description: "Sends an e-mail.", Kind: tool.Runtime, Provider: "email", Writes: true,
		Input: json.RawMessage(`{"type":"object","required":["to"],"properties":{"to":{"type":"string"}}}`), Boundary: tool.Reconcile, Timeout: 10 * time.Second,
	},
	{
		Name: DeniedTool, Description: "Comments on an issue.", Kind: tool.Runtime, Provider: "github", Writes: true,
		Input: json.RawMessage(`{"type":"object"}`), Boundary: tool.Reconcile, Timeout: 10 * time.Second,
	},
}

type specOnly struct{ spec tool.Spec }

func (s specOnly) Spec() tool.Spec { return s.spec }

func (specOnly) Run(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
	return tool.Result{}, &tool.Error{Class: "failed", Message: "the rig carries nothing out"}
}

func tools(t testing.TB) server.Tools {
	t.Helper()
	var all []tool.Tool
	for _, spec := range Specs {
		all = append(all, specOnly{spec})
	}
	catalog, err := tool.NewCatalog(all...)
	require.NoError(t, err)
	rules, err := policy.Parse([]byte(`{"format":"openagents.runtime.tool_policy","format_version":1,` +
		`"default_tools":["http.fetch","email.send","group:client"],"guest_tools":["http.fetch","email.send","group:client"]}`))
	require.NoError(t, err)
	return server.Tools{Catalog: catalog, Rules: rules, Breakers: func() map[string]string { return map[string]string{"email": "half_open"} }}
}

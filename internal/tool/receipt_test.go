package tool_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// receiptSchema is the published form of receipts.
func receiptSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	raw, err := os.ReadFile("../../schemas/ds/tool_receipt.v1.json")
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("receipt.json", doc))
	s, err := c.Compile("receipt.json")
	require.NoError(t, err)
	return s
}

func TestEveryReceiptHasThePublishedForm(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	schema := receiptSchema(t)
	long := strings.Repeat("é", 5000)
	for id, end := range map[string]func(db.ToolTask) tool.Outcome{
		"done": func(db.ToolTask) tool.Outcome {
			o := done(`1`)
			o.PrimaryProvider, o.FallbackReason = "provider.b", "http_502"
			return o
		},
		"plain": func(db.ToolTask) tool.Outcome { return tool.Outcome{State: tool.Failed, Err: &tool.Error{}} },
		"canceled": func(t db.ToolTask) tool.Outcome {
			return tool.Ended(t, tool.Canceled, &tool.Error{Class: "interrupted"})
		},
		"long": func(db.ToolTask) tool.Outcome {
			return tool.Outcome{State: tool.TimedOut, Provider: long, PrimaryProvider: long, FallbackReason: long, CorrelationID: long,
				Latency: -time.Second, Err: &tool.Error{Class: long, Message: long + "\xff"}}
		},
	} {
		require.NoError(t, d.commit(tool.Requested(d.request(id), allowed, "")))
		task := d.task(t, id)
		require.NoError(t, d.commit(tool.Started(task, "provider.a", 1), nil))
		task = tool.AfterStart(task, "provider.a", 1)
		require.NoError(t, d.commit(tool.Finished(task, end(task), 1)))
		last := d.task(t, id)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(last.Receipt))
		require.NoError(t, err)
		require.NoError(t, schema.Validate(v), id)
	}
	_, err := tool.Finished(d.task(t, "done"), tool.Outcome{State: tool.Running}, 1)
	require.Error(t, err)
	_, err = tool.Finished(d.task(t, "done"), tool.Outcome{State: tool.Failed}, 1)
	require.Error(t, err, "a failure says why")
}

func TestAClientsResultIsTreatedLikeAnyOther(t *testing.T) {
	t.Parallel()
	c, err := tool.NewCatalog()
	require.NoError(t, err)
	v, err := c.For(json.RawMessage(`[{"name":"pick","description":"x","inputSchema":{"type":"object"},"outputSchema":{"type":"object"}}]`))
	require.NoError(t, err)
	r := runner(t, tool.Config{MaxOutput: 1024})
	begun := time.Now().Add(-time.Minute)
	task := db.ToolTask{ToolName: "pick", Kind: "client", RunningAt: &begun}

	o := r.Delivered(v, task, "frame_1", json.RawMessage(`{"color":"`+strings.Repeat("x", 5000)+`"}`), "")
	require.Equal(t, tool.Succeeded, o.State)
	require.True(t, o.Truncated)
	require.Equal(t, "frame_1", o.FrameID)
	require.Equal(t, "client", o.Provider)
	require.GreaterOrEqual(t, o.Latency, time.Minute)

	o = r.Delivered(v, task, "frame_1", json.RawMessage(`"red"`), "")
	require.Equal(t, tool.ClassOutput, o.Err.Class)
	o = r.Delivered(v, task, "frame_1", nil, "The user closed the window.")
	require.Equal(t, tool.Failed, o.State)
	require.Equal(t, tool.ClassClient, o.Err.Class)
	require.Equal(t, "The user closed the window.", o.Err.Message)
}

package predict_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// receiptSchema is the canonical schema, from its file.
func receiptSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, name := range []string{"usage.v1.json", "predict_receipt.v1.json"} {
		raw, err := os.ReadFile(filepath.Join("../../schemas/ds", name))
		require.NoError(t, err)
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		require.NoError(t, err)
		require.NoError(t, c.AddResource("https://schemas.openagents.com/ds/"+name, doc))
	}
	schema, err := c.Compile("https://schemas.openagents.com/ds/predict_receipt.v1.json")
	require.NoError(t, err)
	return schema
}

var id = predict.ID{RunID: "run-1", CallID: "frame:1/step:1/attempt:1"}

func input(texts ...string) ds.RespondV1Input {
	var in ds.RespondV1Input
	for i, text := range texts {
		role := ds.MessageV1RoleUser
		if i%2 == 1 {
			role = ds.MessageV1RoleAssistant
		}
		in.Messages = append(in.Messages, ds.MessageV1{Role: role, Content: text})
	}
	return in
}

func prepare(t *testing.T, in ds.RespondV1Input) *predict.Call {
	t.Helper()
	call, err := predict.Prepare(id, ds.RespondV1, in)
	require.NoError(t, err)
	return call
}

func caller(m model.Model) *predict.Caller {
	c := predict.NewCaller(m, telemetry.NewMetrics())
	c.Now = func() time.Time { return time.Date(2026, 2, 18, 10, 0, 0, 0, time.UTC) }
	return c
}

func ignore(model.Event) error { return nil }

func TestEveryOutcomeHasAReceiptThatFitsItsSchema(t *testing.T) {
	t.Parallel()
	schema := receiptSchema(t)
	ctx := telemetry.WithTrace(t.Context(), telemetry.NewTrace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "", "req-1"))
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	said := model.Say("Hello", ".")
	said.Usage = model.Usage{Told: true, InputTokens: 3, OutputTokens: 2}
	for name, c := range map[string]struct {
		outcome predict.Outcome
		status  string
		class   string
		billed  bool
	}{
		"succeeded": {caller(model.NewScript(said)).Run(ctx, prepare(t, input("Hi")), ignore), "succeeded", "", false},
		"refused":   {caller(model.NewScript(model.Fail(&model.Error{Class: model.Auth}))).Run(ctx, prepare(t, input("Hi")), ignore), "failed", "auth", false},
		"too slow":  {caller(model.NewScript(model.Fail(&model.Error{Class: model.Timeout}))).Run(ctx, prepare(t, input("Hi")), ignore), "timed_out", "timeout", false},
		"canceled":  {caller(model.NewScript(model.Turn{Hold: make(chan struct{})})).Run(canceled, prepare(t, input("Hi")), ignore), "canceled", "canceled", false},
		"lost":      {caller(model.NewScript()).Lost(ctx, prepare(t, input("Hi"))), "failed", "executor_lost", true},
	} {
		r := c.outcome.Receipt
		require.Equal(t, c.status, string(r.Status), name)
		if c.class == "" {
			require.NoError(t, c.outcome.Err, name)
			require.Nil(t, r.ErrorClass, name)
			require.NotNil(t, r.Hashes.OutputHash, name)
			require.EqualValues(t, 5, r.Usage.TotalTokens)
		} else {
			require.Error(t, c.outcome.Err, name)
			require.Equal(t, c.class, *r.ErrorClass, name)
			require.Nil(t, r.Hashes.OutputHash, name)
		}
		if c.billed {
			require.True(t, r.MaybeBilled, name)
		}
		raw, err := json.Marshal(r)
		require.NoError(t, err)
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		require.NoError(t, err)
		require.NoError(t, schema.Validate(value), name)
		change, err := c.outcome.Change(1)
		require.NoError(t, err)
		require.Equal(t, r.ReceiptID, change.Events[0].(event.PredictFinishedV1).ReceiptID)
	}
}

func TestTheSameCallHasTheSameReceiptIDAndHashes(t *testing.T) {
	t.Parallel()
	run := func(id predict.ID, in ds.RespondV1Input) ds.PredictReceiptV1 {
		call, err := predict.Prepare(id, ds.RespondV1, in)
		require.NoError(t, err)
		r := caller(model.NewScript(model.Say("Hello."))).Run(t.Context(), call, ignore).Receipt
		r.Timing = ds.PredictReceiptV1Timing{}
		return r
	}
	first := run(id, input("Hi"))
	require.Equal(t, first, run(id, input("Hi")))
	require.Equal(t, ds.RespondV1.SchemaHash, first.Hashes.SchemaHash)
	want, err := canon.HashJSON(map[string]any{"text": "Hello."})
	require.NoError(t, err)
	require.Equal(t, want, *first.Hashes.OutputHash)

	again := run(predict.ID{RunID: id.RunID, CallID: "frame:1/step:1/attempt:2"}, input("Hi"))
	require.NotEqual(t, first.ReceiptID, again.ReceiptID)
	require.Equal(t, first.Hashes, again.Hashes)
	other := run(id, input("Ho"))
	require.Equal(t, first.ReceiptID, other.ReceiptID)
	require.NotEqual(t, first.Hashes.InputHash, other.Hashes.InputHash)
	require.NotEqual(t, first.Hashes.RenderedPromptHash, other.Hashes.RenderedPromptHash)
}

func TestInputThatDoesNotFitIsRefusedBeforeTheModelIsAsked(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]ds.RespondV1Input{
		"no message":   {},
		"unknown role": {Messages: []ds.MessageV1{{Role: "system", Content: "secret words"}}},
	} {
		_, err := predict.Prepare(id, ds.RespondV1, in)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), "secret words", "an error does not quote the input")
	}
}

func TestThePromptIsTheBlocksAndThenTheConversation(t *testing.T) {
	t.Parallel()
	script := model.NewScript(model.Say("Blue."))
	in := input("My colour is blue.", "Noted.", "What is my colour?")
	in.Messages = append(in.Messages, ds.MessageV1{Role: ds.MessageV1RoleEvent, Content: `{"type":"tick"}`})
	o := caller(script).Run(t.Context(), prepare(t, in), ignore)
	require.Equal(t, "Blue.", o.Text)
	asked := script.Requests()[0]
	var roles []model.Role
	for _, m := range asked.Messages {
		roles = append(roles, m.Role)
	}
	require.Equal(t, []model.Role{"system", "user", "assistant", "user", "user"}, roles)
	require.Contains(t, asked.Messages[4].Content, `{"type":"tick"}`)
	require.Equal(t, o.Receipt.ReceiptID, asked.IdempotencyKey)
}

func TestAFailingListenerEndsTheCall(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	o := caller(model.NewScript(model.Say("a", "b"))).Run(t.Context(), prepare(t, input("Hi")), func(model.Event) error { return full })
	require.ErrorIs(t, o.Err, full)
	require.Equal(t, "failed", string(o.Receipt.Status))
}

func TestToolsAndTheirMessagesAreShownNatively(t *testing.T) {
	t.Parallel()
	script := model.NewScript(model.Turn{Events: []model.Event{
		{Kind: model.TextDelta, Delta: "I look."},
		{Kind: model.CallsTool, ToolCall: &model.ToolCall{ID: "m2", Name: "http_fetch", Arguments: json.RawMessage(`{"url":"https://example.com"}`)}},
	}})
	callID := "call_1"
	in := input("Fetch it.")
	in.Messages = append(in.Messages,
		ds.MessageV1{Role: ds.MessageV1RoleAssistant, ToolCalls: []ds.MessageV1ToolCall{{ToolCallID: callID, ToolName: "http_fetch", Arguments: map[string]any{"url": "x"}}}},
		ds.MessageV1{Role: ds.MessageV1RoleTool, ToolCallID: &callID, Content: `{"status":404}`})
	in.Tools = []ds.RespondV1InputToolsItem{{Name: "http_fetch", Description: "Fetches.", InputSchema: map[string]any{"type": "object"}}}
	in.ToolReplay = []string{`{"tool":"http.fetch","state":"failed"}`}
	o := caller(script).Run(t.Context(), prepare(t, in), ignore)
	require.NoError(t, o.Err)
	require.Equal(t, []ds.MessageV1ToolCall{{ToolCallID: "m2", ToolName: "http_fetch", Arguments: map[string]any{"url": "https://example.com"}}}, o.ToolCalls)
	want, err := canon.HashJSON(ds.RespondV1Output{Text: "I look.", ToolCalls: o.ToolCalls})
	require.NoError(t, err)
	require.Equal(t, want, *o.Receipt.Hashes.OutputHash)

	asked := script.Requests()[0]
	require.Contains(t, asked.Messages[0].Content, in.ToolReplay[0])
	require.Equal(t, model.Message{Role: model.RoleAssistant, ToolCalls: []model.ToolCall{{ID: callID, Name: "http_fetch", Arguments: json.RawMessage(`{"url":"x"}`)}}}, asked.Messages[2])
	require.Equal(t, model.Message{Role: model.RoleTool, ToolCallID: callID, Content: `{"status":404}`}, asked.Messages[3])
	require.Equal(t, []model.Tool{{Name: "http_fetch", Description: "Fetches.", Parameters: json.RawMessage(`{"type":"object"}`)}}, asked.Tools)

	// Whatever of it changes is another rendered prompt.
	seen := map[string]bool{o.Receipt.Hashes.RenderedPromptHash: true}
	for name, change := range map[string]func(*ds.RespondV1Input){
		"another tool":          func(in *ds.RespondV1Input) { in.Tools[0].Description = "Gets." },
		"no tool":               func(in *ds.RespondV1Input) { in.Tools = nil },
		"another replay":        func(in *ds.RespondV1Input) { in.ToolReplay = []string{"x"} },
		"other arguments":       func(in *ds.RespondV1Input) { in.Messages[1].ToolCalls[0].Arguments = map[string]any{"url": "y"} },
		"another call's result": func(in *ds.RespondV1Input) { other := "call_2"; in.Messages[2].ToolCallID = &other },
	} {
		changed := in
		changed.Tools = append([]ds.RespondV1InputToolsItem(nil), in.Tools...)
		changed.Messages = append([]ds.MessageV1(nil), in.Messages...)
		changed.Messages[1].ToolCalls = append([]ds.MessageV1ToolCall(nil), in.Messages[1].ToolCalls...)
		change(&changed)
		hash := caller(model.NewScript(model.Say("x"))).Run(t.Context(), prepare(t, changed), ignore).Receipt.Hashes.RenderedPromptHash
		require.False(t, seen[hash], name)
		seen[hash] = true
	}
}

func TestASystemPromptTakesThePlaceOfTheSignatures(t *testing.T) {
	t.Parallel()
	script := model.NewScript(model.Say("x"))
	call, err := predict.Prepare(id, ds.RespondV1, input("Hi"), predict.SystemPrompt("Be kind."))
	require.NoError(t, err)
	o := caller(script).Run(t.Context(), call, ignore)
	require.Equal(t, "Be kind.", script.Requests()[0].Messages[0].Content)
	require.Equal(t, ds.RespondV1.PromptHash, o.Receipt.Hashes.PromptHash)
	plain := caller(model.NewScript(model.Say("x"))).Run(t.Context(), prepare(t, input("Hi")), ignore)
	require.NotEqual(t, plain.Receipt.Hashes.RenderedPromptHash, o.Receipt.Hashes.RenderedPromptHash)
}

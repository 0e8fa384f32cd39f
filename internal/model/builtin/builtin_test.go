package builtin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/model/builtin"
)

func user(texts ...string) []model.Message {
	var out []model.Message
	for _, s := range texts {
		out = append(out, model.Message{Role: model.RoleUser, Content: s})
	}
	return out
}

// ask plays one request and gives its deltas with the result.
func ask(t *testing.T, req model.Request) ([]string, model.Result) {
	t.Helper()
	var deltas []string
	res, err := builtin.New(builtin.Config{}).Stream(t.Context(), req, func(e model.Event) error {
		if e.Kind == model.TextDelta {
			deltas = append(deltas, e.Delta)
		}
		return nil
	})
	require.NoError(t, err)
	return deltas, res
}

func TestAReplyComesInTenDeltasOrMore(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"Hello", "What is 12345 * 100000?", "What can you do?", "Thanks", `Reverse the word "stressed out"`, "say привет мир как дела"} {
		deltas, res := ask(t, model.Request{Messages: user(s)})
		require.Equal(t, res.Text, strings.Join(deltas, ""))
		if len([]rune(res.Text)) >= 10 {
			require.GreaterOrEqual(t, len(deltas), 10, res.Text)
		}
		for _, d := range deltas {
			require.NotEmpty(t, d)
		}
		require.Equal(t, model.FinishStop, res.FinishReason)
	}
	deltas, _ := ask(t, model.Request{Messages: user("say hi")})
	require.Equal(t, []string{"h", "i"}, deltas)
}

func TestTheSameRequestGivesTheSameDeltas(t *testing.T) {
	t.Parallel()
	req := model.Request{
		Messages: user("Ann Berg, 41, ann@berg.example, likes tea, jazz and chess."),
		Schema:   json.RawMessage(`{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"email":{"type":"string","format":"email"},"likes":{"type":"array","items":{"type":"string"}},"z":{"type":"boolean"}},"required":["name","z"]}`),
	}
	first, res := ask(t, req)
	for range 20 {
		again, res2 := ask(t, req)
		require.Equal(t, first, again)
		require.Equal(t, res, res2)
	}
}

func TestItSaysWhatItIs(t *testing.T) {
	t.Parallel()
	m := builtin.New(builtin.Config{})
	require.Equal(t, model.Info{Provider: "builtin", Model: "rules.v1", ContextTokens: 8192}, m.Info())
	_, res := ask(t, model.Request{Messages: user("Who are you?")})
	require.Contains(t, res.Text, "rule-based")
	require.Contains(t, res.Text, "rules.v1")
	require.Equal(t, "rules.v1", res.ServedModel)
	require.False(t, res.MaybeBilled)
}

func TestTheContextWindowIsEnforced(t *testing.T) {
	t.Parallel()
	m := builtin.New(builtin.Config{ContextTokens: 20})
	emit := func(model.Event) error { return nil }
	// A message costs four tokens and one for every four bytes begun.
	res, err := m.Stream(t.Context(), model.Request{Messages: user(strings.Repeat("a", 64))}, emit)
	require.NoError(t, err)
	require.EqualValues(t, 20, res.Usage.InputTokens)
	_, err = m.Stream(t.Context(), model.Request{Messages: user(strings.Repeat("a", 65))}, emit)
	require.Equal(t, model.ContextWindow, model.ClassOf(err))
	_, err = m.Stream(t.Context(), model.Request{Messages: user("hi"), Tools: []model.Tool{{Name: "t", Description: strings.Repeat("d", 64)}}}, emit)
	require.Equal(t, model.ContextWindow, model.ClassOf(err))
}

func TestUsageFollowsTheRule(t *testing.T) {
	t.Parallel()
	_, res := ask(t, model.Request{Messages: user("What is 2+2?")})
	require.Equal(t, "2 + 2 = 4", res.Text)
	require.Equal(t, model.Usage{Told: true, InputTokens: 7, OutputTokens: 3, TotalTokens: 10}, res.Usage)
	require.EqualValues(t, 0, builtin.Tokens(""))
	require.EqualValues(t, 1, builtin.Tokens("abcd"))
	require.EqualValues(t, 2, builtin.Tokens("abcde"))
}

func TestTheOutputIsBounded(t *testing.T) {
	t.Parallel()
	_, res := ask(t, model.Request{Messages: user("say ééééééééééééé"), MaxOutputTokens: 2})
	require.Equal(t, "éééé", res.Text)
	require.Equal(t, model.FinishLength, res.FinishReason)
	_, res = ask(t, model.Request{Messages: user("say ééééé"), MaxOutputTokens: 1})
	require.Equal(t, "éé", res.Text)
}

func TestRequestsThatCannotBeAnswered(t *testing.T) {
	t.Parallel()
	for name, req := range map[string]model.Request{
		"empty":     {},
		"schema":    {Messages: user("x"), Schema: json.RawMessage(`[`)},
		"reference": {Messages: user("x"), Schema: json.RawMessage(`{"$ref":"#/$defs/gone"}`)},
		"circle":    {Messages: user("x"), Schema: json.RawMessage(`{"$ref":"#"}`)},
		"tool":      {Messages: user("clock please"), Tools: []model.Tool{{Name: "clock", Parameters: json.RawMessage(`7`)}}},
	} {
		_, err := builtin.New(builtin.Config{}).Stream(t.Context(), req, func(model.Event) error { return nil })
		require.Equal(t, model.InvalidRequest, model.ClassOf(err), name)
	}
}

func TestTheDelayIsKeptAndCanBeCut(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	_, err := builtin.New(builtin.Config{Delay: 2 * time.Millisecond}).Stream(t.Context(), model.Request{Messages: user("hello")}, func(model.Event) error { return nil })
	require.NoError(t, err)
	require.GreaterOrEqual(t, time.Since(begin), 20*time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = builtin.New(builtin.Config{Delay: time.Hour}).Stream(ctx, model.Request{Messages: user("hello")}, func(model.Event) error { return nil })
	require.Equal(t, model.Canceled, model.ClassOf(err))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), time.Minute)

	_, err = builtin.New(builtin.Config{}).Stream(ctx, model.Request{Messages: user("hello")}, func(model.Event) error { return nil })
	require.Equal(t, model.Canceled, model.ClassOf(err))
}

func TestAnEmitErrorEndsIt(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	n := 0
	res, err := builtin.New(builtin.Config{}).Stream(t.Context(), model.Request{Messages: user("hello")}, func(model.Event) error {
		if n++; n == 3 {
			return full
		}
		return nil
	})
	require.ErrorIs(t, err, full)
	require.Equal(t, model.FinishError, res.FinishReason)
	require.Equal(t, 3, n)
}

var weather = model.Tool{Name: "get_weather", Description: "Current weather of a city", Parameters: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`)}

func TestAToolIsCalledAndItsResultAnswers(t *testing.T) {
	t.Parallel()
	req := model.Request{Messages: user("What is the weather in Bergen?"), Tools: []model.Tool{weather}}
	_, res := ask(t, req)
	require.Equal(t, model.FinishToolCalls, res.FinishReason)
	require.Len(t, res.ToolCalls, 1)
	call := res.ToolCalls[0]
	require.Equal(t, "get_weather", call.Name)
	require.JSONEq(t, `{"city":"Bergen"}`, string(call.Arguments))
	require.Positive(t, res.Usage.OutputTokens)

	req.Messages = append(req.Messages,
		model.Message{Role: model.RoleAssistant, ToolCalls: res.ToolCalls},
		model.Message{Role: model.RoleTool, ToolCallID: call.ID, Content: `{"city":"Bergen","now":{"temp_c":7,"sky":"rain"}}`})
	_, res = ask(t, req)
	require.Equal(t, "According to get_weather: city: Bergen; now sky: rain; now temp_c: 7", res.Text)

	// The next turn may use the tool again, under another id although the call is the same.
	req.Messages = append(req.Messages, model.Message{Role: model.RoleAssistant, Content: res.Text})
	next := req
	next.Messages = append(append([]model.Message{}, req.Messages...), user("What is the weather in Bergen?")...)
	_, res = ask(t, next)
	require.Len(t, res.ToolCalls, 1)
	require.NotEqual(t, call.ID, res.ToolCalls[0].ID)
	require.Equal(t, call.Arguments, res.ToolCalls[0].Arguments)
}

func TestALongResultIsQuotedWhereItAnswers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("The harbour is old and wide. ", 30) + "The lighthouse was built by Edda Falk in 1901."
	req := model.Request{Messages: append(user("Who built the lighthouse?"),
		model.Message{Role: model.RoleAssistant, ToolCalls: []model.ToolCall{{ID: "c", Name: "lookup"}}},
		model.Message{Role: model.RoleTool, ToolCallID: "c", Content: long})}
	_, res := ask(t, req)
	require.Contains(t, res.Text, "According to lookup")
	require.Contains(t, res.Text, "Edda Falk")
	require.NotContains(t, res.Text, "old and wide")
}

func TestToolsCanBeRefused(t *testing.T) {
	t.Parallel()
	_, res := ask(t, model.Request{Messages: user("What is the weather in Bergen? Do not use any tools."), Tools: []model.Tool{weather}})
	require.Empty(t, res.ToolCalls)
}

func TestTheThreadIsFollowed(t *testing.T) {
	t.Parallel()
	_, res := ask(t, model.Request{Messages: user("What is my name?")})
	require.Contains(t, res.Text, "not told me")
	_, res = ask(t, model.Request{Messages: user("My name is Ann.", "My name is Bea.", "What's my name?")})
	require.Equal(t, "Your name is Bea.", res.Text)
	_, res = ask(t, model.Request{Messages: user("My locker code is 12.", "My locker code is 15.", "My bike is red.", "What is my locker code?")})
	require.True(t, strings.HasPrefix(res.Text, "You said: “My locker code is 15.”"), res.Text)
	_, res = ask(t, model.Request{Messages: user("What did I ask first?")})
	require.Contains(t, res.Text, "first thing")
	_, res = ask(t, model.Request{Messages: user("I like figs.", "Is it late?", "How many questions did I ask?")})
	require.Contains(t, res.Text, "1 questions")
}

func TestALongTextDoesNotTakeLong(t *testing.T) {
	t.Parallel()
	schema := `{"type":"object","properties":{"rows":{"type":"array","items":{"type":"integer"}}`
	for i := range 20 {
		schema += fmt.Sprintf(`,"age%d":{"type":"integer"},"name%d":{"type":"string"}`, i, i)
	}
	begin := time.Now()
	for _, text := range []string{strings.Repeat("Ann 1 b@c.example ", 2500), strings.Repeat("1 ", 16000), "what is " + strings.Repeat("1 + ", 180) + "x y"} {
		fuzzOne(t, model.Request{Messages: user(text, text), Schema: json.RawMessage(schema + `}}`)})
		fuzzOne(t, model.Request{Messages: user(text, text)})
	}
	require.Less(t, time.Since(begin), 20*time.Second)
}

func fuzzOne(t *testing.T, req model.Request) {
	t.Helper()
	text := ""
	n := 0
	res, err := builtin.New(builtin.Config{ContextTokens: 1 << 20}).Stream(t.Context(), req, func(e model.Event) error {
		text += e.Delta
		n++
		return nil
	})
	if err != nil {
		require.Equal(t, model.InvalidRequest, model.ClassOf(err))
		return
	}
	require.Equal(t, res.Text, text)
	if len([]rune(text)) >= 10 {
		require.GreaterOrEqual(t, n, 10)
	}
	for _, c := range res.ToolCalls {
		require.True(t, json.Valid(c.Arguments))
	}
	if len(req.Schema) > 0 {
		require.True(t, json.Valid([]byte(res.Text)), res.Text)
	}
}

// A call that failed is told as such, and not as what a tool found.
func TestAFailedCallIsToldAsOne(t *testing.T) {
	t.Parallel()
	messages := append(user("Fetch https://example.com/a."),
		model.Message{Role: model.RoleAssistant, ToolCalls: []model.ToolCall{{ID: "c1", Name: "http_fetch", Arguments: json.RawMessage(`{"url":"https://example.com/a"}`)}}},
		model.Message{Role: model.RoleTool, ToolCallID: "c1", Content: `{"error":"policy_denied","message":"The call is not allowed.","state":"failed"}`})
	_, res := ask(t, model.Request{Messages: messages})
	require.Equal(t, "The tool http_fetch did not do it: The call is not allowed.", res.Text)
}

func TestShippedToolsAreCalledWithWhatWasAsked(t *testing.T) {
	t.Parallel()
	tools := []model.Tool{
		{Name: "http_fetch", Description: "Reads a public web address.", Parameters: json.RawMessage(`{"type":"object","additionalProperties":false,"required":["url"],
			"properties":{"url":{"type":"string","minLength":1,"maxLength":8192,"description":"An absolute http or https URL."},"method":{"enum":["GET","HEAD"]},
			"headers":{"type":"object","additionalProperties":{"type":"string"}},"maxBytes":{"type":"integer","minimum":1}}}`)},
		{Name: "timeline_search", Description: "Searches what happened in this run and earlier in its thread.", Parameters: json.RawMessage(`{"type":"object","additionalProperties":false,
			"required":["query"],"properties":{"query":{"type":"string","description":"Words to look for."},"limit":{"type":"integer","minimum":1,"maximum":50}}}`)},
		{Name: "github_issue_get", Description: "Reads an issue of a repository.", Parameters: json.RawMessage(`{"type":"object","required":["owner","repo","number"],
			"properties":{"owner":{"type":"string"},"repo":{"type":"string"},"number":{"type":"integer"}}}`)},
	}
	for said, want := range map[string]string{
		"Please fetch http://127.0.0.1:4567/page.":           `http_fetch {"url":"http://127.0.0.1:4567/page"}`,
		"Search the timeline for blue.":                      `timeline_search {"query":"blue"}`,
		"Get issue 12 of the repository openagents/runtime.": `github_issue_get {"number":12,"owner":"openagents","repo":"runtime"}`,
	} {
		_, res := ask(t, model.Request{Messages: user(said), Tools: tools})
		require.Len(t, res.ToolCalls, 1, "%s: %s", said, res.Text)
		require.Equal(t, want, res.ToolCalls[0].Name+" "+string(res.ToolCalls[0].Arguments))
	}
}

// A numbered list is worked through: one call for each step that a tool can do, and
// then an answer from all that came of it.
func TestANumberedListIsWorkedThrough(t *testing.T) {
	t.Parallel()
	search := model.Tool{Name: "timeline_search", Description: "Searches what happened.", Parameters: json.RawMessage(`{"type":"object","required":["query"],"properties":{"query":{"type":"string"}}}`)}
	req := model.Request{Tools: []model.Tool{weather, search},
		Messages: user("Please do this:\n1. What is the weather in Bergen?\n2. Think of nothing\n 3) Search the timeline for blue\n")}
	var called []string
	var text string
	for range 3 {
		_, res := ask(t, req)
		text = res.Text
		for _, c := range res.ToolCalls {
			called = append(called, c.Name+" "+string(c.Arguments))
			req.Messages = append(req.Messages, model.Message{Role: model.RoleAssistant, ToolCalls: res.ToolCalls},
				model.Message{Role: model.RoleTool, ToolCallID: c.ID, Content: `{"found":"by ` + c.Name + `"}`})
		}
	}
	require.Equal(t, []string{`get_weather {"city":"Bergen"}`, `timeline_search {"query":"blue"}`}, called)
	require.Contains(t, text, "found: by get_weather")
	require.Contains(t, text, "found: by timeline_search")

	req.Messages = user("2. What is the weather in Bergen?\n1. Search the timeline for blue")
	_, res := ask(t, req)
	require.LessOrEqual(t, len(res.ToolCalls), 1, "that is no list of steps")
}

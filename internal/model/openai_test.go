package model_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnAnswerIsStreamedAndCounted(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(chunk(`{"role":"assistant","content":""}`), ": OPENROUTER PROCESSING",
		chunk(`{"reasoning":"hm"}`), chunk(`{"reasoning_content":"..."}`), text("Hel"), text("lo"), stop("stop"), usageChunk))
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.Headers = map[string]string{"X-Title": "runtime"} })

	var l listen
	res, err := m.Stream(t.Context(), ask(), l.emit)
	require.NoError(t, err)
	require.Equal(t, []string{"Hel", "lo"}, l.deltas(model.TextDelta))
	require.Equal(t, []string{"hm", "..."}, l.deltas(model.ReasoningDelta))
	two, three := int64(2), int64(3)
	require.Equal(t, model.Result{
		Text: "Hello", Reasoning: "hm...", FinishReason: model.FinishStop,
		Usage:    model.Usage{Told: true, InputTokens: 7, OutputTokens: 5, TotalTokens: 12, ReasoningTokens: &two, CachedTokens: &three},
		Provider: "openai", RequestedModel: "test/model", ServedModel: "served/model", ProviderRequestID: "gen-1", Attempts: 1,
	}, res)
	require.Equal(t, "Bearer "+testKey, e.headers[0].Get("Authorization"))
	require.Equal(t, "runtime", e.headers[0].Get("X-Title"))
	require.Equal(t, "call-1", e.headers[0].Get("Idempotency-Key"))
	require.Equal(t, model.Info{Provider: "openai", Model: "test/model"}, m.Info())
}

func TestARequestSaysEverything(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(text("{}"), stop("stop"), usageChunk))
	m, _ := e.dial(t, nil)
	warm := 0.5
	_, err := m.Stream(t.Context(), model.Request{
		Messages: []model.Message{
			{Role: model.RoleSystem, Content: "be brief"},
			{Role: model.RoleUser, Content: "weather?"},
			{Role: model.RoleAssistant, ToolCalls: []model.ToolCall{{ID: "c1", Name: "weather", Arguments: json.RawMessage(`{"city":"Oslo"}`)}}},
			{Role: model.RoleTool, ToolCallID: "c1", Content: "rain"},
		},
		Tools:           []model.Tool{{Name: "weather", Description: "tells it", Parameters: json.RawMessage(`{"type":"object"}`)}},
		Schema:          json.RawMessage(`{"type":"object","properties":{"a":{"type":"string"}}}`),
		MaxOutputTokens: 50, Temperature: &warm,
	}, new(listen).emit)
	require.NoError(t, err)
	got, err := json.Marshal(e.bodies[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"model":"test/model","stream":true,"stream_options":{"include_usage":true},"max_tokens":50,"temperature":0.5,
		"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"weather?"},
			{"role":"assistant","tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]},
			{"role":"tool","tool_call_id":"c1","content":"rain"}],
		"tools":[{"type":"function","function":{"name":"weather","description":"tells it","parameters":{"type":"object"}}}],
		"response_format":{"type":"json_schema","json_schema":{"name":"output","schema":{"type":"object","properties":{"a":{"type":"string"}}}}}}`, string(got))
}

func TestNewerNamesAreSentWhenAskedFor(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(text("{}"), stop("stop"), usageChunk))
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.MaxCompletionTokens, c.StrictSchema = true, true })
	req := ask()
	req.MaxOutputTokens, req.Schema = 9, json.RawMessage(`{"type":"object"}`)
	_, err := m.Stream(t.Context(), req, new(listen).emit)
	require.NoError(t, err)
	require.EqualValues(t, 9, e.bodies[0]["max_completion_tokens"])
	require.NotContains(t, e.bodies[0], "max_tokens")
	require.Equal(t, true, e.bodies[0]["response_format"].(map[string]any)["json_schema"].(map[string]any)["strict"])
}

func TestARequestThatCannotBeWrittenIsNotSent(t *testing.T) {
	t.Parallel()
	e := serve(t, stream())
	m, _ := e.dial(t, nil)
	for name, req := range map[string]model.Request{
		"empty":  {},
		"role":   {Messages: []model.Message{{Role: "robot", Content: "x"}}},
		"schema": {Messages: ask().Messages, Schema: json.RawMessage(`{`)},
		"tool":   {Messages: ask().Messages, Tools: []model.Tool{{Name: "x", Parameters: json.RawMessage(`[]`)}}},
	} {
		_, err := m.Stream(t.Context(), req, new(listen).emit)
		require.False(t, failure(t, err, model.InvalidRequest).Retryable, name)
	}
	require.Zero(t, e.requests())
}

func TestToolCallsAreJoinedFromFragments(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(
		chunk(`{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"weather","arguments":""}}]}`),
		chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"ci"}},{"index":1,"id":"c2","function":{"name":"clock","arguments":""}}]}`),
		chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"ty\":\"Oslo\"}"}}]}`),
		stop("tool_calls"), usageChunk))
	m, _ := e.dial(t, nil)
	var l listen
	res, err := m.Stream(t.Context(), ask(), l.emit)
	require.NoError(t, err)
	require.Equal(t, model.FinishToolCalls, res.FinishReason)
	want := []model.ToolCall{
		{ID: "c1", Name: "weather", Arguments: json.RawMessage(`{"city":"Oslo"}`)},
		{ID: "c2", Name: "clock", Arguments: json.RawMessage(`{}`)},
	}
	require.Equal(t, want, res.ToolCalls)
	require.Len(t, l.events, 2)
	require.Equal(t, want[0], *l.events[0].ToolCall)
}

func TestCallsThatShareAnIndexAreKeptApart(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(
		chunk(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"clock","arguments":"{}"}}]}`),
		chunk(`{"tool_calls":[{"index":0,"id":"b","function":{"name":"clock","arguments":"{}"}}]}`),
		stop("stop")))
	m, _ := e.dial(t, nil)
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Len(t, res.ToolCalls, 2)
	require.Equal(t, model.FinishToolCalls, res.FinishReason)
}

func TestArgumentsThatAreNotAnObject(t *testing.T) {
	t.Parallel()
	broken := chunk(`{"tool_calls":[{"index":0,"id":"c1","function":{"name":"weather","arguments":"{\"city\":"}}]}`)
	e := serve(t, stream(broken, stop("tool_calls")))
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.MaxRetries = 1 })
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	failure(t, err, model.Protocol)
	require.Equal(t, 2, res.Attempts)

	e = serve(t, stream(text("so "), broken, stop("length")))
	m, _ = e.dial(t, nil)
	res, err = m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Empty(t, res.ToolCalls)
	require.Equal(t, model.FinishLength, res.FinishReason)
}

func TestARefusalEndsAsFiltered(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(chunk(`{"refusal":"I will not."}`), stop("stop"), usageChunk))
	m, _ := e.dial(t, nil)
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Equal(t, "I will not.", res.Text)
	require.Equal(t, model.FinishContentFilter, res.FinishReason)
}

func TestMissingUsageIsMaybeBilled(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(text("hi"), stop("length")))
	m, _ := e.dial(t, nil)
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.False(t, res.Usage.Told)
	require.True(t, res.MaybeBilled)
	require.Equal(t, model.FinishLength, res.FinishReason)
}

func TestACompleteAnswerNeedsNoDone(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(){"clean": func() {}, "cut": cutNow} {
		e := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			send(w, text("hi"))
			send(w, stop("stop"))
			send(w, usageChunk)
			end()
		})
		m, _ := e.dial(t, nil)
		res, err := m.Stream(t.Context(), ask(), new(listen).emit)
		require.NoError(t, err, name)
		require.Equal(t, "hi", res.Text)
		require.True(t, res.Usage.Told)
	}
}

func TestAnEndpointThatHangsAfterItsAnswerIsLeft(t *testing.T) {
	t.Parallel()
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		send(w, text("hi"))
		send(w, stop("stop"))
		<-r.Context().Done()
	})
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.BetweenTokensTimeout = 50 * time.Millisecond })
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Equal(t, "hi", res.Text)
	require.True(t, res.MaybeBilled)
}

func TestAStreamWithoutAFinishReasonIsNoAnswer(t *testing.T) {
	t.Parallel()
	e := serve(t, stream(text("hi")))
	m, _ := e.dial(t, nil)
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.Protocol)
	require.True(t, got.MaybeBilled)
	require.Equal(t, 1, res.Attempts)
	require.Equal(t, "hi", res.Text)
	require.Equal(t, model.FinishError, res.FinishReason)
}

func TestAConnectionCutBeforeTheFirstDeltaIsTriedAgain(t *testing.T) {
	t.Parallel()
	good := stream(text("hi"), stop("stop"), usageChunk)
	for name, first := range map[string]http.HandlerFunc{
		"before headers": func(http.ResponseWriter, *http.Request) { cutNow() },
		"after headers":  func(w http.ResponseWriter, _ *http.Request) { begin(w); cutNow() },
		"after a role": func(w http.ResponseWriter, _ *http.Request) {
			begin(w)
			send(w, chunk(`{"role":"assistant"}`))
			cutNow()
		},
		"empty stream": func(w http.ResponseWriter, _ *http.Request) { begin(w) },
	} {
		e := serve(t, first, good)
		m, waits := e.dial(t, nil)
		res, err := m.Stream(t.Context(), ask(), new(listen).emit)
		require.NoError(t, err, name)
		require.Equal(t, 2, res.Attempts, name)
		require.True(t, res.MaybeBilled, "%s: the lost attempt may be charged", name)
		require.Len(t, *waits, 1)
		require.Equal(t, e.headers[0].Get("Idempotency-Key"), e.headers[1].Get("Idempotency-Key"))
	}
}

func TestAConnectionCutAfterTheFirstDeltaIsAnError(t *testing.T) {
	t.Parallel()
	e := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		begin(w)
		send(w, text("half"))
		cutNow()
	})
	m, _ := e.dial(t, nil)
	var l listen
	res, err := m.Stream(t.Context(), ask(), l.emit)
	got := failure(t, err, model.Unavailable)
	require.True(t, got.Retryable)
	require.True(t, got.MaybeBilled)
	require.Equal(t, 1, e.requests())
	require.Equal(t, "half", res.Text)
	require.True(t, res.MaybeBilled)
}

func TestAnEndpointThatIsNotThere(t *testing.T) {
	t.Parallel()
	e := serve(t, stream())
	m, waits := e.dial(t, nil)
	e.Close()
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.Unavailable)
	require.False(t, got.MaybeBilled, "nothing was sent")
	require.Equal(t, 3, res.Attempts)
	require.Len(t, *waits, 2)
	require.Zero(t, got.Status)
}

func TestSlowTokens(t *testing.T) {
	t.Parallel()
	slow := func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		for range 4 {
			send(w, text("tick "))
			select {
			case <-time.After(60 * time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
		send(w, stop("stop"))
	}
	e := serve(t, slow)
	m, _ := e.dial(t, func(c *model.OpenAIConfig) {
		c.BetweenTokensTimeout, c.FirstTokenTimeout = 5*time.Second, 5*time.Second
	})
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.NoError(t, err)
	require.Equal(t, "tick tick tick tick ", res.Text)

	e = serve(t, func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		send(w, text("tick "))
		<-r.Context().Done()
	})
	m, _ = e.dial(t, func(c *model.OpenAIConfig) { c.BetweenTokensTimeout = 15 * time.Millisecond })
	res, err = m.Stream(t.Context(), ask(), new(listen).emit)
	require.True(t, failure(t, err, model.Timeout).MaybeBilled)
	require.Equal(t, "tick ", res.Text)
	require.Equal(t, 1, res.Attempts)
}

func TestASlowCallerIsNotASlowEndpoint(t *testing.T) {
	t.Parallel()
	heard := make(chan struct{})
	e := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		begin(w)
		send(w, text("a"))
		send(w, text("b"))
		<-heard
		send(w, stop("stop"))
	})
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.BetweenTokensTimeout = 250 * time.Millisecond })
	n := 0
	_, err := m.Stream(t.Context(), ask(), func(model.Event) error {
		if n++; n == 2 {
			<-time.After(500 * time.Millisecond)
			close(heard)
		}
		return nil
	})
	require.NoError(t, err)
}

func TestCommentsAreNotTokens(t *testing.T) {
	t.Parallel()
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		for r.Context().Err() == nil {
			send(w, ": OPENROUTER PROCESSING")
			<-time.After(5 * time.Millisecond)
		}
	})
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.FirstTokenTimeout = 60 * time.Millisecond })
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.Timeout)
	require.True(t, got.Retryable)
	require.True(t, got.MaybeBilled)
	require.Equal(t, 1, res.Attempts, "a call that may be charged is not repeated for slowness")
}

func TestTheWholeCallIsBounded(t *testing.T) {
	t.Parallel()
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		for r.Context().Err() == nil {
			send(w, text("x"))
			<-time.After(5 * time.Millisecond)
		}
	})
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.TotalTimeout = 80 * time.Millisecond })
	_, err := m.Stream(t.Context(), ask(), new(listen).emit)
	require.Contains(t, failure(t, err, model.Timeout).Message, "80ms")
}

func TestAMalformedChunkIsAProtocolError(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{"broken": `data: {"choices":[{"delta":{"content":"plover`, "not an object": `data: plover`} {
		e := serve(t, stream(text("a"), bad, text("b"), stop("stop")))
		m, _ := e.dial(t, nil)
		res, err := m.Stream(t.Context(), ask(), new(listen).emit)
		failure(t, err, model.Protocol)
		require.Equal(t, "a", res.Text, name)
		require.Equal(t, 1, res.Attempts)
	}
}

func TestADocumentInPlaceOfAStream(t *testing.T) {
	t.Parallel()
	e := serve(t, status(200, `{"choices":[{"message":{"content":"hi"}}]}`))
	m, _ := e.dial(t, nil)
	_, err := m.Stream(t.Context(), ask(), new(listen).emit)
	failure(t, err, model.Protocol)
	require.Equal(t, 1, e.requests())
}

func TestAHugeLineIsNotHeld(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*model.OpenAIConfig){
		"line":  func(c *model.OpenAIConfig) { c.MaxLineBytes, c.MaxAnswerBytes = 64<<10, 0 },
		"total": func(c *model.OpenAIConfig) { c.MaxLineBytes, c.MaxAnswerBytes = 0, 64<<10 },
	} {
		e := serve(t, func(w http.ResponseWriter, r *http.Request) {
			begin(w)
			_, _ = w.Write([]byte("data: "))
			block := []byte(strings.Repeat("x", 32<<10))
			for r.Context().Err() == nil {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		})
		m, _ := e.dial(t, change)
		_, err := m.Stream(t.Context(), ask(), new(listen).emit)
		require.False(t, failure(t, err, model.Protocol).Retryable, name)
	}

	e := serve(t, stream(text(strings.Repeat("x", 2000)), stop("stop")))
	m, _ := e.dial(t, func(c *model.OpenAIConfig) { c.MaxLineBytes = 1000 })
	_, err := m.Stream(t.Context(), ask(), new(listen).emit)
	failure(t, err, model.Protocol)
}

func TestACancelReachesTheEndpoint(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		send(w, text("a"))
		<-r.Context().Done()
		close(gone)
	})
	m, _ := e.dial(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Stream(ctx, ask(), func(model.Event) error { cancel(); return nil })
	got := failure(t, err, model.Canceled)
	require.ErrorIs(t, err, context.Canceled)
	require.False(t, got.Retryable)
	require.True(t, got.MaybeBilled)
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Fatal("the endpoint was left talking")
	}
}

func TestTheCallersDeadlineIsATimeout(t *testing.T) {
	t.Parallel()
	e := serve(t, func(w http.ResponseWriter, r *http.Request) { begin(w); <-r.Context().Done() })
	m, _ := e.dial(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := m.Stream(ctx, ask(), new(listen).emit)
	failure(t, err, model.Timeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAnEmitErrorEndsTheCall(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	e := serve(t, func(w http.ResponseWriter, r *http.Request) {
		begin(w)
		send(w, text("a"))
		<-r.Context().Done()
		close(gone)
	})
	m, _ := e.dial(t, nil)
	full := errors.New("log is full")
	res, err := m.Stream(t.Context(), ask(), func(model.Event) error { return full })
	require.ErrorIs(t, err, full)
	require.True(t, res.MaybeBilled)
	<-gone
}

func TestAnEndpointThatDoesNotShakeHands(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	cfg := model.OpenAIDefaults()
	cfg.BaseURL, cfg.APIKey, cfg.Model = "https://"+l.Addr().String()+"/v1", testKey, "m"
	cfg.ConnectTimeout, cfg.MaxRetries = 30*time.Millisecond, 1
	m, err := model.NewOpenAI(cfg, client)
	require.NoError(t, err)
	model.RecordWaits(m, func(context.Context, time.Duration) error { return nil })
	res, err := m.Stream(t.Context(), ask(), new(listen).emit)
	got := failure(t, err, model.Timeout)
	require.Contains(t, got.Message, "no connection within 30ms")
	require.False(t, got.MaybeBilled)
	require.Equal(t, 2, res.Attempts)
}

package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

// asks makes a call during which a person can be asked.
func (r rig) asks(ctx context.Context, t testing.TB, name, input string, ask func(context.Context, tool.Question) (tool.Answer, error)) (string, *tool.Error) {
	t.Helper()
	res, err := r.tool(t, name).Run(ctx, tool.Call{Tool: name, Input: json.RawMessage(input), IdempotencyKey: "key-1", Attempt: 1, Ask: ask}, quiet)
	if err == nil {
		return string(res.Output), nil
	}
	var told *tool.Error
	require.ErrorAs(t, err, &told)
	return "", told
}

const branches = `{"type":"object","required":["branch"],"properties":{
	"branch":{"type":"string","title":"The\u202e branch","maxLength":20},
	"force":{"type":"boolean","default":true},"mode":{"type":"string","oneOf":[{"const":"a","title":"A"},{"const":"b","title":"B"}]}}}`

// ways are the tools of the peer that ask: in the middle of a call, and before they
// go on with it. Servers of the newest version know the latter alone.
func ways(r rig) []string {
	if r.Status()[0].Protocol >= "2026" {
		return []string{"peer.rounds"}
	}
	return []string{"peer.form", "peer.rounds"}
}

func TestWhatAServerWantsToKnowAPersonAnswers(t *testing.T) {
	t.Parallel()
	quoted, err := json.Marshal(branches)
	require.NoError(t, err)
	form := `{"schema":` + string(quoted) + `}`
	both(t, "answers", func(t *testing.T, r rig, _ string) {
		for _, way := range ways(r) {
			for _, c := range []struct {
				input  string
				answer tool.Answer
				says   string
			}{
				{form, tool.Answer{Decided: true, Approved: true, Content: json.RawMessage(`{"branch":"main"}`)}, `{"action":"accept","content":{"branch":"main","force":true}}`},
				{form, tool.Answer{Decided: true, Approved: true, Content: json.RawMessage(`{"branch":"main","force":false,"mode":"b"}`)}, `{"action":"accept","content":{"branch":"main","force":false,"mode":"b"}}`},
				{form, tool.Answer{Decided: true}, `{"action":"decline","content":null}`},
				{`{}`, tool.Answer{Decided: true, Approved: true}, `{"action":"accept","content":null}`},
				{`{"schema":"{\"type\":\"object\",\"properties\":{}}"}`, tool.Answer{Decided: true, Approved: true}, `{"action":"accept","content":null}`},
			} {
				var asked []tool.Question
				out, e := r.asks(t.Context(), t, way, c.input, func(_ context.Context, q tool.Question) (tool.Answer, error) {
					asked = append(asked, q)
					return c.answer, nil
				})
				require.Nil(t, e, "%s %+v", way, e)
				var said struct{ Content []struct{ Text string } }
				require.NoError(t, json.Unmarshal([]byte(out), &said))
				require.JSONEq(t, c.says, said.Content[0].Text, way)
				require.Len(t, asked, 1, way)
				require.Equal(t, "Which[31m branch?", asked[0].Message, "what a terminal obeys is taken out")
				require.Equal(t, 7*time.Second, asked[0].For)
				if c.input != form {
					require.Nil(t, asked[0].Schema, "a yes or no")
					continue
				}
				require.JSONEq(t, `{"type":"object","required":["branch"],"additionalProperties":false,"properties":{
					"branch":{"type":"string","title":"The branch","maxLength":20},"force":{"type":"boolean","default":true},
					"mode":{"type":"string","oneOf":[{"const":"a","title":"A"},{"const":"b","title":"B"}]}}}`, string(asked[0].Schema))
			}
		}
	}, func(s *mcp.Server) { s.QuestionMS = 7000 })

	never := func(context.Context, tool.Question) (tool.Answer, error) {
		panic("nobody is to be asked")
	}
	both(t, "nobody", func(t *testing.T, r rig, _ string) {
		for _, way := range ways(r) {
			for _, c := range []struct {
				input string
				ask   func(context.Context, tool.Question) (tool.Answer, error)
				says  string
			}{
				{form, nil, ""},
				{form, func(context.Context, tool.Question) (tool.Answer, error) { return tool.Answer{}, nil }, "nobody answered in time"},
				{form, func(context.Context, tool.Question) (tool.Answer, error) { return tool.Answer{}, errors.New("x") }, "nobody could be asked"},
				{`{"schema":"{\"type\":\"object\",\"properties\":{\"password\":{\"type\":\"string\"}}}"}`, never, "it asks for a secret"},
				{`{"url":"https://example.com/sign-in"}`, never, "https://example.com/sign-in, which nobody is sent to"},
			} {
				_, e := r.asks(t.Context(), t, way, c.input, c.ask)
				require.NotNil(t, e, way)
				if strings.Contains(c.input, "url") && r.Status()[0].Protocol < "2026" { // the server's SDK knows that we do not take it
					require.Contains(t, e.Message, "url")
					continue
				}
				require.Equal(t, mcp.InputRequired, e.Class, "%s %s", way, e.Message)
				require.Contains(t, e.Message, "The server wants to ask a person: Which[31m branch?")
				require.Contains(t, e.Message, c.says)
				require.False(t, e.Retryable || e.Unknown || e.ProviderFault)
			}
		}
	})
	both(t, "given up", func(t *testing.T, r rig, _ string) {
		for _, way := range ways(r) {
			ctx, giveUp := context.WithCancel(t.Context())
			_, e := r.asks(ctx, t, way, form, func(ctx context.Context, _ tool.Question) (tool.Answer, error) {
				giveUp()
				<-ctx.Done()
				return tool.Answer{}, ctx.Err()
			})
			require.NotNil(t, e)
			require.Equal(t, "provider_error", e.Class, e.Message)
			_, e = r.call(t, "peer.echo", `{"text":"still there"}`)
			require.Nil(t, e, "the session goes on")
		}
	})
}

// Forms that are no forms, and those that are too large, nobody is shown.
func TestFormsThatAreNotShown(t *testing.T) {
	t.Parallel()
	r := listed(t, mcp.Config{}, child(t, "sdk", func(s *mcp.Server) { s.Stdio.Env["MARK"] = mcp.Value{} }))
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprintf(`"f%d":{"type":"string"}`, i)
	}
	for schema, why := range map[string]string{
		`{"type":"object","properties":{` + strings.Join(many, ",") + `}}`:                                                                                       "more than 32",
		`{"type":"object","properties":{"a":{"type":"string","description":"` + strings.Repeat("x", 999) + `","enum":["` + strings.Repeat("y", 17<<10) + `"]}}}`: "bytes",
		`{"type":"array"}`: "not one of an object",
	} {
		input, err := json.Marshal(map[string]string{"schema": schema})
		require.NoError(t, err)
		_, e := r.asks(t.Context(), t, "peer.rounds", string(input), func(context.Context, tool.Question) (tool.Answer, error) {
			return tool.Answer{Decided: true, Approved: true}, nil
		})
		require.NotNil(t, e, why)
		require.Equal(t, mcp.InputRequired, e.Class, e.Message)
		require.Contains(t, e.Message, why)
	}
}

// With two calls in the air nobody knows which one a question is about, so nobody is
// asked what may be another's.
func TestAQuestionOfNobodyKnowsWhichCallIsNotAsked(t *testing.T) {
	t.Parallel()
	s, _ := address(t, handler(t, peer("")), func(s *mcp.Server) { s.ProtocolVersion = "2025-06-18" })
	r := listed(t, mcp.Config{}, s)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begun := make(chan struct{})
	var other sync.WaitGroup
	other.Go(func() {
		_, _ = r.tool(t, "peer.steps").Run(ctx, tool.Call{Tool: "peer.steps", Input: json.RawMessage(`{}`), Ask: func(context.Context, tool.Question) (tool.Answer, error) {
			t.Error("another's question was asked")
			return tool.Answer{}, nil
		}}, func(json.RawMessage) error { close(begun); return nil })
	})
	<-begun
	_, e := r.asks(t.Context(), t, "peer.form", `{}`, func(context.Context, tool.Question) (tool.Answer, error) {
		t.Error("a question of one of two calls was asked")
		return tool.Answer{Decided: true, Approved: true}, nil
	})
	require.NotNil(t, e)
	require.Equal(t, mcp.InputRequired, e.Class)
	stop()
	other.Wait()
	out, e := r.asks(t.Context(), t, "peer.form", `{}`, func(context.Context, tool.Question) (tool.Answer, error) {
		return tool.Answer{Decided: true, Approved: true}, nil
	})
	require.Nil(t, e, "alone it is")
	require.Contains(t, out, "accept")
}

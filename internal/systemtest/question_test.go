package systemtest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest/ai"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// asking is a server whose model calls the example that asks for a name.
func asking(t *testing.T) (*server, *endpoint) {
	t.Helper()
	model := newEndpoint(t, func(shown []message) turn {
		if results := since(shown); len(results) > 0 {
			return turn{pieces: []string{"It ", "said: ", results[len(results)-1].Content}}
		}
		return turn{calls: []toolCall{{"example_greet", map[string]any{}}}}
	})
	s := serve(t, dbtest.URL(t), "MODEL_PROVIDER=openai", "MODEL_NAME=m", "MODEL_BASE_URL="+model.URL+"/v1", "MODEL_API_KEY=a-key-of-the-test",
		"RUNTIME_MCP_SERVERS="+exampleOfMCP(t))
	s.offers(t, "example.greet")
	return s, model
}

func (s *server) greets(t *testing.T) (runID string) {
	t.Helper()
	runID = uuid.NewString()
	a := call(t, http.MethodPost, s.api, "/runs", map[string]any{
		"runId": runID, "threadId": runID, "userId": userID, "authenticatedSession": true, "toolPolicy": map[string]any{"allow": []string{"*"}},
	})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	say(t, s.api, runID, "Greet somebody.")
	return runID
}

type question struct {
	ApprovalID, Title, State string
	Request                  struct {
		Question struct {
			Message string
			Schema  json.RawMessage
		}
	}
}

// asked waits for the question that a run asks.
func (s *server) asked(t *testing.T, runID string) question {
	t.Helper()
	var page struct{ Approvals []question }
	require.Eventually(t, func() bool {
		a := call(t, http.MethodGet, s.api, "/approvals?state=pending&runId="+runID, nil)
		require.NoError(t, json.Unmarshal([]byte(a.body), &page))
		return len(page.Approvals) == 1
	}, patience, tick, "nobody is asked")
	return page.Approvals[0]
}

// What an MCP server asks in the middle of a call is an approval, decided through the
// API or the command line, with what it asks for or without.
func TestAServersQuestionIsAnApproval(t *testing.T) {
	t.Parallel()
	s, _ := asking(t)
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"yes": {[]string{"approve", "--content", `{"name":"Ada"}`}, "Good day, Ada."},
		"no":  {[]string{"reject", "--reason", "not now"}, "Then I greet nobody."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runID := s.greets(t)
			q := s.asked(t, runID)
			require.Equal(t, "“Greet somebody” asks: Whom shall I greet?", q.Title)
			require.Equal(t, "Whom shall I greet?", q.Request.Question.Message)
			require.JSONEq(t, `{"type":"object","required":["name"],"additionalProperties":false,
				"properties":{"name":{"type":"string","title":"Name","minLength":1,"maxLength":100}}}`, string(q.Request.Question.Schema))

			without := call(t, http.MethodPost, s.api, "/approvals/"+q.ApprovalID+"/decision", map[string]any{"decision": "approved"})
			require.Equal(t, http.StatusBadRequest, without.status, without.body)
			require.Contains(t, without.body, "lacks name")
			got := finish(t, s.clientEnv(), "", append(append([]string{"approval"}, c.args...), q.ApprovalID, "--user", "7")...)
			require.Equal(t, 0, got.code, got.errors)
			told := stream(t, s.api, runID, 0).rest(t)
			require.Contains(t, told.body, c.says)
			require.Contains(t, call(t, http.MethodGet, s.api, "/runs/"+runID, nil).body, `"status":"completed"`)
		})
	}
}

// A chat of the AI SDK shows a server's question as one about the call, and takes
// both answers.
func TestAChatShowsAServersQuestion(t *testing.T) {
	t.Parallel()
	s, _ := asking(t)
	for release, parts := range chats {
		for _, approved := range []bool{true, false} {
			name := release
			if !approved {
				name += ", no"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				runID := s.greets(t)
				backend := newDecidingBackend(t, s, runID, map[bool]map[string]any{
					true:  {"decision": "approved", "content": map[string]any{"name": "Ada"}},
					false: {"decision": "rejected"},
				})
				var got chatted
				ai.Run(t, "approve.mjs", map[string]any{
					"api": backend.URL + "/runs", "runId": runID, "release": release, "parts": parts, "answers": backend.URL, "approved": approved,
				}, &got)
				require.Empty(t, got.Error)
				require.Equal(t, "ready", got.Status)
				require.Len(t, got.Messages, 1)
				want := []string{"input-available", "approval-requested", "approval-responded", "output-available"}
				if parts == "ai5" {
					want = []string{"input-available", "output-available"}
				}
				require.Equal(t, want, got.StatesOf["example.greet"])
				says := map[bool]string{true: "Good day, Ada.", false: "Then I greet nobody."}[approved]
				require.Contains(t, got.Messages[0].Text(), says)
				i := slices.IndexFunc(got.Messages[0].Parts, func(p ai.Part) bool { return p["toolName"] == "example.greet" })
				output, err := json.Marshal(got.Messages[0].Parts[i]["output"])
				require.NoError(t, err)
				require.Contains(t, string(output), says, strings.TrimSpace(name))
			})
		}
	}
}

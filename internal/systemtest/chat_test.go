package systemtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest/ai"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// use is a tool that the run of the test uses, and the states that a chat shows
// of it, one after another.
type use struct {
	tool   string // by its name in the catalog
	input  func(page string) map[string]any
	states []string
	output string // a part of it
}

var free, asked = []string{"input-available", "output-available"},
	[]string{"input-available", "approval-requested", "approval-responded", "output-available"}

// uses are the tools of one run: the shipped ones, the client's, and one that a
// person approves.
var uses = []use{
	{"http.fetch", func(page string) map[string]any { return map[string]any{"url": page + "/story"} }, free, "Once upon a time"},
	{"browser.location", func(string) map[string]any { return map[string]any{} }, free, "Paris"},
	{"http.request", func(page string) map[string]any {
		return map[string]any{"url": page + "/letters", "method": "POST", "body": "Dear page"}
	}, asked, "Thank you for: Dear page"},
}

type chatted struct {
	ai.Chat
	StatesOf map[string][]string `json:"statesOf"`
	Called   []string            `json:"called"`
	Sent     int                 `json:"sent"`
}

// A chat of the AI SDK follows one run of the real program that reads a page, has
// the client say where it is, and asks a person before it writes.
func TestAChatShowsToolsAndApprovesOne(t *testing.T) {
	t.Parallel()
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, "Thank you for: "+string(body))
			return
		}
		_, _ = io.WriteString(w, "Once upon a time there was a page.")
	}))
	t.Cleanup(pages.Close)
	model := newEndpoint(t, func(shown []message) turn {
		results := since(shown)
		if len(results) == 0 {
			next := turn{pieces: []string{"Let ", "me ", "look."}}
			for _, u := range uses {
				next.calls = append(next.calls, toolCall{strings.ReplaceAll(u.tool, ".", "_"), u.input(pages.URL)})
			}
			return next
		}
		return turn{pieces: []string{"All ", "of ", "it ", "is ", "done."}}
	})
	s := serve(t, dbtest.URL(t), "MODEL_PROVIDER=openai", "MODEL_NAME=m", "MODEL_BASE_URL="+model.URL+"/v1", "MODEL_API_KEY=a-key-of-the-test",
		"RUNTIME_EGRESS_ALLOW="+pages.Listener.Addr().String())
	for _, parts := range []string{"ai6", "ai7"} {
		t.Run(parts, func(t *testing.T) {
			t.Parallel()
			chatWith(t, s, model, parts)
		})
	}
}

func chatWith(t *testing.T, s *server, model *endpoint, parts string) {
	runID := uuid.NewString()
	a := call(t, http.MethodPost, s.api, "/runs", map[string]any{
		"runId": runID, "threadId": runID, "userId": userID, "authenticatedSession": true, "toolPolicy": map[string]any{"allow": []string{"*"}},
		"clientTools": []map[string]any{{"name": "browser.location", "description": "Tells where the browser is.", "inputSchema": map[string]any{"type": "object"}}},
	})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	say(t, s.api, runID, "Look around, please.")
	backend := newBackend(t, s, runID)
	var got chatted
	ai.Run(t, "approve.mjs", map[string]any{
		"api": backend.URL + "/runs", "runId": runID, "parts": parts, "answers": backend.URL, "approved": true,
		"outputs": map[string]any{"browser.location": map[string]any{"city": "Paris"}},
	}, &got)

	require.Empty(t, got.Error)
	require.Equal(t, "ready", got.Status)
	require.Zero(t, got.Sent, "the chat sends nothing by itself")
	require.Equal(t, []string{"browser.location"}, got.Called, "what a client carries out, and nothing else")
	require.Len(t, got.Messages, 1)
	require.Equal(t, "Let me look.All of it is done.", got.Messages[0].Text())
	for _, u := range uses {
		require.Equal(t, u.states, got.StatesOf[u.tool], u.tool)
		i := slices.IndexFunc(got.Messages[0].Parts, func(p ai.Part) bool { return p["toolName"] == u.tool })
		require.GreaterOrEqual(t, i, 0, u.tool)
		output, err := json.Marshal(got.Messages[0].Parts[i]["output"])
		require.NoError(t, err)
		require.Contains(t, string(output), u.output)
		require.Contains(t, model.requests(), u.output, "the model is told")
	}
	require.Contains(t, call(t, http.MethodGet, s.api, "/runs/"+runID, nil).body, `"status":"completed"`)
}

// newBackend stands for the application between browser and runtime: it signs
// what the browser asks.
func newBackend(t *testing.T, s *server, runID string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /runs/{run}/stream", func(w http.ResponseWriter, r *http.Request) {
		what := "/runs/" + r.PathValue("run") + "/stream?" + r.URL.RawQuery
		res, err := http.DefaultClient.Do(request(t, http.MethodGet, s.api, what, nil))
		if !assert.NoError(t, err) {
			return
		}
		defer res.Body.Close()
		for name, values := range res.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(res.StatusCode)
		for buf := make([]byte, 4<<10); ; {
			n, err := res.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				return
			}
		}
	})
	mux.HandleFunc("POST /decision", func(_ http.ResponseWriter, r *http.Request) {
		var said struct {
			ApprovalID string
			Approved   bool
		}
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&said))
		assert.True(t, said.Approved)
		a := call(t, http.MethodPost, s.api, "/approvals/"+said.ApprovalID+"/decision", map[string]any{"decision": "approved"})
		assert.Equal(t, http.StatusOK, a.status, a.body)
	})
	mux.HandleFunc("POST /result", func(_ http.ResponseWriter, r *http.Request) {
		var said struct {
			ToolCallID string
			Output     any
		}
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&said))
		a := call(t, http.MethodPost, s.api, "/runs/"+runID+"/frames", map[string]any{
			"frameId": "result-of-" + said.ToolCallID, "type": "tool_result",
			"payload": map[string]any{"toolCallId": said.ToolCallID, "output": said.Output},
		})
		assert.Equal(t, http.StatusAccepted, a.status, a.body)
	})
	b := httptest.NewServer(mux)
	t.Cleanup(b.Close)
	return b
}

package systemtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	asked  bool   // a person approves it
	output string // a part of it
}

// uses are the tools of one run: the shipped ones, one of an MCP server, the
// client's, and one that a person approves.
var uses = []use{
	{"http.fetch", func(page string) map[string]any { return map[string]any{"url": page + "/story"} }, false, "Once upon a time"},
	{"timeline.search", func(string) map[string]any { return map[string]any{"query": "around"} }, false, "Look around, please."},
	{"example.count", func(string) map[string]any { return map[string]any{"text": "one two three"} }, false, `"words":3`},
	{"browser.location", func(string) map[string]any { return map[string]any{} }, false, "Paris"},
	{"http.request", func(page string) map[string]any {
		return map[string]any{"url": page + "/letters", "method": "POST", "body": "Dear page"}
	}, true, "Thank you for: Dear page"},
}

// chats are the releases of the AI SDK that are supported, by the parts that each is
// given.
var chats = map[string]string{"5 strict": "ai5", "6 strict": "ai6", "7 strict": "ai6", "7 reset": "ai7", "7": "ai7"}

// shown are the states of a use that a chat that takes such parts shows.
func (u use) shown(parts string) []string {
	switch {
	case u.asked && parts == "ai5": // it has no word for a question; data parts tell of it
		return []string{"input-available", "output-available"}
	case u.asked:
		return []string{"input-available", "approval-requested", "approval-responded", "output-available"}
	}
	return []string{"input-available", "output-available"}
}

type chatted struct {
	ai.Chat
	StatesOf map[string][]string `json:"statesOf"`
	Called   []string            `json:"called"`
	Sent     int                 `json:"sent"`
}

// A chat of each release of the AI SDK follows one run of the real program that
// reads a page, looks into its timeline, asks an MCP server, has the client say where
// it is, and asks a person before it writes.
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
		"RUNTIME_EGRESS_ALLOW="+pages.Listener.Addr().String(), "RUNTIME_MCP_SERVERS="+exampleOfMCP(t))
	s.offers(t, "example.count")
	for release, parts := range chats {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			chatWith(t, s, model, release, parts)
		})
	}
}

// exampleOfMCP is a file that names the program's own example of an MCP server,
// started over stdio and believed in what it says of its tools.
func exampleOfMCP(t *testing.T) string {
	t.Helper()
	file, err := json.Marshal(map[string]any{
		"format": "openagents.runtime.mcp_servers", "format_version": 1,
		"servers": []any{map[string]any{
			"name": "example", "trust_annotations": true, "stdio": map[string]any{"command": program(t), "args": []string{"mcp", "example"}},
		}},
	})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "servers.json")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	return path
}

// offers waits until the server has a tool.
func (s *server) offers(t *testing.T, name string) {
	t.Helper()
	require.Eventually(t, func() bool {
		return strings.Contains(call(t, http.MethodGet, s.api, "/tools", nil).body, `"`+name+`"`)
	}, patience, tick, "the server has no %s", name)
}

func chatWith(t *testing.T, s *server, model *endpoint, release, parts string) {
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
		"api": backend.URL + "/runs", "runId": runID, "release": release, "parts": parts, "answers": backend.URL, "approved": true,
		"outputs": map[string]any{"browser.location": map[string]any{"city": "Paris"}},
	}, &got)

	require.Empty(t, got.Error)
	require.Equal(t, "ready", got.Status)
	require.Zero(t, got.Sent, "the chat sends nothing by itself")
	require.Equal(t, []string{"browser.location"}, got.Called, "what a client carries out, and nothing else")
	require.Len(t, got.Messages, 1)
	requireUses(t, got.Messages[0], parts)
	for _, u := range uses {
		require.Equal(t, u.shown(parts), got.StatesOf[u.tool], u.tool)
		require.Contains(t, model.requests(), strings.Trim(strconv.Quote(u.output), `"`), "the model is told")
	}
	require.Contains(t, call(t, http.MethodGet, s.api, "/runs/"+runID, nil).body, `"status":"completed"`)

	// Who comes when all is over assembles the same from the stream.
	for _, read := range ai.ReadRuns(t, backend.URL+"/runs", parts, runID) {
		require.Empty(t, read.Errors, read.Release)
		require.NotNil(t, read.Message, read.Release)
		requireUses(t, *read.Message, parts)
	}
}

// requireUses checks the message that a chat has assembled: all that was said, each
// tool's call with its output, and the approval of the one.
func requireUses(t *testing.T, m ai.Message, parts string) {
	t.Helper()
	require.Equal(t, "Let me look.All of it is done.", m.Text())
	var tools []string
	for _, p := range m.Parts {
		if p["type"] == "dynamic-tool" {
			tools = append(tools, p["toolName"].(string))
		}
	}
	require.Len(t, tools, len(uses))
	var approvals int
	for _, p := range m.Parts {
		if data, ok := p["data"].(map[string]any); ok && p["type"] == "data-approval" {
			require.Equal(t, "approved", data["state"])
			approvals++
		}
	}
	for _, u := range uses {
		i := slices.IndexFunc(m.Parts, func(p ai.Part) bool { return p["toolName"] == u.tool })
		require.GreaterOrEqual(t, i, 0, u.tool)
		require.Equal(t, "output-available", m.Parts[i]["state"], u.tool)
		output, err := json.Marshal(m.Parts[i]["output"])
		require.NoError(t, err)
		require.Contains(t, string(output), u.output)
		require.Equal(t, u.tool != "browser.location", m.Parts[i]["providerExecuted"] == true, "%s is carried out by who carries it out", u.tool)
		approval, known := m.Parts[i]["approval"].(map[string]any)
		require.Equal(t, u.asked && parts != "ai5", known, u.tool)
		if known && parts == "ai7" {
			require.Equal(t, true, approval["approved"])
		}
	}
	require.Equal(t, parts != "ai7", approvals == 1, "releases without the answer's part are told in data")
}

// newBackend stands for the application between browser and runtime: it signs
// what the browser asks.
func newBackend(t *testing.T, s *server, runID string) *httptest.Server {
	t.Helper()
	return newDecidingBackend(t, s, runID, map[bool]map[string]any{true: {"decision": "approved"}})
}

// newDecidingBackend is newBackend that sends what is given for a yes and a no.
func newDecidingBackend(t *testing.T, s *server, runID string, decisions map[bool]map[string]any) *httptest.Server {
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
		assert.Contains(t, decisions, said.Approved)
		a := call(t, http.MethodPost, s.api, "/approvals/"+said.ApprovalID+"/decision", decisions[said.Approved])
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

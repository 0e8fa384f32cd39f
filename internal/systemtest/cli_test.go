package systemtest_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestChatAnswersEachLineAndRemembersTheOnesBefore(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t))
	got := finish(t, s.clientEnv(), "My name is Ada Lindqvist.\n\nWhat is my name?\n", "chat")
	require.Equal(t, 0, got.code, got.errors)
	answers := regexp.MustCompile(`assistant: (.*)`).FindAllStringSubmatch(got.out, -1)
	require.Len(t, answers, 2, got.out)
	require.Contains(t, answers[1][1], "Ada Lindqvist")
}

// clientEnv is what the client commands need to talk to this server.
func (s *server) clientEnv() []string {
	return []string{"RUNTIME_URL=" + s.api, "RUNTIME_SIGNATURE_SECRET=" + secret}
}

func TestEveryClientCommandTalksToAServer(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t))
	command := func(args ...string) string {
		t.Helper()
		got := finish(t, s.clientEnv(), "", args...)
		require.Equal(t, 0, got.code, "%v: %s", args, got.errors)
		return got.out
	}
	object := func(args ...string) map[string]any {
		t.Helper()
		var v map[string]any
		require.NoError(t, json.Unmarshal([]byte(command(args...)), &v))
		return v
	}

	require.Equal(t, "ok", object("health")["status"])
	runID := strings.TrimSpace(command("run", "start", "--thread", "t-1"))
	require.Equal(t, runID, object("run", "frame", runID, "What is 6 times 7?", "--id", "f-1")["runId"])
	require.Contains(t, command("run", "stream", runID), "42")
	require.Equal(t, "completed", object("run", "get", runID)["status"])
	require.Equal(t, true, object("run", "frame", runID, "What is 6 times 7?", "--id", "f-1")["idempotentReplay"])

	raw := command("run", "stream", runID, "--raw", "--cursor", "1")
	require.Contains(t, raw, `"type":"text-delta"`)
	require.NotContains(t, raw, "id: 1\n")
	require.Equal(t, raw, command("run", "stream", runID, "--raw", "--cursor", "1", "--parts", "ai7"), "no step was taken back")
	refused := finish(t, s.clientEnv(), "", "run", "stream", runID, "--parts", "ai8")
	require.Equal(t, 1, refused.code)
	require.Contains(t, refused.errors, "must be one of ai5, ai6, ai7")
	events := object("run", "events", runID, "--limit", "2")
	require.Len(t, events["events"], 2)
	require.Equal(t, false, events["upToDate"])
	require.Regexp(t, `floor: 0\nhead: \d+\nclosed: true\n`, command("run", "probe", runID))
	require.Len(t, object("thread", "state", "t-1")["messages"], 2)

	open := strings.TrimSpace(command("run", "start", "--keep-open"))
	require.Equal(t, open, object("run", "cancel", open, "--reason", "enough")["runId"])
	require.Contains(t, command("run", "stream", open), "canceled")
	require.Equal(t, "canceled", object("run", "get", open)["status"])
	require.Len(t, object("run", "list")["runs"], 2)
	require.Len(t, object("run", "list", "--status", "canceled")["runs"], 1)
	require.Empty(t, object("run", "list", "--user", "2")["runs"])

	require.Contains(t, object("tool", "list"), "tools")
	require.Contains(t, object("tool", "list", "--run", runID), "tools")
	require.Empty(t, object("tool", "tasks", runID)["tasks"])
	require.Empty(t, object("approval", "list", "--state", "", "--thread", "t-1")["approvals"])
	const nowhere = "appr_000000000000000000000000"
	for _, c := range []struct {
		code string
		args []string
	}{
		{"run_finished", []string{"tool", "execute", runID, "nowhere.tool", `{"a":1}`}},
		{"must be a JSON object", []string{"tool", "execute", runID, "nowhere.tool", `[]`}},
		{"tool_task_not_found", []string{"tool", "task", "nowhere", "--run", runID}},
		{"tool_task_not_found", []string{"tool", "cancel", "nowhere", "--reason", "enough"}},
		{"approval_not_found", []string{"approval", "get", nowhere}},
		{"approval_not_found", []string{"approval", "approve", nowhere}},
		{"approval_not_found", []string{"approval", "reject", nowhere, "--reason", "no"}},
	} {
		got := finish(t, s.clientEnv(), "", c.args...)
		require.Equal(t, 1, got.code, "%v: %s", c.args, got.out)
		require.Contains(t, got.errors, c.code, "%v", c.args)
	}

	none := finish(t, s.clientEnv(), "", "run", "get", "no-such-run")
	require.Equal(t, 1, none.code)
	require.Contains(t, none.errors, "run_not_found")
	require.Empty(t, none.out)
	unsigned := finish(t, []string{"RUNTIME_URL=" + s.api}, "", "health")
	require.Equal(t, 1, unsigned.code)
	require.Contains(t, unsigned.errors, "unauthorized")
}

func TestSignMakesARequestThatIsLetInOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t))
	body := `{"runId":"r-1","threadId":"t-1","userId":1,"authenticatedSession":true}`
	signed := finish(t, s.clientEnv(), body, "sign", "POST", "/internal/v1/runs", "--body", "-")
	require.Equal(t, 0, signed.code, signed.errors)

	send := func(body string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.api+"/internal/v1/runs", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/json")
		for line := range strings.Lines(signed.out) {
			name, value, found := strings.Cut(strings.TrimSpace(line), ": ")
			require.True(t, found, line)
			req.Header.Set(name, value)
		}
		return do(t, req).status
	}
	require.Equal(t, http.StatusUnauthorized, send(strings.Replace(body, "r-1", "r-2", 1)))
	require.Equal(t, http.StatusAccepted, send(body))
	require.Equal(t, http.StatusUnauthorized, send(body))
}

// Who looks at servers that do not work is told why: by the server itself, in what
// it wrote before it ended.
func TestAServerThatFailsIsExplained(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "servers.json")
	require.NoError(t, os.WriteFile(file, []byte(`{"format":"openagents.runtime.mcp_servers","format_version":1,"servers":[
		{"name":"broken","stdio":{"command":"/bin/sh","args":["-c","echo reading the settings >&2; echo no licence was found >&2; exit 3"]}},
		{"name":"absent","stdio":{"command":"/nowhere/server"}}]}`), 0o600))
	got := finish(t, nil, "", "mcp", "list", file)
	require.Equal(t, 1, got.code)
	require.Regexp(t, `broken +stdio +not connected: .+\n +its stderr: reading the settings\n +its stderr: no licence was found\n`, got.out)
	require.Regexp(t, `absent +stdio +not connected: stdio/command: .*/nowhere/server.*\n$`, got.out)
	require.Contains(t, got.errors, "MCP server broken")
}

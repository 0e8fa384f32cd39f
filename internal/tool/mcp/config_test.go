package mcp_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

func parse(servers string) ([]mcp.Server, error) {
	return mcp.Parse([]byte(`{"format":"openagents.runtime.mcp_servers","format_version":1,"servers":[` + servers + `]}`))
}

func TestAFileOfServers(t *testing.T) {
	t.Parallel()
	servers, err := parse(`
		{"name":"files","stdio":{"command":"/usr/bin/files","args":["--root","/srv"],"env":{"PATH":"/usr/bin","TOKEN":{"secret":"files"}},"dir":"/srv"},
		 "allow":["read_*"],"deny":["read_secret"],"timeout_ms":1500,"tools":{"read_all":{"timeout_ms":120000,"writes":false}}},
		{"name":"tickets","prefix":"tk","http":{"url":"https://mcp.example.com/mcp","headers":{"Authorization":{"secret":"tickets","before":"Bearer "}}},"trust_annotations":true}`)
	require.NoError(t, err)
	require.Equal(t, "files", servers[0].Prefix)
	require.Equal(t, mcp.Value{Secret: "files"}, servers[0].Stdio.Env["TOKEN"])
	require.Equal(t, mcp.Value{Text: "/usr/bin"}, servers[0].Stdio.Env["PATH"])
	require.Equal(t, 2*time.Minute, servers[0].Longest())
	require.Equal(t, mcp.Value{Secret: "tickets", Before: "Bearer "}, servers[1].HTTP.Headers["Authorization"])
	require.Equal(t, "mcp:tickets", servers[1].Provider())

	path := filepath.Join(t.TempDir(), "servers.json")
	require.NoError(t, os.WriteFile(path, []byte(`{"format":"openagents.runtime.mcp_servers","format_version":1,"servers":[]}`), 0o600))
	servers, err = mcp.Load(path)
	require.NoError(t, err)
	require.Empty(t, servers)
	servers, err = mcp.Load("")
	require.NoError(t, err)
	require.Empty(t, servers)
	_, err = mcp.Load(path + "x")
	require.Error(t, err)
}

func TestAFileSaysWhatToChange(t *testing.T) {
	t.Parallel()
	long, err := json.Marshal(strings.Repeat("x", 9000))
	require.NoError(t, err)
	for servers, says := range map[string]string{
		`{"name":"a"}`: "give either stdio or http",
		`{"name":"a","stdio":{"command":"x"},"http":{"url":"https://x.test"}}`: "give either stdio or http",
		`{"stdio":{"command":"x"}}`:                                                                                      "/servers/0: add name",
		`{"name":"A b","stdio":{"command":"x"}}`:                                                                         "/servers/0/name: must match",
		`{"name":"a","stdio":{"command":"x","env":{"A":{"token":"canary"}}}}`:                                            `/servers/0/stdio/env/A: must be a text, or {"secret": …}`,
		`{"name":"a","stdio":{"command":"x","user":"root"}}`:                                                             "/servers/0/stdio: take out user",
		`{"name":"a","stdio":{}}`:                                                                                        "/servers/0/stdio: add command",
		`{"name":"a","http":{"url":"https://x.test/?api_key=canary-canary-canary-0123"}}`:                                "http/url holds a secret",
		`{"name":"a","http":{"url":"ftp://x"}}`:                                                                          "/servers/0/http/url: must match",
		`{"name":"a","stdio":{"command":"x"},"timeout_ms":5}`:                                                            "/servers/0/timeout_ms: must be at least 100",
		`{"name":"a","stdio":{"command":"x"},"timeout_ms":"5"}`:                                                          "/servers/0/timeout_ms: must be integer",
		`{"name":"a","stdio":{"command":"x"},"tools":{"t":{"boundary":"never"}}}`:                                        "/servers/0/tools/t/boundary: must be one of",
		`{"name":"a","stdio":{"command":"x"}},{"name":"a","stdio":{"command":"y"}}`:                                      "/servers/1/name: another server is called a",
		`{"name":"a","stdio":{"command":"x"}},{"name":"b","prefix":"a","stdio":{"command":"y"}}`:                         "/servers/1/prefix: another server's tools begin with a",
		`{"name":"a","stdio":{"command":"x"},"allow":["[a"]}`:                                                            "allow/0 is no pattern",
		`{"name":"a","http":{"url":"https://x.test","headers":{"Authorization":"Bearer canary-canary"}}}`:                `http/headers/Authorization holds a secret; name it`,
		`{"name":"a","http":{"url":"https://x.test","headers":{"X-Note":"ghp_canary0123456789abcdefghijklmnopqrstuv"}}}`: `http/headers/X-Note looks like a secret; name it`,
		`{"name":"a","http":{"url":"https://x.test","headers":{"Mcp-Session-Id":"1"}}}`:                                  "is the transport's; leave it out",
		`{"name":"a","http":{"url":"https://x.test","headers":{"X-A":"1","x-a":"2"}}}`:                                   "is there twice",
		`{"name":"a","http":{"url":"https://x.test","headers":{"X-A":"1\r\nX-B: 2"}}}`:                                   "no header may have",
		`{"name":"a","stdio":{"command":"x","env":{"API_KEY":"canary-canary-canary"}}}`:                                  `stdio/env/API_KEY looks like a secret`,
		`{"name":"a","stdio":{"command":"x","args":["--token=ghp_canary0123456789abcdefghijklmnopqrstuv"]}}`:             "stdio/args/0 looks like a secret",
		`{"name":"a","stdio":{"command":` + string(long) + `}}`:                                                          "/servers/0/stdio/command",
		`{"name":"a","stdio":{"command":"x"},"tools":{"t":{"pin":"sha1:1"}}}`:                                            "/servers/0/tools/t/pin: must match",
	} {
		_, err := parse(servers)
		require.ErrorContains(t, err, says, servers)
		require.NotContains(t, err.Error(), "canary")
	}
	for _, raw := range []string{``, `[]`, `{`, `{"format":"other","format_version":1,"servers":[]}`, `{"servers":[]}`} {
		_, err := mcp.Parse([]byte(raw))
		require.ErrorContains(t, err, "MCP servers", raw)
	}
}

func FuzzFileOfServers(f *testing.F) {
	f.Add([]byte(`{"format":"openagents.runtime.mcp_servers","format_version":1,"servers":[{"name":"a","stdio":{"command":"x"}}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		servers, err := mcp.Parse(raw)
		if err == nil {
			for _, s := range servers {
				if (s.Stdio == nil) == (s.HTTP == nil) {
					t.Fatalf("%s", raw)
				}
			}
		}
	})
}

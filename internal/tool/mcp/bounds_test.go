package mcp_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

// instead answers calls of tools itself and leaves the rest to a server.
func instead(inner http.Handler, call http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if bytes.Contains(body, []byte(`"tools/call"`)) {
			call(w, r)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		inner.ServeHTTP(w, r)
	})
}

func old(s *mcp.Server) { s.ProtocolVersion = "2025-06-18" }

// Calls of a server that is down do not each knock at its door.
func TestAServerThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	var knocks atomic.Int32
	inner := handler(t, peer(""))
	s, _ := address(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			knocks.Add(1)
			w.WriteHeader(http.StatusNotFound) // the session is forgotten, and none is begun
			return
		}
		inner.ServeHTTP(w, r)
	}), old)
	r := listed(t, mcp.Config{}, s)
	each := r.tool(t, "peer.echo")
	down.Store(true)
	_, e := run(t.Context(), t, each, `{"text":"x"}`)
	require.NotNil(t, e)
	// What the end of the session sends is not a call's.
	eventually(t, "the end of the session", func() bool { return !r.Status()[0].Connected })
	for range 50 {
		_, e = run(t.Context(), t, each, `{"text":"x"}`)
		require.Equal(t, mcp.Unavailable, e.Class)
		require.Positive(t, e.RetryAfter)
		require.True(t, e.Retryable && e.ProviderFault && !e.Unknown)
	}
	require.Less(t, knocks.Load(), int32(10))
}

// A child that writes its log without end fills ours with a few lines of bounded
// length, and is not held up.
func TestTheLogOfAChildIsBounded(t *testing.T) {
	t.Parallel()
	s := mcp.Server{Name: "peer", Prefix: "peer", Stdio: &mcp.Stdio{Command: "/bin/sh", Args: []string{"-c",
		`i=0; while [ $i -lt 500 ]; do echo "line-${i}` + strings.Repeat("x", 900) + `" >&2; i=$((i+1)); done`}}}
	r := open(t, mcp.Config{}, s)
	_, err := r.Once(t.Context())
	require.Error(t, err, "it speaks no MCP")
	eventually(t, "its end", func() bool { return strings.Contains(r.log.String(), "process has ended") })
	require.Contains(t, r.log.String(), "line-0x")
	require.Contains(t, r.log.String(), "line-59x")
	require.NotContains(t, r.log.String(), "line-60x")
	for line := range strings.Lines(r.log.String()) {
		require.Less(t, len(line), 800)
	}
}

// What a child says last says why it ended.
func TestTheLastWordsOfAChildAreLogged(t *testing.T) {
	t.Parallel()
	s := mcp.Server{Name: "peer", Prefix: "peer", Stdio: &mcp.Stdio{Command: "/bin/sh", Args: []string{"-c",
		`i=0; while [ $i -lt 50 ]; do echo "line-${i}x"; i=$((i+1)); done >&2; echo "out of memory" >&2; exit 3`}}}
	r := open(t, mcp.Config{}, s)
	_, err := r.Once(t.Context())
	require.Error(t, err)
	eventually(t, "its end", func() bool { return strings.Contains(r.log.String(), "process has ended") })
	require.Contains(t, r.log.String(), "out of memory")
	said := r.Status()[0].Stderr
	require.Len(t, said, 8)
	require.Equal(t, []string{"line-43x", "out of memory"}, []string{said[0], said[7]}, "the status tells the end of it")
}

// Secrets that a child writes to its log do not reach ours.
func TestTheLogOfAChildIsRedacted(t *testing.T) {
	t.Parallel()
	canary := "canary0123456789" + "abcdefghijklmnopqrstuv"
	s := mcp.Server{Name: "peer", Prefix: "peer", Stdio: &mcp.Stdio{
		Command: "/bin/sh", Args: []string{"-c", `echo "logged in with ${HEAD}_$REST" >&2`},
		Env: map[string]mcp.Value{"HEAD": {Text: "ghp"}, "REST": {Text: canary}},
	}}
	r := open(t, mcp.Config{}, s)
	_, err := r.Once(t.Context())
	require.Error(t, err)
	eventually(t, "its end", func() bool { return strings.Contains(r.log.String(), "process has ended") })
	require.Contains(t, r.log.String(), "logged in with")
	require.NotContains(t, r.log.String(), canary)
	said := strings.Join(r.Status()[0].Stderr, "\n")
	require.Contains(t, said, "logged in with")
	require.NotContains(t, said, canary)
}

// An answer without end is not read to its end, whatever kind it says it is.
func TestAnAnswerWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"application/json", "text/event-stream", "text/html"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			const limit, most = 1 << 20, 128 << 20 // of one message; of a stream of many
			var sent atomic.Int64
			s, _ := address(t, instead(handler(t, peer("")), func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", kind)
				piece := bytes.Repeat([]byte("x"), 64<<10)
				for sent.Load() < most {
					n, err := w.Write(piece)
					if err != nil {
						return
					}
					sent.Add(int64(n))
				}
			}), old, func(s *mcp.Server) { s.MaxMessage = limit })
			r := listed(t, mcp.Config{}, s)
			_, e := r.call(t, "peer.echo", `{"text":"x"}`)
			require.NotNil(t, e)
			require.True(t, e.Unknown, "it may have had its effect")
			require.Less(t, sent.Load(), int64(most), "it was read to its end")
			_, e = r.call(t, "peer.echo", `{"text":"x"}`)
			require.NotNil(t, e)
		})
	}
}

// What a model reads of a schema has no characters that people do not see.
func TestTheTextsOfASchemaAreCleaned(t *testing.T) {
	t.Parallel()
	server := sdk.NewServer(&sdk.Implementation{Name: "peer", Version: "1"}, nil)
	server.AddTool(&sdk.Tool{Name: "look", InputSchema: map[string]any{"type": "object", "properties": map[string]any{
		"path": map[string]any{"type": "string", "description": "A\u202e path.\x1b[2J\U000e0041" + strings.Repeat("long ", 1000)},
	}}}, nil)
	s, _ := address(t, handler(t, server))
	input := string(listed(t, mcp.Config{}, s).tool(t, "peer.look").Spec().Input)
	require.Contains(t, input, "A path.[2J")
	for _, hidden := range []string{"\u202e", `\u202e`, `\u001b`, "\x1b", "\U000e0041"} {
		require.NotContains(t, input, hidden)
	}
	require.Less(t, len(input), 1200)
}

// A redirect is not followed, also with a client that would: whoever it leads to
// does not get the server's headers.
func TestARedirectGetsNoHeaders(t *testing.T) {
	t.Parallel()
	var came atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { came.Add(1) }))
	t.Cleanup(other.Close)
	s, web := address(t, instead(handler(t, peer("")), func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}), old, func(s *mcp.Server) { s.HTTP.Headers = map[string]mcp.Value{"X-Team": {Text: "red"}} })
	r := listed(t, mcp.Config{Client: func(mcp.Server) (*http.Client, error) {
		c := *web.Client()
		return &c, nil
	}}, s)
	_, e := r.call(t, "peer.echo", `{"text":"x"}`)
	require.NotNil(t, e)
	require.Zero(t, came.Load())
}

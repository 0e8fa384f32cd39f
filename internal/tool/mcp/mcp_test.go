package mcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/mcp"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(mode); kind != "" {
		if err := serve(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/openagentsinc/openagents-runtime/internal/tool/mcp.spawner"))
}

// lines is a log that a test reads.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// child is a server of some kind over stdio.
func child(t testing.TB, kind string, change ...func(*mcp.Server)) mcp.Server {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	s := mcp.Server{Name: "peer", Prefix: "peer", Stdio: &mcp.Stdio{
		Command: self, Env: map[string]mcp.Value{mode: {Text: kind}, "GORACE": {Text: "atexit_sleep_ms=0"}},
	}}
	for _, c := range change {
		c(&s)
	}
	return s
}

// address is a server over streamable HTTP on loopback.
func address(t testing.TB, h http.Handler, change ...func(*mcp.Server)) (mcp.Server, *httptest.Server) {
	t.Helper()
	web := httptest.NewServer(h)
	t.Cleanup(web.Close)
	s := mcp.Server{Name: "peer", Prefix: "peer", HTTP: &mcp.HTTP{URL: web.URL + "/mcp"}}
	for _, c := range change {
		c(&s)
	}
	return s, web
}

func handler(t testing.TB, s *sdk.Server) http.Handler {
	t.Cleanup(func() { // of clients that went away without a word
		for each := range s.Sessions() {
			_ = each.Close()
		}
	})
	return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil)
}

type rig struct {
	*mcp.Servers
	log     *lines
	changed chan []tool.Tool
}

// open makes servers that end with the test.
func open(t testing.TB, c mcp.Config, servers ...mcp.Server) rig {
	t.Helper()
	r := rig{log: &lines{}, changed: make(chan []tool.Tool, 100)}
	c.Servers, c.Logger = servers, slog.New(slog.NewJSONHandler(r.log, nil))
	c.Changed = func(tools []tool.Tool) { r.changed <- tools }
	c.Settle = time.Millisecond
	if c.Client == nil {
		var excepted []string
		for _, s := range servers {
			if s.HTTP != nil {
				host, _, _ := strings.Cut(strings.TrimPrefix(s.HTTP.URL, "http://"), "/")
				excepted = append(excepted, host)
			}
		}
		c.Client = mcp.Guarded(egress.GuardConfig{Exceptions: excepted})
	}
	r.Servers = mcp.New(c)
	t.Cleanup(r.Close)
	return r
}

// listed is open with the lists read.
func listed(t testing.TB, c mcp.Config, servers ...mcp.Server) rig {
	t.Helper()
	r := open(t, c, servers...)
	_, err := r.Once(t.Context())
	require.NoError(t, err, r.log)
	return r
}

func (r rig) tool(t testing.TB, name string) tool.Tool {
	t.Helper()
	for _, each := range r.Tools() {
		if each.Spec().Name == name {
			return each
		}
	}
	t.Fatalf("there is no %s: %v", name, r.Status())
	return nil
}

func quiet(json.RawMessage) error { return nil }

func (r rig) call(t testing.TB, name, input string) (string, *tool.Error) {
	t.Helper()
	return run(t.Context(), t, r.tool(t, name), input)
}

func run(ctx context.Context, t testing.TB, each tool.Tool, input string) (string, *tool.Error) {
	t.Helper()
	res, err := each.Run(ctx, tool.Call{
		RunID: "canary-run", ThreadID: "canary-thread", Owner: "user:4711", UserID: 4711, ToolCallID: "canary-call",
		Tool: each.Spec().Name, Input: json.RawMessage(input), IdempotencyKey: "key-1", Attempt: 1,
	}, quiet)
	if err == nil {
		return string(res.Output), nil
	}
	var told *tool.Error
	require.ErrorAs(t, err, &told)
	return "", told
}

// both runs a test against a server over each transport.
func both(t *testing.T, name string, f func(t *testing.T, r rig, mark string), change ...func(*mcp.Server)) {
	t.Helper()
	t.Run(name+"/stdio", func(t *testing.T) {
		t.Parallel()
		mark := filepath.Join(t.TempDir(), "mark")
		f(t, listed(t, mcp.Config{}, child(t, "sdk", append(change, func(s *mcp.Server) {
			s.Stdio.Env["MARK"] = mcp.Value{Text: mark}
		})...)), mark)
	})
	t.Run(name+"/http", func(t *testing.T) {
		t.Parallel()
		mark := filepath.Join(t.TempDir(), "mark")
		s, _ := address(t, handler(t, peer(mark)), change...)
		f(t, listed(t, mcp.Config{}, s), mark)
	})
	for _, version := range []string{"2025-06-18", "2025-11-25"} {
		t.Run(name+"/http "+version, func(t *testing.T) {
			t.Parallel()
			mark := filepath.Join(t.TempDir(), "mark")
			s, _ := address(t, handler(t, peer(mark)), append(change, func(s *mcp.Server) { s.ProtocolVersion = version })...)
			r := listed(t, mcp.Config{}, s)
			require.Equal(t, version, r.Status()[0].Protocol)
			f(t, r, mark)
		})
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 5*time.Millisecond, what)
}

func marked(t testing.TB, mark, want string) {
	t.Helper()
	eventually(t, want, func() bool {
		got, err := os.ReadFile(mark)
		return err == nil && string(got) == want
	})
}

func TestCalls(t *testing.T) {
	t.Parallel()
	both(t, "answers", func(t *testing.T, r rig, _ string) {
		out, e := r.call(t, "peer.echo", `{"text":"hi"}`)
		require.Nil(t, e)
		require.JSONEq(t, `{"structured":{"text":"hi"}}`, out)

		_, e = r.call(t, "peer.fail", `{}`)
		require.Equal(t, mcp.ToolError, e.Class)
		require.Equal(t, "the disk[2J is full", e.Message)
		require.False(t, e.Retryable || e.Unknown || e.ProviderFault)

		out, e = r.call(t, "peer.media", `{}`)
		require.Nil(t, e)
		require.JSONEq(t, `{"content":[
			{"type":"text","text":"ab"},
			{"type":"image","mime_type":"image/png","bytes":3,"base64":"cG5n"},
			{"type":"audio","mime_type":"audio/wav","bytes":100000,"omitted":true},
			{"type":"resource_link","uri":"file:///a","name":"a","mime_type":"text/plain"},
			{"type":"resource","uri":"file:///b","mime_type":"text/plain","text":"inside"},
			{"type":"resource","uri":"file:///c","bytes":2,"base64":"AQI="}]}`, out)
		require.True(t, r.Status()[0].Connected)
		require.Equal(t, "peer 1.2", r.Status()[0].Software)
	})
	both(t, "progress", func(t *testing.T, r rig, mark string) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		seen := make(chan string, 1)
		_, err := r.tool(t, "peer.steps").Run(ctx, tool.Call{Input: json.RawMessage(`{}`)}, func(raw json.RawMessage) error {
			seen <- string(raw)
			cancel()
			return nil
		})
		require.Error(t, err)
		require.JSONEq(t, `{"progress":1,"total":3,"message":"step"}`, <-seen)
		marked(t, mark, "canceled")
	})
	both(t, "cancel", func(t *testing.T, r rig, mark string) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan *tool.Error, 1)
		each := r.tool(t, "peer.slow")
		go func() {
			_, e := run(ctx, t, each, `{}`)
			done <- e
		}()
		marked(t, mark, "begun")
		cancel()
		e := <-done
		require.NotNil(t, e)
		require.True(t, e.Unknown, "it may have had its effect")
		marked(t, mark, "canceled")
		out, e := r.call(t, "peer.echo", `{"text":"on"}`)
		require.Nil(t, e, "the session goes on")
		require.Contains(t, out, "on")
		require.Equal(t, 1, r.Status()[0].Sessions)
	})
	both(t, "timeout", func(t *testing.T, r rig, mark string) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, e := run(ctx, t, r.tool(t, "peer.slow"), `{}`)
		require.NotNil(t, e)
		marked(t, mark, "canceled")
		_, e = r.call(t, "peer.echo", `{"text":"on"}`)
		require.Nil(t, e)
	})
	both(t, "at once", func(t *testing.T, r rig, _ string) {
		var wg sync.WaitGroup
		each := r.tool(t, "peer.echo")
		for i := range 64 {
			wg.Go(func() {
				out, e := run(t.Context(), t, each, fmt.Sprintf(`{"text":"n%d"}`, i))
				if e != nil || out != fmt.Sprintf(`{"structured":{"text":"n%d"}}`, i) {
					t.Errorf("%d: %s %v", i, out, e)
				}
			})
		}
		wg.Wait()
	})
	both(t, "people and models", func(t *testing.T, r rig, _ string) {
		_, e := r.call(t, "peer.ask", `{}`)
		require.NotNil(t, e)
		if e.Class != mcp.InputRequired { // servers of the newest version ask in another way
			require.Equal(t, mcp.ToolError, e.Class, e.Message)
			require.GreaterOrEqual(t, r.Status()[0].Protocol, "2026")
		} else {
			require.Equal(t, "The server wants to ask a person: Which branch?", e.Message)
		}
		_, e = r.call(t, "peer.need", `{}`)
		require.Equal(t, mcp.InputRequired, e.Class, e.Message)
		require.Equal(t, "The server wants to ask a person: Which branch?", e.Message)
		require.False(t, e.Retryable || e.Unknown || e.ProviderFault)
		_, e = r.call(t, "peer.sample", `{}`)
		require.NotNil(t, e, "models are not for servers")
		require.Equal(t, mcp.ToolError, e.Class)
	})
	both(t, "nothing of the caller", func(t *testing.T, r rig, _ string) {
		out, e := r.call(t, "peer.put", `{}`)
		require.Nil(t, e)
		require.NotContains(t, out, "canary")
		require.NotContains(t, out, "4711")
		require.Contains(t, out, "key-1")
	})
	both(t, "a list that changes", func(t *testing.T, r rig, _ string) {
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		_, e := r.call(t, "peer.grow", `{}`)
		require.Nil(t, e)
		eventually(t, "the new tool", func() bool {
			for _, each := range r.Tools() {
				if each.Spec().Name == "peer.grown" {
					return true
				}
			}
			return false
		})
		require.NotEmpty(t, r.changed)
		out, e := r.call(t, "peer.grown", `{}`)
		require.Nil(t, e)
		require.JSONEq(t, `{"content":[{"type":"text","text":"new"}]}`, out)
		stop()
		require.NoError(t, <-ended)
	})
	both(t, "large", func(t *testing.T, r rig, _ string) {
		out, e := r.call(t, "peer.big", `{"bytes":1000000}`)
		require.Nil(t, e)
		require.Greater(t, len(out), 1_000_000)
		_, e = r.call(t, "peer.big", `{"bytes":3000000}`)
		require.NotNil(t, e)
		require.Equal(t, mcp.Lost, e.Class, e.Message)
		require.True(t, e.Unknown && e.Retryable && e.ProviderFault)
		eventually(t, "the server again", func() bool {
			_, e = r.call(t, "peer.echo", `{"text":"on"}`)
			return e == nil
		})
	}, func(s *mcp.Server) { s.MaxMessage = 2 << 20 })
}

func TestWhatAToolIsHere(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	for _, c := range []struct {
		name                        string
		change                      func(*mcp.Server)
		tool                        string
		writes, approval, safeRetry bool
	}{
		{"a claim is not believed", nil, "peer.echo", true, true, false},
		{"unless the file says so", func(s *mcp.Server) { s.TrustAnnotations = true }, "peer.echo", false, false, true},
		{"idempotent writes", func(s *mcp.Server) { s.TrustAnnotations = true }, "peer.put", true, true, true},
		{"no claim", func(s *mcp.Server) { s.TrustAnnotations = true }, "peer.fail", true, true, false},
		{"the file knows better", func(s *mcp.Server) {
			s.Tools = map[string]mcp.Rules{"fail": {Writes: &no}}
		}, "peer.fail", false, false, true},
		{"and is precise", func(s *mcp.Server) {
			s.Tools = map[string]mcp.Rules{"fail": {Writes: &yes, Approval: &no, Boundary: tool.SafeRetry}}
		}, "peer.fail", true, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, _ := address(t, handler(t, peer("")), func(s *mcp.Server) {
				if c.change != nil {
					c.change(s)
				}
			})
			spec := listed(t, mcp.Config{}, s).tool(t, c.tool).Spec()
			require.Equal(t, []bool{c.writes, c.approval, c.safeRetry}, []bool{spec.Writes, spec.NeedsApproval, spec.Boundary == tool.SafeRetry})
			require.Equal(t, "mcp:peer", spec.Provider)
			require.Equal(t, tool.MCP, spec.Kind)
			require.Equal(t, []string{"mcp"}, spec.Groups)
			if c.tool == "peer.echo" {
				require.Equal(t, "Says it again.[31m", spec.Description)
				require.Equal(t, "Echo", spec.Title)
			}
			_, err := tool.NewCatalog(listed(t, mcp.Config{}, s).Tools()...)
			require.NoError(t, err)
		})
	}
}

func TestWhichToolsAreTaken(t *testing.T) {
	t.Parallel()
	s, _ := address(t, handler(t, peer("")), func(s *mcp.Server) {
		s.Allow, s.Deny = []string{"e*", "fail", "put", "slow"}, []string{"en*"}
		s.Tools = map[string]mcp.Rules{"put": {Pin: "sha256:" + strings.Repeat("0", 64)}}
	})
	r := listed(t, mcp.Config{Taken: func(name string) bool { return name == "peer.slow" }}, s)
	var names []string
	for _, each := range r.Tools() {
		names = append(names, each.Spec().Name)
	}
	require.Equal(t, []string{"peer.echo", "peer.fail"}, names)
	st := r.Status()[0]
	require.Equal(t, []mcp.Refused{{"put", "its definition is not the one that was pinned"}, {"slow", "there is another tool called peer.slow"}}, st.Refused)
	require.Contains(t, r.log.String(), "its definition is not the one that was pinned")

	s.Tools = map[string]mcp.Rules{"fail": {Pin: st.Tools[1].Digest}}
	require.Len(t, listed(t, mcp.Config{}, s).Tools(), 4, "the digest that is shown is the one to pin")

	n, err := r.Once(t.Context())
	require.NoError(t, err)
	require.Zero(t, n, "nothing is due")
	require.Len(t, r.changed, 1)
}

func TestServersThatMisbehave(t *testing.T) {
	t.Parallel()
	short := func(s *mcp.Server) { s.ConnectMS = 700 }
	for kind, says := range map[string]string{
		"deaf": "does not answer", "hang": "does not answer", "garbage": "MCP server peer", "exit": "MCP server peer", "deep": "MCP server peer",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := open(t, mcp.Config{}, child(t, kind, short))
			_, err := r.Once(t.Context())
			require.ErrorContains(t, err, says)
			require.Empty(t, r.Tools())
			n, err := r.Once(t.Context())
			require.NoError(t, err, "it is not tried again at once")
			require.Zero(t, n)
			require.NotEmpty(t, r.Status()[0].Problem)
			if kind == "exit" {
				eventually(t, "its log", func() bool { return strings.Contains(r.log.String(), "canary-of-the-log") })
				require.NotContains(t, r.log.String(), "abcdefghijklmnop", "secrets are taken out")
			}
		})
	}
	for kind, why := range map[string]string{
		"remote": "$ref must be #", "bomb": "for ever", "array": "not one of an object", "deepish": "schema",
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			r := listed(t, mcp.Config{}, child(t, kind))
			require.Len(t, r.Tools(), 1, "the other tool is taken")
			st := r.Status()[0]
			require.Len(t, st.Refused, 1)
			require.Contains(t, st.Refused[0].Why, why)
		})
	}
	t.Run("many", func(t *testing.T) {
		t.Parallel()
		r := listed(t, mcp.Config{}, child(t, "many"))
		require.Len(t, r.Tools(), 128)
		require.Equal(t, 10_000-128, r.Status()[0].Ignored)
		r = listed(t, mcp.Config{}, child(t, "many", func(s *mcp.Server) { s.Allow = []string{"t9999"} }))
		require.Len(t, r.Tools(), 1, "what is wanted is found among them")
	})
	t.Run("pages without end", func(t *testing.T) {
		t.Parallel()
		require.Len(t, listed(t, mcp.Config{}, child(t, "pages")).Tools(), 64)
	})
	t.Run("flood", func(t *testing.T) {
		t.Parallel()
		r := listed(t, mcp.Config{}, child(t, "flood"))
		_, e := r.call(t, "peer.plain", `{}`)
		require.NotNil(t, e)
		require.Equal(t, mcp.Lost, e.Class)
		require.Contains(t, e.Message, "floods")
	})
	t.Run("nonsense", func(t *testing.T) {
		t.Parallel()
		r := listed(t, mcp.Config{}, child(t, "nonsense"))
		_, e := r.call(t, "peer.plain", `{}`)
		require.Equal(t, "answer_invalid", e.Class)
		require.True(t, e.Unknown)
		require.True(t, r.Status()[0].Connected)
	})
	t.Run("a method that is not there", func(t *testing.T) {
		t.Parallel()
		r := listed(t, mcp.Config{}, child(t, "plain"))
		_, e := r.call(t, "peer.plain", `{}`)
		require.Equal(t, "not_found", e.Class)
		require.False(t, e.Unknown)
	})
}

func TestAServerThatDies(t *testing.T) {
	t.Parallel()
	r := listed(t, mcp.Config{}, child(t, "sdk"))
	each := r.tool(t, "peer.die")
	_, e := run(t.Context(), t, each, `{}`)
	require.Equal(t, mcp.Lost, e.Class)
	require.True(t, e.Unknown && e.Retryable && e.ProviderFault)
	_, e = run(t.Context(), t, r.tool(t, "peer.echo"), `{"text":"x"}`)
	if e != nil {
		require.Equal(t, mcp.Unavailable, e.Class)
		require.Positive(t, e.RetryAfter)
		require.False(t, e.Unknown, "nothing was sent")
	}
	eventually(t, "the server again", func() bool {
		_, e := run(t.Context(), t, r.tool(t, "peer.echo"), `{"text":"x"}`)
		return e == nil
	})
	require.Equal(t, 2, r.Status()[0].Sessions)

	for range 3 { // each time it waits longer
		run(t.Context(), t, each, `{}`)
	}
	require.LessOrEqual(t, r.Status()[0].Sessions, 4)
}

// A server that lets a call time out and does not answer anything else either is
// ended, and begun again.
func TestAServerThatStopsAnswering(t *testing.T) {
	t.Parallel()
	r := listed(t, mcp.Config{}, child(t, "sdk"))
	pid := r.pid(t)
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	eventually(t, "its stop", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err == nil && strings.HasPrefix(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " T")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, e := run(ctx, t, r.tool(t, "peer.echo"), `{"text":"x"}`)
	require.NotNil(t, e)
	eventually(t, "its end", func() bool { return syscall.Kill(pid, 0) != nil })
	eventually(t, "another", func() bool {
		_, e := run(t.Context(), t, r.tool(t, "peer.echo"), `{"text":"x"}`)
		return e == nil
	})
}

// pid is the child's parent as the child's child knows it.
func (r rig) pid(t testing.TB) int {
	t.Helper()
	orphan := r.orphan(t)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", orphan))
	require.NoError(t, err)
	fields := strings.Fields(string(stat))
	pid, err := strconv.Atoi(fields[3])
	require.NoError(t, err)
	return pid
}

func (r rig) orphan(t testing.TB) int {
	t.Helper()
	out, e := r.call(t, "peer.orphan", `{}`)
	require.Nil(t, e)
	var o struct{ Content []struct{ Text string } }
	require.NoError(t, json.Unmarshal([]byte(out), &o))
	pid, err := strconv.Atoi(o.Content[0].Text)
	require.NoError(t, err)
	return pid
}

func TestAChildLeavesNobodyBehind(t *testing.T) {
	t.Parallel()
	r := listed(t, mcp.Config{}, child(t, "sdk"))
	orphan := r.orphan(t)
	require.NoError(t, syscall.Kill(orphan, 0))
	r.Close()
	eventually(t, "the end of all", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", orphan))
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	_, e := run(t.Context(), t, r.tool(t, "peer.echo"), `{"text":"x"}`)
	require.Equal(t, mcp.Unavailable, e.Class, "a closed server stays so")
}

func TestAChildSeesNothingOfOurs(t *testing.T) {
	t.Setenv("RUNTIME_CANARY", "canary")
	get := func(_ context.Context, name string) (secret.Value, error) {
		store, err := secret.New(secret.Config{Static: map[string]string{"files": "the-secret-of-files"}})
		if err != nil {
			return secret.Value{}, err
		}
		return store.Get(context.Background(), secret.Scope{Provider: name})
	}
	dir := t.TempDir()
	r := listed(t, mcp.Config{Secret: get}, child(t, "sdk", func(s *mcp.Server) {
		s.Stdio.Dir = dir
		s.Stdio.Env["TOKEN"] = mcp.Value{Secret: "files", Before: "Bearer "}
	}))
	out, e := r.call(t, "peer.env", `{}`)
	require.Nil(t, e)
	require.NotContains(t, out, "canary")
	require.NotContains(t, out, "PATH=")
	require.Contains(t, out, "TOKEN=Bearer the-secret-of-files")
	require.Contains(t, out, "dir="+dir)

	r = open(t, mcp.Config{Secret: get}, child(t, "sdk", func(s *mcp.Server) { s.Stdio.Env["TOKEN"] = mcp.Value{Secret: "other"} }))
	_, err := r.Once(t.Context())
	require.ErrorContains(t, err, "TOKEN")
}

func TestHeadersOfAServer(t *testing.T) {
	t.Parallel()
	inner := handler(t, peer(""))
	got := make(chan http.Header, 100)
	s, _ := address(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Clone()
		if r.Header.Get("Authorization") != "Bearer a-secret-token" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}), func(s *mcp.Server) {
		s.HTTP.Headers = map[string]mcp.Value{"Authorization": {Secret: "token", Before: "Bearer "}, "X-Team": {Text: "red"}}
	})
	store, err := secret.New(secret.Config{Static: map[string]string{"token": "a-secret-token", "bad": "another-token"}})
	require.NoError(t, err)
	get := func(ctx context.Context, name string) (secret.Value, error) {
		return store.Get(ctx, secret.Scope{Provider: name})
	}
	r := listed(t, mcp.Config{Secret: get}, s)
	_, e := r.call(t, "peer.echo", `{"text":"x"}`)
	require.Nil(t, e)
	for range len(got) {
		h := <-got
		require.Equal(t, "red", h.Get("X-Team"))
		require.Empty(t, h.Get("Traceparent"))
		require.NotContains(t, fmt.Sprint(h), "4711")
	}
	s.HTTP.Headers = map[string]mcp.Value{"Authorization": {Secret: "bad", Before: "Bearer "}}
	_, err = open(t, mcp.Config{Secret: get}, s).Once(t.Context())
	require.Error(t, err)
	require.NotContains(t, err.Error(), "another-token")
}

// A server that was started anew knows no session: the call is made in another.
func TestASessionThatTheServerForgot(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	inner := handler(t, peer(""))
	s, _ := address(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		h := inner
		mu.Unlock()
		h.ServeHTTP(w, r)
	}), func(s *mcp.Server) { s.ProtocolVersion = "2025-06-18" })
	r := listed(t, mcp.Config{}, s)
	mu.Lock()
	inner = handler(t, peer(""))
	mu.Unlock()
	_, e := r.call(t, "peer.echo", `{"text":"x"}`)
	require.Nil(t, e)
	require.Equal(t, 2, r.Status()[0].Sessions)
}

func TestAnswersOfTheWeb(t *testing.T) {
	t.Parallel()
	for status, class := range map[int]string{401: "unauthorized", 403: "forbidden", 429: "rate_limited", 500: "provider_error", 503: "provider_error", 307: "answer_invalid"} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			inner := handler(t, peer(""))
			s, _ := address(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if bytes.Contains(body, []byte("tools/call")) {
					if status == 429 {
						w.Header().Set("Retry-After", "7")
					}
					w.Header().Set("Location", "http://127.0.0.1:9/")
					w.WriteHeader(status)
					return
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				inner.ServeHTTP(w, r)
			}), func(s *mcp.Server) { s.ProtocolVersion = "2025-06-18" })
			r := listed(t, mcp.Config{}, s)
			_, e := r.call(t, "peer.echo", `{"text":"x"}`)
			require.NotNil(t, e)
			require.Equal(t, class, e.Class, e.Message)
			if status == 429 {
				require.Equal(t, 7*time.Second, e.RetryAfter)
			}
		})
	}
	t.Run("cut off", func(t *testing.T) {
		t.Parallel()
		inner := handler(t, peer(""))
		s, _ := address(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if bytes.Contains(body, []byte("tools/call")) {
				w.Header().Set("Content-Type", "text/event-stream")
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
			inner.ServeHTTP(w, r)
		}))
		r := listed(t, mcp.Config{}, s)
		_, e := r.call(t, "peer.echo", `{"text":"x"}`)
		require.Equal(t, mcp.Lost, e.Class, e.Message)
		require.True(t, e.Unknown && e.Retryable && e.ProviderFault)
	})
	t.Run("gone", func(t *testing.T) {
		t.Parallel()
		s, web := address(t, handler(t, peer("")))
		r := listed(t, mcp.Config{}, s)
		web.CloseClientConnections()
		web.Listener.Close()
		_, e := r.call(t, "peer.echo", `{"text":"x"}`)
		require.NotNil(t, e)
		require.False(t, e.Unknown, "%+v", e)
		require.True(t, e.Retryable && e.ProviderFault)
	})
}

func TestLoopbackIsForThoseThatAreExcepted(t *testing.T) {
	t.Parallel()
	s, _ := address(t, handler(t, peer("")))
	r := open(t, mcp.Config{Client: mcp.Guarded(egress.GuardConfig{})}, s)
	_, err := r.Once(t.Context())
	require.ErrorContains(t, err, "the scheme must be https")
}

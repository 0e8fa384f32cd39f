package contracttest_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func TestA20Smuggling(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A20", contracttest.Options{})
	inner := s.head(t, s.cancel()) + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(`{"reason":"attack"}`), `{"reason":"attack"}`)
	outer := contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.ended + "/cancel"}

	chunked := s.head(t, outer) + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s", 5+len(inner), inner)
	resp, c := s.raw(t, chunked)
	require.Equal(t, http.StatusOK, resp.StatusCode, "the end of the chunks ends the body, which is empty and signed as such")
	require.Empty(t, c.closed(t), "what follows is not read as a request")
	s.note(t, "Content-Length and Transfer-Encoding, a request hidden behind the chunks", "the connection closes, the hidden request is not read")

	for name, header := range map[string]string{
		"two different Content-Lengths": "Content-Length: 0\r\nContent-Length: 19\r\n", "a list of Content-Lengths": "Content-Length: 0, 19\r\n",
		"a Content-Length with a sign": "Content-Length: +19\r\n", "a negative Content-Length": "Content-Length: -1\r\n", "a Content-Length in hex": "Content-Length: 0x13\r\n",
	} {
		resp, c := s.raw(t, s.head(t, outer)+header+"\r\n"+inner)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		require.Empty(t, c.closed(t))
		s.note(t, name, "400 invalid_request, the connection closes")
	}
	for name, header := range map[string]string{
		"an unknown Transfer-Encoding": "Transfer-Encoding: xchunked\r\n", "two Transfer-Encodings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"gzip, chunked": "Transfer-Encoding: gzip, chunked\r\n",
	} {
		resp, c := s.raw(t, s.head(t, outer)+header+"\r\n"+inner)
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		require.Empty(t, c.closed(t))
		s.note(t, name, "400 invalid_request, the connection closes")
	}
	for name, header := range map[string]string{
		"a space before the colon": "Content-Length : 0\r\n", "a header without a colon": "Content-Length 0\r\n", "no name": ": 0\r\n",
	} {
		resp, _ := s.raw(t, s.head(t, outer)+header+"\r\n")
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		s.note(t, name, "400 invalid_request")
	}
	folded := strings.Replace(s.head(t, outer), "X-Oa-Runtime-Signature: v1.", "X-Oa-Runtime-Signature: v1.\r\n ", 1)
	resp, _ = s.raw(t, folded+"Content-Length: 0\r\n\r\n")
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	s.note(t, "a folded signature header", "401 unauthorized malformed_token")
	folded = strings.Replace(s.head(t, outer), "X-Oa-User-Id: 1\r\n", "X-Oa-User-Id: 1\r\n 2\r\n", 1)
	resp, _ = s.raw(t, folded+"Content-Length: 0\r\n\r\n")
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	s.note(t, "a folded principal header", "401 unauthorized invalid_principal")

	token := s.head(t, contracttest.Request{Target: "/internal/v1/health"})
	old := strings.Replace(token, "HTTP/1.1", "HTTP/1.0", 1) + "Connection: keep-alive\r\n\r\n"
	resp, c = s.raw(t, old+old)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	second := c.answer(t)
	require.Equal(t, http.StatusUnauthorized, second.StatusCode, "a connection gives no right to the next request")
	s.note(t, "HTTP/1.0 keep-alive, the same request twice", "401 unauthorized nonce_replayed")
	resp, _ = s.raw(t, strings.Replace(s.head(t, outer), "HTTP/1.1", "HTTP/1.0", 1)+"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"+inner)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	s.note(t, "HTTP/1.0 with Transfer-Encoding, a request hidden behind", "the connection closes, the hidden request is not read")
	resp, _ = s.raw(t, strings.Replace(s.head(t, contracttest.Request{Target: "/internal/v1/health"}), "GET /", "GET http://"+s.Address+"/", 1)+"\r\n")
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	s.note(t, "the same path as a whole URL", "401 unauthorized request_mismatch")
}

func TestA21SlowAndSilentClients(t *testing.T) {
	t.Parallel()
	const brief = 300 * time.Millisecond
	s := besiege(t, "A21", contracttest.Options{
		Config: server.Config{BodyTimeout: brief, WriteTimeout: brief}, HTTP: server.HTTPConfig{ReadHeaderTimeout: brief, IdleTimeout: brief, MaxConns: 8},
		Stream: stream.Config{WriteTimeout: brief},
	})
	silent := s.dial(t)
	silent.send(t, "GET /internal/v1/health HTTP/1.1\r\nHost: x\r\n")
	silent.closed(t)
	s.note(t, "a header that never ends", "the connection closes after ReadHeaderTimeout")

	dripping := s.dial(t)
	drip := time.NewTicker(20 * time.Millisecond)
	defer drip.Stop()
	begun := time.Now()
	for range drip.C {
		if _, err := io.WriteString(dripping, "x"); err != nil {
			break
		}
		require.Less(t, time.Since(begun), 10*time.Second, "a dripping header keeps its connection")
	}
	s.note(t, "a header that drips, a byte at a time", "the connection closes after ReadHeaderTimeout")

	idle := s.dial(t)
	idle.send(t, s.head(t, contracttest.Request{Target: "/internal/v1/health"})+"\r\n")
	require.Equal(t, http.StatusOK, idle.answer(t).StatusCode)
	require.Empty(t, idle.closed(t))
	s.note(t, "an idle connection", "the connection closes after IdleTimeout")

	resp, c := s.raw(t, s.head(t, s.cancel())+"Content-Length: 19\r\n\r\n{\"rea")
	require.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `"request_timeout"`)
	require.Empty(t, c.closed(t))
	s.note(t, "a body that never ends", "408 request_timeout, the connection closes")

	s.neverRead(t)

	var open []*rawConn
	for range 64 {
		c := s.dial(t)
		_, _ = io.WriteString(c, "GET /internal/v1/health HTTP/1.1\r\n") // one that waits in the queue may be reset
		open = append(open, c)
	}
	require.Equal(t, http.StatusOK, s.Do(t, contracttest.Request{Target: "/internal/v1/health"}).Status)
	s.note(t, "64 half-open connections against a limit of 8", "bounded by MaxConns, cut off one by one, a right request is served")
	for _, c := range open {
		require.NoError(t, c.Close())
	}
}

// neverRead asks for much, as a stream and as a page, and does not read it.
func (s *siege) neverRead(t *testing.T) {
	t.Helper()
	e := runtest.Envelope()
	e.RunID = "run-long"
	r := runtest.Start(t, s.Pool, e)
	for range 16 {
		s.Happen(t, r, event.MessageDeltaV1{PartID: "t1", Delta: strings.Repeat("x", 1<<20)})
	}
	s.before = s.state(t)
	for operation, path := range map[string]string{"streamRun": "/stream", "listRunEvents": "/events?limit=1000"} {
		c := s.dial(t)
		require.NoError(t, c.Conn.(*net.TCPConn).SetReadBuffer(4096))
		c.send(t, s.head(t, contracttest.Request{Target: "/internal/v1/runs/run-long" + path})+"\r\n")
		require.Eventually(t, func() bool { return strings.Contains(s.Log.String(), `"operation":"`+operation+`"`) }, 15*time.Second, 20*time.Millisecond,
			"a reader that does not read is not cut off")
		s.note(t, "an answer of 16 MB that is never read: "+operation, "cut off after one write's deadline")
	}
}

func TestA49OperationsAndHealth(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A49", contracttest.Options{})
	s.refuse(t, "health without a token", contracttest.Request{Target: "/internal/v1/health", Token: contracttest.NoToken}, "unauthorized", "missing_token")
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/", "/debug/pprof/heap", "/debug/vars", "/", "/internal/v1", "/internal/v1/", "/internal/v1/metrics"} {
		s.refuse(t, path+" on the API's listener", contracttest.Request{Target: path}, "route_not_found", "")
	}
	for _, path := range []string{"/internal/v1/health/", "//internal/v1/health", "/internal/v1/../v1/health", "/internal/v1/%68ealth", "/INTERNAL/v1/health", "/internal/v1/runs//stream"} {
		s.refuse(t, "another spelling of a route: "+path, contracttest.Request{Target: path}, "route_not_found", "")
	}
	ops := s.operations(t)
	for _, op := range api.Operations() {
		target := strings.NewReplacer("{runId}", s.live, "{threadId}", "thread-1").Replace(op.Path)
		req, err := http.NewRequestWithContext(t.Context(), op.Method, "http://"+ops+target, nil)
		require.NoError(t, err)
		req.Header = s.Headers(t, contracttest.Request{Method: op.Method, Target: target})
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	}
	s.note(t, "every route of the API on the operations listener", "404")
}

// operations starts the operations listener.
func (s *siege) operations(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := &http.Server{Handler: server.NewOps(server.OpsConfig{Version: "1", Logger: s.Logger, Metrics: s.Process.Metrics}), ReadHeaderTimeout: time.Second}
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	t.Cleanup(func() {
		require.NoError(t, h.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	return l.Addr().String()
}

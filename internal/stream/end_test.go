package stream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

const shortly = 5 * time.Millisecond // between two looks at what must come true

func TestAStreamSaysWhatItIsBeforeItHasEvents(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{Retry: 1234 * time.Millisecond})
	r := runtest.Run(t, g.Pool)
	resp := g.get(t, r, 1)
	first, err := blocksOf(resp).any()
	require.NoError(t, err)
	require.Equal(t, ": stream-open\nretry: 1234\n\n", first)
	for name, value := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no",
		"X-Content-Type-Options": "nosniff", "X-Vercel-Ai-Ui-Message-Stream": "v1", "X-Oa-Run-Id": r.RunID,
	} {
		require.Equal(t, []string{value}, resp.Header[name], name)
	}
}

func TestAQuietStreamIsKeptAlive(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{Heartbeat: 10 * time.Millisecond})
	live := blocksOf(g.get(t, runtest.Run(t, g.Pool), 1))
	_, err := live.any()
	require.NoError(t, err)
	for range 3 {
		block, err := live.any()
		require.NoError(t, err)
		require.Equal(t, ": keep-alive\n\n", block)
	}
}

func TestADrainBreaksOffAndSpreadsTheReturn(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{Retry: time.Second, DrainSpread: 3 * time.Second})
	r := runtest.Run(t, g.Pool)
	var live []blocks
	for range 8 {
		l := blocksOf(g.get(t, r, 0))
		l.until(t, 1)
		live = append(live, l)
	}
	g.h.Shutdown()
	seen := map[string]bool{}
	for _, l := range live {
		rest := l.brokenEnd(t)
		require.Regexp(t, regexp.MustCompile(`^retry: [1-3]\d{3}\n\n$`), rest)
		seen[rest] = true
	}
	require.Greater(t, len(seen), 1, "all clients are told the same time")
	g.ended(t, "drained", 8)
}

func TestALostDatabaseBreaksTheStreamOff(t *testing.T) {
	t.Parallel()
	writer := runtest.NewProcess(t, dbtest.New(t))
	pool := secondPool(t)
	g := newRigOn(t, pool, stream.Config{})
	r := runtest.Run(t, writer.Pool)
	live := blocksOf(g.get(t, r, 0))
	live.until(t, 1)
	pool.Close()
	g.Watch.Notified("another," + r.RunKey.String())
	require.Empty(t, events(live.brokenEnd(t)))
	g.ended(t, "failed", 1)
}

func TestAPanicBreaksTheStreamOff(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{}, func(s *httptest.Server) {
		next := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(&panicking{ResponseWriter: w, after: 2}, r)
		})
	})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply("a")...)
	require.NotContains(t, blocksOf(g.get(t, r, 0)).brokenEnd(t), "[DONE]")
	g.ended(t, "failed", 1)
}

// panicking panics at one of its writes.
type panicking struct {
	http.ResponseWriter
	after int
}

func (p *panicking) Unwrap() http.ResponseWriter { return p.ResponseWriter }

func (p *panicking) Write(b []byte) (int, error) {
	if p.after--; p.after == 0 {
		panic("a fault")
	}
	return p.ResponseWriter.Write(b)
}

func TestAConnectionGoesOnAfterACleanEnd(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{WriteTimeout: 200 * time.Millisecond})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply("a")...)
	conn := dial(t, g)
	in := bufio.NewReader(conn)
	ask(t, conn, g, r, "HTTP/1.1")
	resp, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, g.wanted(t, r), events(string(body)))

	<-time.After(250 * time.Millisecond) // past the stream's write deadline, which must not hold for what follows
	ask(t, conn, g, db.Run{RunID: "none"}, "HTTP/1.1")
	resp, err = http.ReadResponse(in, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
}

func TestHTTP10IsAnsweredUnchunked(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply("a")...)
	conn := dial(t, g)
	ask(t, conn, g, r, "HTTP/1.0")
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	head, body, _ := strings.Cut(string(all), "\r\n\r\n")
	require.NotContains(t, strings.ToLower(head), "transfer-encoding")
	require.Equal(t, g.wanted(t, r), events(body))
}

// There the body ends with the connection, so a broken end must be a reset.
func TestHTTP10IsBrokenOffByAReset(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	conn := dial(t, g)
	ask(t, conn, g, r, "HTTP/1.0")
	blocks{bufio.NewReader(conn)}.until(t, 1)
	g.h.Shutdown()
	_, err := io.ReadAll(conn)
	require.ErrorContains(t, err, "reset")
}

func dial(t testing.TB, g *rig) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", g.srv.Listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

func ask(t testing.TB, conn net.Conn, g *rig, r db.Run, proto string) {
	t.Helper()
	_, err := fmt.Fprintf(conn, "GET %s %s\r\nHost: runtime\r\n\r\n", strings.TrimPrefix(g.url(r), g.srv.URL), proto)
	require.NoError(t, err)
}

// A reader that does not read is cut off when a write takes too long, and
// meanwhile the others get everything.
func TestASlowReaderIsCutOffWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{WriteTimeout: 500 * time.Millisecond}, func(s *httptest.Server) {
		s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10) // smaller only makes the test shorter
			return ctx
		}
	})
	r := runtest.Run(t, g.Pool)
	slow := dial(t, g)
	require.NoError(t, slow.(*net.TCPConn).SetReadBuffer(4<<10))
	ask(t, slow, g, r, "HTTP/1.1")
	whole := make(chan string, 1)
	resp := g.get(t, r, 0)
	go func() {
		body, _ := io.ReadAll(resp.Body)
		whole <- events(string(body))
	}()

	long := strings.Repeat("x", 64<<10)
	script := runtest.Reply(long, long, long, long, long, long, long, long, long, long, long, long, long, long, long, long)
	g.Append(t, r, script[:len(script)-2]...)
	g.ended(t, "slow_reader", 1)
	g.Append(t, r, script[len(script)-2:]...)
	require.Equal(t, g.wanted(t, r), <-whole)

	late, err := http.ReadResponse(bufio.NewReader(slow), nil)
	require.NoError(t, err)
	blocksOf(late).brokenEnd(t)
}

// This test is not parallel, so that no other test's goroutines are counted.
func TestStreamsLeaveNoGoroutines(t *testing.T) { //nolint:paralleltest // see above
	p := runtest.NewProcess(t, dbtest.New(t))
	ended, live := runtest.Run(t, p.Pool), runtest.Run(t, p.Pool)
	p.Append(t, ended, runtest.Reply("a")...)
	before := goleak.IgnoreCurrent()

	h := stream.New(p.Pool, p.Watch, stream.Config{}, p.Metrics)
	srv := httptest.NewServer(runtest.Streams(p.Pool, h))
	g := &rig{Process: p, h: h, srv: srv}
	for range 5 {
		g.readAll(t, ended, 0)
	}
	var left []blocks
	for i := range 10 {
		resp := g.get(t, live, 0)
		b := blocksOf(resp)
		b.until(t, 1)
		if i%2 == 0 {
			require.NoError(t, resp.Body.Close())
		} else {
			left = append(left, b)
		}
	}
	p.Append(t, live, event.RunStartedV1{MessageID: "m"})
	for _, b := range left {
		b.until(t, 2)
	}
	h.Shutdown()
	for _, b := range left {
		b.brokenEnd(t)
	}
	srv.Close()
	goleak.VerifyNone(t, before)
	require.Zero(t, g.count(t, "stream_readers", ""))
	require.Empty(t, p.Watch.Followed())
}

package server_test

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/server"
)

func TestAListenerHasOnlySoManyConnections(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := server.HTTPConfig{MaxConns: 2}
	s := server.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), c, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s, l, c) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	open := func() (net.Conn, *bufio.Reader) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		return conn, bufio.NewReader(conn)
	}
	answered := func(r *bufio.Reader) {
		resp, err := http.ReadResponse(r, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusNoContent, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
	}
	first, r1 := open()
	answered(r1)
	_, r2 := open()
	answered(r2)
	third, r3 := open()
	require.NoError(t, third.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = r3.ReadByte()
	require.ErrorContains(t, err, "timeout", "a third connection waits")
	require.NoError(t, third.SetReadDeadline(time.Now().Add(10*time.Second)))
	require.NoError(t, first.Close())
	answered(r3)
}

func TestNegativeLimitsAreRefused(t *testing.T) {
	t.Parallel()
	require.Error(t, server.HTTPConfig{MaxConns: -1}.Validate())
	require.Error(t, server.Config{BodyTimeout: -1}.Validate())
	require.NoError(t, server.HTTPConfig{}.Validate())
	_, err := server.New(server.Config{BodyTimeout: -1}, server.Deps{})
	require.Error(t, err)
}

// A connection that a handler took over is served again when the handler gives it
// back, beginning with what was read of the next request, and keeps its place.
func TestAConnectionThatWasTakenOverComesBack(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := server.HTTPConfig{MaxConns: 1}
	back := make(chan bool, 1)
	s := server.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/take" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		go func() {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			some := make([]byte, 5)
			n, _ := io.ReadFull(conn, some)
			back <- conn.(interface{ Again(read []byte) bool }).Again(some[:n])
		}()
	}), c, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(s, l, c) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-ended, http.ErrServerClosed)
	})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	in := bufio.NewReader(conn)
	for _, path := range []string{"/take", "/a", "/take", "/b"} {
		_, err = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		resp, err := http.ReadResponse(in, nil)
		require.NoError(t, err, path)
		require.NoError(t, resp.Body.Close())
		if path == "/take" {
			require.Equal(t, http.StatusOK, resp.StatusCode)
			continue
		}
		require.True(t, <-back)
		require.Equal(t, http.StatusNoContent, resp.StatusCode)
	}
	require.NoError(t, conn.Close())
	other, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = other.Close() })
	_, err = io.WriteString(other, "GET /c HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(other), nil)
	require.NoError(t, err, "its place was given back once")
	require.NoError(t, resp.Body.Close())
}

package server_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// What is not HTTP at all still gets the envelope.
func TestARequestThatCannotBeReadGetsTheEnvelope(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	plain := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nforged"
	s := server.HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, plain)
	}), server.HTTPConfig{}, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(s, l, server.HTTPConfig{}) }()
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	ask := func(raw string) *http.Response {
		c, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = io.WriteString(c, raw)
		require.NoError(t, err)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		require.NoError(t, err)
		return r
	}
	for name, c := range map[string]struct {
		raw  string
		code api.ErrorCode
	}{
		"a bad escape":        {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", api.InvalidRequest},
		"no HTTP":             {"hello\r\n\r\n", api.InvalidRequest},
		"a bad length":        {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", api.InvalidRequest},
		"an unknown encoding": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n", api.InvalidRequest},
		"no host":             {"GET / HTTP/1.1\r\n\r\n", api.InvalidRequest},
		"a large header":      {fmt.Sprintf("GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("a", 64<<10)), api.PayloadTooLarge},
	} {
		r := ask(c.raw)
		require.Equal(t, c.code.Status(), r.StatusCode, name)
		require.Equal(t, "application/json", r.Header.Get("Content-Type"), name)
		var e api.ErrorEnvelope
		require.NoError(t, json.NewDecoder(r.Body).Decode(&e), name)
		require.Equal(t, c.code, e.Error.Code, name)
		require.Equal(t, r.Header.Get("X-Request-Id"), e.Error.RequestID, name)
	}
	r := ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	body := make([]byte, len(plain))
	_, err = io.ReadFull(r.Body, body)
	require.NoError(t, err)
	require.Equal(t, plain, string(body), "a handler's own words are left alone")
}

package egress_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func server(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func get(t testing.TB, ctx context.Context, c *http.Client, url string) (*http.Response, error) {
	t.Cleanup(c.CloseIdleConnections)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := c.Do(req)
	if err == nil {
		t.Cleanup(func() { require.NoError(t, resp.Body.Close()) })
	}
	return resp, err
}

func TestTheTraceGoesAlong(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 2)
	s := server(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header })
	trace := telemetry.Trace{
		Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", State: "vendor=1", RequestID: "req_1",
	}
	req, err := http.NewRequestWithContext(telemetry.WithTrace(t.Context(), trace), http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	req.Header.Set("X-Request-Id", "forged")
	resp, err := egress.New(egress.Config{}).Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())

	h := <-got
	require.Equal(t, trace.Parent[:36], h.Get("Traceparent")[:36], "the same trace")
	require.NotEqual(t, trace.Parent, h.Get("Traceparent"), "a span of its own")
	require.Equal(t, []string{"vendor=1"}, h.Values("Tracestate"))
	require.Equal(t, []string{"req_1"}, h.Values("X-Request-Id"))
	require.Equal(t, http.Header{"X-Request-Id": {"forged"}}, req.Header, "the caller's request is left alone")

	_, err = get(t, t.Context(), egress.New(egress.Config{}), s.URL)
	require.NoError(t, err)
	h = <-got
	for _, name := range []string{"Traceparent", "Tracestate", "X-Request-Id"} {
		require.Empty(t, h.Values(name), "no trace, no headers")
	}
}

func TestCallsAreCountedInFewWords(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/cut":
			panic(http.ErrAbortHandler)
		case "/header":
			w.Header().Set("X", strings.Repeat("a", 128<<10))
		default:
			var status int
			_, err := fmt.Sscanf(r.URL.Path, "/%d", &status)
			if err != nil {
				status = 400
			}
			w.WriteHeader(status)
		}
	})
	gone := server(t, nil)
	gone.Close()
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	canceled, cancel := context.WithCancel(t.Context())
	cancel()

	for _, c := range []struct {
		name, url string
		ctx       context.Context
		outcome   egress.Outcome
		class     string
	}{
		{"success", s.URL + "/200", nil, egress.Succeeded, "model"},
		{"redirect", s.URL + "/302", nil, egress.Redirected, "model"},
		{"rejected", s.URL + "/429", nil, egress.Rejected, "model"},
		{"broken", s.URL + "/503", nil, egress.Broken, "model"},
		{"out of range", s.URL + "/999", nil, egress.Failed, "model"},
		{"no headers in time", s.URL + "/silent", nil, egress.TimedOut, "model"},
		{"given up", s.URL + "/200", canceled, egress.Canceled, "model"},
		{"cut off", s.URL + "/cut", nil, egress.Failed, "model"},
		{"headers too large", s.URL + "/header", nil, egress.Failed, "model"},
		{"nobody there", gone.URL, nil, egress.Unreachable, "loopback"},
		{"unknown host", strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/200", nil, egress.Succeeded, "other"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			calls := make(chan egress.Call, 2)
			client := egress.New(egress.Config{
				ResponseHeaderTimeout: 2 * time.Second,
				HostClasses:           map[string]string{host(s): "model", "127.0.0.1": "loopback"},
				Observe:               func(c egress.Call) { calls <- c },
			})
			ctx := c.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			_, err := get(t, ctx, client, c.url)
			call := <-calls
			require.Equal(t, c.outcome, call.Outcome, "%v", err)
			require.Equal(t, c.class, call.HostClass)
			require.Positive(t, call.Duration)
			require.Empty(t, calls, "one call, one count")
		})
	}
}

func TestARedirectIsAnAnswer(t *testing.T) {
	t.Parallel()
	var followed atomic.Int64
	elsewhere := server(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	resp, err := get(t, t.Context(), egress.New(egress.Config{}), s.URL)
	require.NoError(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode)
	require.Zero(t, followed.Load())
}

func TestBodiesComeAsTheyWereSent(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1<<20))
			_ = z.Close()
			return
		}
		_, _ = w.Write([]byte("plain"))
	})
	resp, err := get(t, t.Context(), egress.New(egress.Config{}), s.URL)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "plain", string(body))
}

func TestAStreamLastsLongerThanItsHeaders(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("first "))
		w.(http.Flusher).Flush()
		<-goOn
		_, _ = w.Write([]byte("last"))
	})
	resp, err := get(t, t.Context(), egress.New(egress.Config{ResponseHeaderTimeout: time.Second}), s.URL)
	require.NoError(t, err)
	first := make([]byte, 6)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	time.AfterFunc(1100*time.Millisecond, func() { close(goOn) })
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "first last", string(first)+string(rest))

	silent := server(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	resp, err = get(t, t.Context(), egress.New(egress.Config{Timeout: 200 * time.Millisecond}), silent.URL)
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAProxyIsUsedWhenItIsConfigured(t *testing.T) {
	t.Parallel()
	proxy := server(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("proxied " + r.URL.Host)) })
	u, err := url.Parse(proxy.URL)
	require.NoError(t, err)
	resp, err := get(t, t.Context(), egress.New(egress.Config{Proxy: u}), "http://models.invalid/v1")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "proxied models.invalid", string(body))
}

func TestConfigThatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	require.NoError(t, egress.Config{}.Validate())
	require.NoError(t, egress.Config{Proxy: &url.URL{Scheme: "http", Host: "proxy:3128"}}.Validate())
	for says, c := range map[string]egress.Config{
		"whole timeout": {Timeout: -1},
		"TLS timeout":   {TLSTimeout: -1},
		"limit":         {MaxConnsPerHost: -1},
		"proxy":         {Proxy: &url.URL{Scheme: "ftp", Host: "proxy"}},
	} {
		require.ErrorContains(t, c.Validate(), says)
	}
}

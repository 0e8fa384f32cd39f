package egress_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func copyTo(w io.Writer, r *http.Request) (int64, error) { return io.Copy(w, r.Body) }

func traceContext(ctx context.Context) context.Context {
	return telemetry.WithTrace(ctx, telemetry.Trace{
		Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", RequestID: "req_1",
	})
}

func newMetrics() *telemetry.Metrics { return telemetry.NewMetrics() }

// counted are the refusals by provider and reason.
func counted(t testing.TB, m *telemetry.Metrics) map[string]float64 {
	families, err := m.Registry.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		if !strings.HasSuffix(f.GetName(), "_egress_refusals_total") {
			continue
		}
		for _, s := range f.GetMetric() {
			out[s.GetLabel()[0].GetValue()+" "+s.GetLabel()[1].GetValue()] = s.GetCounter().GetValue()
		}
	}
	return out
}

func TestABodyIsCutWhereItIsTooLong(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/bomb":
			require.Contains(t, r.Header.Get("Accept-Encoding"), "gzip")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			for range 64 {
				_, _ = z.Write(make([]byte, 1<<20))
			}
			_ = z.Close()
		default:
			_, _ = w.Write(make([]byte, 1000))
		}
	})
	g := excepting(t, egress.GuardConfig{MaxBytes: 1000}, s)
	for path, truncated := range map[string]bool{"/endless": true, "/bomb": true, "/exact": false} {
		start := time.Now()
		resp, err := g.Do(t.Context(), egress.Request{URL: s.URL + path})
		require.NoError(t, err, path)
		require.Less(t, time.Since(start), 15*time.Second, "nothing is read beyond the bound")
		require.Len(t, resp.Body, 1000, path)
		require.Equal(t, truncated, resp.Truncated, path)
	}
	resp, err := g.Do(t.Context(), egress.Request{URL: s.URL, MaxBytes: 10})
	require.NoError(t, err)
	require.Len(t, resp.Body, 10)
	resp, err = g.Do(t.Context(), egress.Request{URL: s.URL, MaxBytes: 5000})
	require.NoError(t, err)
	require.Len(t, resp.Body, 1000, "a request cannot raise the bound")
	require.False(t, resp.Truncated)
}

func TestServersThatTakeTheirTimeAreLeft(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/drip":
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = w.Write([]byte("."))
					w.(http.Flusher).Flush()
				}
			}
		case "/hops":
			select {
			case <-r.Context().Done():
			case <-time.After(150 * time.Millisecond):
				http.Redirect(w, r, "/hops", http.StatusFound)
			}
		}
	})
	for _, c := range []struct {
		path, class string
		config      egress.GuardConfig
	}{
		{"/silent", egress.FailedTimeout, egress.GuardConfig{HeaderTimeout: 200 * time.Millisecond}},
		{"/silent", egress.FailedTimeout, egress.GuardConfig{Timeout: 200 * time.Millisecond}},
		{"/drip", egress.FailedSlow, egress.GuardConfig{Window: 300 * time.Millisecond}},
		{"/drip", egress.FailedTimeout, egress.GuardConfig{Timeout: 300 * time.Millisecond}},
		// No hop is too slow, all together are.
		{"/hops", egress.FailedTimeout, egress.GuardConfig{Timeout: 400 * time.Millisecond, HeaderTimeout: 10 * time.Second}},
	} {
		start := time.Now()
		_, err := excepting(t, c.config, s).Do(t.Context(), egress.Request{URL: s.URL + c.path + "?q=canary"})
		f := failure(t, err, c.class)
		require.True(t, f.Sent)
		require.NotContains(t, err.Error()+f.URL, "canary")
		require.Less(t, time.Since(start), 10*time.Second)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := excepting(t, egress.GuardConfig{}, s).Do(ctx, egress.Request{URL: s.URL + "/silent"})
	failure(t, err, egress.FailedCanceled)
}

func TestAnswersThatAreWrong(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	answers := map[string]string{
		"/short":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
		"/chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"/header":  "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 100<<10) + "\r\n\r\n",
		"/headers": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: a\r\n", 20<<10) + "\r\n",
		"/early":   strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: aaaaaaaaaaaaaaaa\r\n\r\n", 10<<10),
		"/none":    "",
		"/junk":    "SSH-2.0-OpenSSH_9.9\r\n",
		"/gzip":    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\nabcdefghijklmnopqrst",
		"/twice":   "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 4096)
				n, _ := conn.Read(buf)
				var path string
				_, _ = fmt.Sscanf(string(buf[:n]), "GET %s HTTP", &path)
				_, _ = io.WriteString(conn, answers[path])
			}()
		}
	}()
	g := guard(t, egress.GuardConfig{Exceptions: []string{l.Addr().String()}, Timeout: 10 * time.Second})
	for path, class := range map[string]string{
		"/short": egress.FailedIncomplete, "/chunked": egress.FailedIncomplete, "/none": egress.FailedIncomplete,
		"/header": egress.FailedAnswer, "/headers": egress.FailedAnswer, "/early": egress.FailedAnswer,
		"/junk": egress.FailedAnswer, "/gzip": egress.FailedAnswer, "/twice": egress.FailedAnswer,
	} {
		_, err := g.Do(t.Context(), egress.Request{URL: "http://" + l.Addr().String() + path})
		require.True(t, failure(t, err, class).Sent, path)
	}
	gone := l.Addr().String()
	require.NoError(t, l.Close())
	_, err = g.Do(t.Context(), egress.Request{URL: "http://" + gone})
	require.False(t, failure(t, err, egress.FailedUnreachable).Sent)
}

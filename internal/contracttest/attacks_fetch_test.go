package contracttest_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// fetched is how a run's one call of http.fetch ended.
func (w *workshop) fetched(t *testing.T, url string) (string, event.ToolFinishedV1) {
	t.Helper()
	r := w.begin(t, nil, call("http.fetch", map[string]any{"url": url}))
	got := w.outcomes(t, r)
	require.Len(t, got, 1)
	return strings.TrimPrefix(got[0], "http.fetch "), eventsOf[event.ToolFinishedV1](t, w, r)[0]
}

func TestA32AddressesOfOurs(t *testing.T) {
	t.Parallel()
	// Whatever listens on this machine: the exception below is for one spelling of
	// another port.
	ours := newStranger(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "The crown jewels.") })
	_, port, err := net.SplitHostPort(ours.address())
	require.NoError(t, err)
	counted := telemetry.NewMetrics()
	w := openWorkshop(t, "A32", workshopOptions{guard: egress.GuardConfig{Refused: egress.CountRefusals(counted)("http")}})
	_, open, err := net.SplitHostPort(w.web.address())
	require.NoError(t, err)
	hosts := []string{
		"127.0.0.1", "127.1", "0x7f000001", "0x7f.1", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.1.", "127.0.0.01", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
		"[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[fe80::1]", "[fe80::1%25lo]", "[fd00:ec2::254]", "[fc00::1]", "0.0.0.0", "0", "localhost", "LOCALHOST", "localhost.", "x.localhost",
		"localhost.localdomain", "printer", "db.internal", "x.local", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200", "169.254.169.254", "169.254.0.1", "0xa9fea9fe", "2852039166",
		"metadata.google.internal", "metadata", "metadata.goog", "instance-data", "198.18.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "ⓛocalhost", "%31%32%37.0.0.1",
	}
	for _, host := range hosts {
		for _, p := range []string{"", ":" + port, ":" + open} {
			if host+p == w.web.address() {
				continue
			}
			got, _ := w.fetched(t, "http://"+host+p+"/latest/meta-data/")
			class, refused := strings.CutPrefix(got, "failed ")
			require.True(t, refused && strings.HasPrefix(class, "ssrf_block."), "%s: %s", host+p, got)
			if p == "" {
				w.note(t, host, class)
			}
		}
	}
	require.Empty(t, ours.requests())
	require.Empty(t, w.web.requests())
	series, err := testutil.GatherAndCount(counted.Registry, "openagents_runtime_egress_refusals_total")
	require.NoError(t, err)
	require.True(t, series > 2 && series < 8, "refusals are counted by their reason, in %d series", series)
}

func TestA33PlacesThatMove(t *testing.T) {
	t.Parallel()
	ours := newStranger(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "The crown jewels.") })
	_, port, err := net.SplitHostPort(ours.address())
	require.NoError(t, err)
	names := newNames(t, map[string][]string{
		"rebound.test": {"127.0.0.1"}, "half.test": {"93.184.215.14", "127.0.0.1"}, "meta.test": {"169.254.169.254"}, "six.test": {"::1"}, "mapped.test": {"::ffff:127.0.0.1"},
	})
	var w *workshop
	var target atomic.Value
	w = openWorkshop(t, "A33", workshopOptions{guard: egress.GuardConfig{Resolver: names, Timeout: 5 * time.Second}, web: func(rw http.ResponseWriter, r *http.Request) {
		switch to := target.Load().(string); {
		case r.URL.Path == "/loop":
			rw.Header().Set("Location", "/loop")
			rw.WriteHeader(http.StatusFound)
		case r.URL.Path == "/there":
			_, _ = io.WriteString(rw, "Arrived.")
		case to == "none":
			rw.WriteHeader(http.StatusFound)
		default:
			rw.Header()["Location"] = []string{to}
			rw.WriteHeader(http.StatusFound)
		}
	}})
	target.Store("/there")
	got, _ := w.fetched(t, w.web.URL)
	require.Equal(t, "succeeded", got, "an ordinary redirect is followed")

	for _, name := range []string{"rebound.test", "half.test", "meta.test", "six.test", "mapped.test"} {
		got, _ := w.fetched(t, "http://"+name+"/")
		require.Contains(t, []string{"failed ssrf_block.private_address", "failed ssrf_block.metadata_endpoint"}, got, name)
		w.note(t, "the name "+name+" of an address of ours", got)
	}
	for to, want := range map[string]string{
		"http://127.0.0.1/": "ssrf_block.private_address", "http://127.0.0.1:" + port + "/": "ssrf_block.host_not_allowed", "http://[::1]/": "ssrf_block.private_address",
		"//127.0.0.1/": "ssrf_block.private_address", "http://169.254.169.254/latest": "ssrf_block.metadata_endpoint", "http://2130706433/": "ssrf_block.redirect_invalid_location",
		"file:///etc/passwd": "ssrf_block.redirect_invalid_location", "gopher://127.0.0.1/": "ssrf_block.redirect_invalid_location", "ftp://example.com/": "ssrf_block.redirect_invalid_location",
		"javascript:alert(1)": "ssrf_block.redirect_invalid_location", "http://user:pass@127.0.0.1/": "ssrf_block.redirect_invalid_location", "http://①②⑦.⓪.⓪.①/": "ssrf_block.redirect_invalid_location",
		"http://example.com:22/": "ssrf_block.host_not_allowed", "http://rebound.test/": "ssrf_block.private_address", "http://localhost/": "ssrf_block.private_address",
		"http://exa mple.com/": "ssrf_block.redirect_invalid_location", "none": "ssrf_block.redirect_missing_location", "/loop": "ssrf_block.redirect_limit_exceeded",
	} {
		target.Store(to)
		got, _ := w.fetched(t, w.web.URL+"/go")
		require.Equal(t, "failed "+want, got, to)
		w.note(t, "a redirect to "+to, strings.TrimPrefix(got, "failed "))
	}
	require.Empty(t, ours.requests())
	require.Less(t, len(w.web.requests()), 60)
}

// newNames is a resolver whose names have the addresses.
func newNames(t *testing.T, all map[string][]string) *net.Resolver {
	t.Helper()
	conn, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for buf := make([]byte, 1500); ; {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := named(buf[:n], all); out != nil {
				_, _ = conn.WriteTo(out, from) // who does not hear asks again
			}
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		<-served
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func named(question []byte, all map[string][]string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	list, there := all[strings.TrimSuffix(q.Name.String(), ".")]
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, Authoritative: true}
	m.Additionals = nil
	if !there {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, text := range list {
		a := netip.MustParseAddr(text)
		h := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

func TestA34AnswersWithoutAnEnd(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	flood := func(w io.Writer, piece string) {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := io.WriteString(w, piece); err != nil {
					return
				}
			}
		}
	}
	w := openWorkshop(t, "A34", workshopOptions{
		guard: egress.GuardConfig{Timeout: 3 * time.Second, MaxBytes: 64 << 10, Window: 200 * time.Millisecond, HeaderTimeout: 500 * time.Millisecond, MaxHeaderBytes: 8 << 10},
		web: func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Type", "text/plain")
			switch r.URL.Path {
			case "/endless":
				flood(rw, strings.Repeat("endless ", 512))
			case "/bomb":
				rw.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(rw)
				flood(z, strings.Repeat("\x00", 64<<10))
			case "/drip":
				for range 1000 {
					_, _ = io.WriteString(rw, "x")
					rw.(http.Flusher).Flush()
					select {
					case <-stop:
						return
					case <-r.Context().Done():
						return
					case <-time.After(50 * time.Millisecond):
					}
				}
			case "/silent":
				select {
				case <-stop:
				case <-r.Context().Done():
				}
			case "/short":
				rw.Header().Set("Content-Length", "1000")
				_, _ = io.WriteString(rw, "short")
			case "/headers":
				rw.Header().Set("X-Long", strings.Repeat("h", 64<<10))
			case "/many":
				n, _ := strconv.Atoi(r.URL.Query().Get("n"))
				http.Redirect(rw, r, fmt.Sprintf("/many?n=%d", n+1), http.StatusFound)
			case "/lines":
				_, _ = io.WriteString(rw, strings.Repeat("\n", 32<<10))
			case "/deep":
				rw.Header().Set("Content-Type", "text/html")
				_, _ = io.WriteString(rw, strings.Repeat("<div>", 12<<10))
			}
		},
	})
	for path, want := range map[string]string{
		"/endless": "succeeded", "/bomb": "succeeded", "/drip": "failed too_slow", "/silent": "failed timeout", "/short": "failed answer_incomplete", "/headers": "failed answer_invalid",
		"/many?n=0": "failed ssrf_block.redirect_limit_exceeded", "/lines": "succeeded", "/deep": "succeeded",
	} {
		begun := time.Now()
		got, end := w.fetched(t, w.web.URL+path)
		require.Equal(t, want, got, path)
		require.Less(t, time.Since(begun), 25*time.Second, path)
		var stored int
		require.NoError(t, w.Pool.QueryRow(t.Context(), `SELECT coalesce(length(output::text), 0) FROM tool_tasks WHERE tool_call_id = $1`, end.ToolCallID).Scan(&stored))
		require.LessOrEqual(t, stored, 64<<10, path)
		w.note(t, "an answer of "+path, got+fmt.Sprintf(", at most 64 KiB stored (%d)", stored))
	}
}

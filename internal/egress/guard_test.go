package egress_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
)

// excepting makes a guard that may call the servers.
func excepting(t testing.TB, c egress.GuardConfig, servers ...*httptest.Server) *egress.Guard {
	for _, s := range servers {
		c.Exceptions = append(c.Exceptions, s.Listener.Addr().String())
	}
	return guard(t, c)
}

func refusal(t testing.TB, err error, code string) *egress.Refusal {
	t.Helper()
	var r *egress.Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, code, r.ReasonCode, "%v", err)
	return r
}

func failure(t testing.TB, err error, class string) *egress.Failure {
	t.Helper()
	var f *egress.Failure
	require.ErrorAs(t, err, &f)
	require.Equal(t, class, f.Class, "%v: %v", err, f.Err)
	return f
}

func port(t testing.TB, s *httptest.Server) string {
	_, p, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)
	return p
}

func TestEveryAddressOfANameIsChecked(t *testing.T) {
	t.Parallel()
	ns := dns(t, map[string][][]string{
		"private.test":  {{"10.0.0.1"}},
		"mixed.test":    {{"93.184.215.14", "93.184.215.15", "10.0.0.1"}},
		"families.test": {{"93.184.215.14", "fd00::1"}},
		"metadata.test": {{"169.254.169.254"}},
		"mapped.test":   {{"::ffff:127.0.0.1"}},
		"nat64.test":    {{"64:ff9b::a00:1"}},
		"empty.test":    {{}},
	})
	g := guard(t, egress.GuardConfig{Resolver: ns.resolver()})
	for name, code := range map[string]string{
		"private.test": egress.PrivateAddress, "mixed.test": egress.PrivateAddress, "families.test": egress.PrivateAddress,
		"metadata.test": egress.MetadataEndpoint, "nat64.test": egress.PrivateAddress,
		"empty.test": egress.DNSResolutionFailed, "nobody.test": egress.DNSResolutionFailed,
	} {
		_, err := g.Do(t.Context(), egress.Request{URL: "https://" + name + "/p?q=secret"})
		r := refusal(t, err, code)
		require.Equal(t, name, r.Host)
		require.Equal(t, "https://"+name+"/p", r.URL)
	}
	_, err := g.Do(t.Context(), egress.Request{URL: "https://mapped.test"})
	var r *egress.Refusal
	require.ErrorAs(t, err, &r, "whether the resolver hands it out or not")
}

// A name that changes its address between the check and the connection reaches
// what was checked.
func TestANameThatChangesItsAddressGainsNothing(t *testing.T) {
	t.Parallel()
	public := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/back", http.StatusFound)
			return
		}
		_, _ = w.Write([]byte("checked " + r.Host))
	})
	var reached atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.2:"+port(t, public))
	require.NoError(t, err)
	inner := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) })}
	go func() { _ = inner.Serve(l) }()
	t.Cleanup(func() { _ = inner.Close() })

	ns := dns(t, map[string][][]string{
		"flip.test":   {{"127.0.0.1"}, {"127.0.0.2"}},
		"flop.test":   {{"127.0.0.1"}, {"169.254.169.254"}},
		"public.test": {{"93.184.215.14"}},
	})
	g := guard(t, egress.GuardConfig{
		Resolver:   ns.resolver(),
		Exceptions: []string{"flip.test:" + port(t, public), "flop.test:" + port(t, public)},
	})
	resp, err := g.Do(t.Context(), egress.Request{URL: "http://flip.test:" + port(t, public) + "/away"})
	require.NoError(t, err)
	require.Equal(t, "checked flip.test:"+port(t, public), string(resp.Body), "the name is kept in Host")
	require.Equal(t, 1, resp.Hops)
	require.Equal(t, []string{"flip.test"}, ns.asked(), "one look-up serves the whole call")
	require.Zero(t, reached.Load())

	_, err = g.Do(t.Context(), egress.Request{URL: "http://flop.test:" + port(t, public) + "/"})
	require.NoError(t, err)
	_, err = g.Do(t.Context(), egress.Request{URL: "http://flop.test:" + port(t, public) + "/"})
	refusal(t, err, egress.MetadataEndpoint)
}

func TestExceptionsOpenWhatTheyNameOnly(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("in")) })
	other := server(t, func(http.ResponseWriter, *http.Request) {})
	ns := dns(t, map[string][][]string{"app.test": {{"127.0.0.1"}}, "linklocal.test": {{"169.254.1.1"}}})
	g := guard(t, egress.GuardConfig{
		Resolver: ns.resolver(), HTTPSOnly: true,
		Exceptions: []string{"app.test:" + port(t, s), "linklocal.test:" + port(t, s)},
	})
	resp, err := g.Do(t.Context(), egress.Request{URL: "http://app.test:" + port(t, s)})
	require.NoError(t, err)
	require.Equal(t, "in", string(resp.Body))
	for _, u := range []string{
		s.URL,                                         // the same server by another name
		"https://app.test:" + port(t, other),          // the same name on another port
		"https://x.app.test:" + port(t, s),            // a name below it
		"http://linklocal.test:" + port(t, s),         // what no exception opens
		"http://app.test.evil.test:" + port(t, s),     //
		"http://app.test@localhost:" + port(t, other), //
	} {
		_, err = g.Do(t.Context(), egress.Request{URL: u})
		var r *egress.Refusal
		require.ErrorAs(t, err, &r, u)
	}
	listed := guard(t, egress.GuardConfig{Allow: []string{"example.com"}, Exceptions: []string{s.Listener.Addr().String()}})
	_, err = listed.Do(t.Context(), egress.Request{URL: s.URL})
	refusal(t, err, egress.HostNotAllowed)
}

func TestRedirectsAreCheckedLikeTheFirst(t *testing.T) {
	t.Parallel()
	var to atomic.Value
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if l := to.Load().(string); l != "" {
			w.Header().Set("Location", l)
		}
		w.WriteHeader(http.StatusFound)
	})
	g := excepting(t, egress.GuardConfig{}, s)
	for _, c := range []struct{ location, code string }{
		{"http://127.0.0.1/", egress.PrivateAddress},
		{"http://127.0.0.1:1/", egress.HostNotAllowed},
		{"http://10.0.0.1/", egress.PrivateAddress},
		{"//10.0.0.1/", egress.PrivateAddress},
		{"http://[::1]/", egress.PrivateAddress},
		{"http://[::ffff:10.0.0.1]/", egress.PrivateAddress},
		{"http://localhost/", egress.PrivateAddress},
		{"http://169.254.169.254/", egress.MetadataEndpoint},
		{"http://metadata.google.internal/", egress.MetadataEndpoint},
		{"http://example.com:22/", egress.HostNotAllowed},
		{"http://2130706433/", egress.RedirectInvalidLocation},
		{"http://u:p@example.com/", egress.RedirectInvalidLocation},
		{"ftp://example.com/", egress.RedirectInvalidLocation},
		{"file:///etc/passwd", egress.RedirectInvalidLocation},
		{"gopher://127.0.0.1:6379/_x", egress.RedirectInvalidLocation},
		{"http://%zz/", egress.RedirectInvalidLocation},
		{"http:example.com", egress.RedirectInvalidLocation},
		{"/" + strings.Repeat("a", 9000), egress.RedirectInvalidLocation},
		{"", egress.RedirectMissingLocation},
		{"/again", egress.RedirectLimitExceeded},
	} {
		to.Store(c.location)
		_, err := g.Do(t.Context(), egress.Request{URL: s.URL + "/start"})
		r := refusal(t, err, c.code)
		require.NotEmpty(t, r.URL)
	}
	to.Store("/again")
	_, err := g.Do(t.Context(), egress.Request{URL: s.URL})
	require.Equal(t, 6, refusal(t, err, egress.RedirectLimitExceeded).Hops)
	resp, err := excepting(t, egress.GuardConfig{MaxRedirects: -1}, s).Do(t.Context(), egress.Request{URL: s.URL})
	require.NoError(t, err)
	require.Equal(t, http.StatusFound, resp.Status)
	resp, err = g.Do(t.Context(), egress.Request{URL: s.URL, NoRedirects: true})
	require.NoError(t, err)
	require.Equal(t, http.StatusFound, resp.Status)
}

func TestARedirectChangesTheMethodAsItShould(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status     int
		method     string
		want, body string
	}{
		{301, "GET", "GET", ""}, {302, "HEAD", "HEAD", ""}, {303, "HEAD", "HEAD", ""},
		{301, "POST", "GET", ""}, {302, "POST", "GET", ""}, {303, "POST", "GET", ""}, {303, "PUT", "GET", ""},
		{301, "PUT", "PUT", "body"}, {307, "POST", "POST", "body"}, {308, "POST", "POST", "body"},
	} {
		type seen struct{ method, body, kind, key string }
		got := make(chan seen, 1)
		s := server(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/end" {
				http.Redirect(w, r, "/end", c.status)
				return
			}
			var b strings.Builder
			_, _ = copyTo(&b, r)
			got <- seen{r.Method, b.String(), r.Header.Get("Content-Type"), r.Header.Get("Authorization")}
		})
		var body []byte
		if c.method != "GET" && c.method != "HEAD" {
			body = []byte("body")
		}
		_, err := excepting(t, egress.GuardConfig{}, s).Do(t.Context(), egress.Request{
			Method: c.method, URL: s.URL, Body: body, Header: http.Header{"Content-Type": {"text/plain"}, "Authorization": {"Bearer x"}},
		})
		require.NoError(t, err)
		e := <-got
		require.Equal(t, seen{c.want, c.body, e.kind, "Bearer x"}, e, "%d %s", c.status, c.method)
		if c.method == "POST" || c.method == "PUT" {
			require.Equal(t, c.body != "", e.kind != "", "the type goes with the body")
		}
	}
}

func TestNothingOfTheCallersGoesToAnotherOrigin(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 4)
	end := server(t, func(_ http.ResponseWriter, r *http.Request) { got <- r })
	var status atomic.Int64
	// There and back: what was dropped is not picked up again.
	var start *httptest.Server
	between := server(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r
		http.Redirect(w, r, start.URL+"/back", int(status.Load()))
	})
	start = server(t, func(w http.ResponseWriter, r *http.Request) {
		to := between.URL
		if r.URL.Path == "/back" {
			got <- r
			to = end.URL
		}
		http.Redirect(w, r, to, int(status.Load()))
	})
	g := excepting(t, egress.GuardConfig{}, start, between, end)
	h := http.Header{"Authorization": {"Bearer canary"}, "Cookie": {"canary=1"}, "X-Api-Key": {"canary"}, "Accept": {"canary/*"}, "User-Agent": {"canary"}}
	status.Store(302)
	_, err := g.Do(t.Context(), egress.Request{URL: start.URL, Header: h})
	require.NoError(t, err)
	for range 3 {
		r := <-got
		for name, values := range r.Header {
			require.NotContains(t, strings.Join(values, " "), "canary", name)
		}
		require.Empty(t, r.Header.Get("Referer"))
	}
	require.Equal(t, "Bearer canary", h.Get("Authorization"), "the caller's map is left alone")

	status.Store(307)
	_, err = g.Do(t.Context(), egress.Request{Method: "POST", URL: start.URL, Body: []byte("secret"), Header: h})
	refusal(t, err, egress.RedirectInvalidLocation)
	require.Empty(t, got, "the body was not sent on")
}

func TestHeadersOfTheConnectionAreTheGuards(t *testing.T) {
	t.Parallel()
	got := make(chan *http.Request, 1)
	s := server(t, func(_ http.ResponseWriter, r *http.Request) { got <- r })
	_, err := excepting(t, egress.GuardConfig{}, s).Do(t.Context(), egress.Request{URL: s.URL, Header: http.Header{
		"Host": {"canary.example"}, "Proxy-Authorization": {"canary"}, "Te": {"canary"}, "Upgrade": {"canary"},
		"Connection": {"canary"}, "Accept-Encoding": {"canary"}, "X-Kept": {"yes"},
	}})
	require.NoError(t, err)
	r := <-got
	require.Equal(t, s.Listener.Addr().String(), r.Host)
	require.Equal(t, "yes", r.Header.Get("X-Kept"))
	for name, values := range r.Header {
		require.NotContains(t, strings.Join(values, " "), "canary", name)
	}
}

func TestTheEnvironmentsProxyIsNotUsed(t *testing.T) {
	var proxied atomic.Int64
	proxy := server(t, func(http.ResponseWriter, *http.Request) { proxied.Add(1) })
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	s := server(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("direct")) })
	ns := dns(t, map[string][][]string{"app.test": {{"127.0.0.1"}}})
	g := guard(t, egress.GuardConfig{Resolver: ns.resolver(), Exceptions: []string{"app.test:" + port(t, s)}})
	resp, err := g.Do(t.Context(), egress.Request{URL: "http://app.test:" + port(t, s)})
	require.NoError(t, err)
	require.Equal(t, "direct", string(resp.Body))
	require.Zero(t, proxied.Load())
}

func TestTLSIsForTheNameNotForTheAddress(t *testing.T) {
	t.Parallel()
	names := make(chan string, 1)
	s := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { names <- r.TLS.ServerName }))
	t.Cleanup(s.Close)
	ns := dns(t, map[string][][]string{"example.com": {{"127.0.0.1"}}, "other.test": {{"127.0.0.1"}}})
	c := egress.GuardConfig{
		Resolver: ns.resolver(), RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		Exceptions: []string{"example.com:" + port(t, s), "other.test:" + port(t, s)},
	}
	_, err := guard(t, c).Do(t.Context(), egress.Request{URL: "https://example.com:" + port(t, s)})
	require.NoError(t, err)
	require.Equal(t, "example.com", <-names)
	_, err = guard(t, c).Do(t.Context(), egress.Request{URL: "https://other.test:" + port(t, s)})
	failure(t, err, egress.FailedTLS)
	c.RootCAs = nil
	_, err = guard(t, c).Do(t.Context(), egress.Request{URL: "https://example.com:" + port(t, s)})
	failure(t, err, egress.FailedTLS)
}

// A connection that is kept would be found again by a call whose name leads elsewhere by now.
func TestAConnectionServesOneRequest(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		var conns atomic.Int64
		proto := make(chan string, 2)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { proto <- r.Proto }))
		s.EnableHTTP2 = http2
		s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				conns.Add(1)
			}
		}
		s.StartTLS()
		t.Cleanup(s.Close)
		g := excepting(t, egress.GuardConfig{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}, s)
		for i := range int64(2) {
			_, err := g.Do(t.Context(), egress.Request{Method: http.MethodPost, URL: s.URL, Body: []byte("x")})
			require.NoError(t, err)
			require.Equal(t, http2, <-proto == "HTTP/2.0")
			require.Equal(t, i+1, conns.Load())
		}
	}
}

func TestOurTraceStaysAtHome(t *testing.T) {
	t.Parallel()
	got := make(chan http.Header, 1)
	s := server(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header })
	_, err := excepting(t, egress.GuardConfig{}, s).Do(traceContext(t.Context()), egress.Request{URL: s.URL})
	require.NoError(t, err)
	h := <-got
	require.Empty(t, h.Values("Traceparent"))
	require.Empty(t, h.Values("X-Request-Id"))
	require.Equal(t, "openagents-runtime", h.Get("User-Agent"))
}

func TestRefusalsAndHopsAreCounted(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://10.0.0.1", http.StatusFound) })
	var hops []egress.Call
	m := newMetrics()
	g := excepting(t, egress.GuardConfig{
		Provider: "http", Observe: func(c egress.Call) { hops = append(hops, c) }, Refused: egress.CountRefusals(m)("http"),
	}, s)
	_, err := g.Do(context.Background(), egress.Request{URL: s.URL})
	refusal(t, err, egress.PrivateAddress)
	require.Len(t, hops, 1)
	require.Equal(t, "http", hops[0].HostClass)
	require.Equal(t, egress.Redirected, hops[0].Outcome)
	require.Equal(t, map[string]float64{"http ssrf_block.private_address": 1}, counted(t, m))
}

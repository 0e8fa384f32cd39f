package egress_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
)

func TestAGuardedClientStreams(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	got := make(chan *http.Request, 1)
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r
		_, _ = w.Write(body)
		w.(http.Flusher).Flush()
		<-goOn
		_, _ = w.Write([]byte(" last"))
	})
	c := excepting(t, egress.GuardConfig{}, s).Client()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/p?q=1", strings.NewReader("first"))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer x")
	req.Header.Set("Connection", "upgrade")
	resp, err := c.Do(req)
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(resp.Body, first)
	require.NoError(t, err)
	close(goOn)
	rest, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "first last", string(first)+string(rest))
	r := <-got
	require.Equal(t, "POST /p?q=1", r.Method+" "+r.RequestURI)
	require.Equal(t, "Bearer x", r.Header.Get("Authorization"))
	require.EqualValues(t, 5, r.ContentLength)
	require.Equal(t, "upgrade", req.Header.Get("Connection"), "the caller's request is left alone")
}

func TestAGuardedClientRefuses(t *testing.T) {
	t.Parallel()
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://10.0.0.1/", http.StatusTemporaryRedirect)
	})
	ns := dns(t, map[string][][]string{"private.test": {{"93.184.215.14", "10.0.0.1"}}})
	c := excepting(t, egress.GuardConfig{Resolver: ns.resolver(), Deny: []string{"denied.test"}}, s).Client()
	for url, code := range map[string]string{
		"http://127.0.0.1:1/":     egress.HostNotAllowed,
		"http://127.0.0.1/":       egress.PrivateAddress,
		"http://169.254.169.254/": egress.MetadataEndpoint,
		"https://private.test/":   egress.PrivateAddress,
		"https://denied.test/":    egress.HostNotAllowed,
		"https://nobody.test/":    egress.DNSResolutionFailed,
		"https://u:p@host.test/":  egress.InvalidURL,
	} {
		closed := &body{Reader: strings.NewReader("x")}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, closed)
		require.NoError(t, err)
		_, err = c.Do(req) //nolint:bodyclose // there is none
		refusal(t, err, code)
		require.True(t, closed.closed, url)
	}

	resp, err := c.Get(s.URL)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusTemporaryRedirect, resp.StatusCode, "a redirect is the answer")

	gone := server(t, nil)
	at := excepting(t, egress.GuardConfig{}, gone).Client()
	gone.Close()
	_, err = at.Get(gone.URL) //nolint:bodyclose // there is none
	failure(t, err, egress.FailedUnreachable)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	req, err := http.NewRequestWithContext(ended, http.MethodGet, s.URL, nil)
	require.NoError(t, err)
	_, err = c.Do(req) //nolint:bodyclose // there is none
	require.True(t, errors.Is(err, context.Canceled), "%v", err)
}

type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error { b.closed = true; return nil }

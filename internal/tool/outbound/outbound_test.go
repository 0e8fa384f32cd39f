package outbound_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

var now = time.Unix(1_771_459_200, 0)

func TestHowLongAProviderAsksToWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header http.Header
		wait   time.Duration
		asked  bool
	}{
		{http.Header{}, 0, false},
		{http.Header{"Retry-After": {"7"}}, 7 * time.Second, true},
		{http.Header{"Retry-After": {"-7"}}, 0, true},
		{http.Header{"Retry-After": {"soon"}}, 0, false},
		{http.Header{"Retry-After": {"99999999"}}, time.Hour, true},
		{http.Header{"Retry-After": {now.Add(90 * time.Second).UTC().Format(http.TimeFormat)}}, 90 * time.Second, true},
		{http.Header{"Retry-After": {now.Add(-time.Hour).UTC().Format(http.TimeFormat)}}, 0, true},
		{http.Header{"X-Ratelimit-Reset": {"1771459260"}, "X-Ratelimit-Remaining": {"0"}}, time.Minute, false},
		{http.Header{"X-Ratelimit-Reset": {"1771459260"}, "X-Ratelimit-Remaining": {"5"}}, 0, false},
		{http.Header{"X-Ratelimit-Reset": {"9999999999"}, "X-Ratelimit-Remaining": {"0"}}, time.Hour, false},
	} {
		wait, asked := outbound.RetryAfter(c.header, now)
		require.Equal(t, c.wait, wait, "%v", c.header)
		require.Equal(t, c.asked, asked, "%v", c.header)
	}
}

func TestErrorsOfTheGuardKeepWhatMatters(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err                           error
		writes                        bool
		class                         string
		retryable, fault, unknown, sr bool
	}{
		{&egress.Refusal{ReasonCode: egress.PrivateAddress}, true, egress.PrivateAddress, false, false, false, true},
		{&egress.Refusal{ReasonCode: egress.PrivateAddress, Hops: 1}, true, egress.PrivateAddress, false, false, true, true},
		{&egress.Refusal{ReasonCode: egress.PrivateAddress, Hops: 1}, false, egress.PrivateAddress, false, false, false, true},
		{&egress.Refusal{ReasonCode: egress.DNSResolutionFailed}, true, egress.DNSResolutionFailed, true, false, false, true},
		{&egress.Failure{Class: egress.FailedTimeout, Sent: true}, true, egress.FailedTimeout, true, true, true, false},
		{&egress.Failure{Class: egress.FailedTimeout, Sent: true}, false, egress.FailedTimeout, true, true, false, false},
		{&egress.Failure{Class: egress.FailedUnreachable}, true, egress.FailedUnreachable, true, true, false, false},
		{&egress.Failure{Class: egress.FailedTLS}, true, egress.FailedTLS, false, true, false, false},
		{&egress.Failure{Class: egress.FailedCanceled, Sent: true}, true, egress.FailedCanceled, false, false, true, false},
		{errors.New("https://example.com?canary"), true, "provider_error", false, false, true, false},
	} {
		e := outbound.Error(c.err, c.writes)
		require.Equal(t, c.class, e.Class)
		require.Equal(t, []bool{c.retryable, c.fault, c.unknown}, []bool{e.Retryable, e.ProviderFault, e.Unknown}, "%+v", c)
		require.Equal(t, c.sr, e.ReasonCode == c.class)
		require.NotContains(t, e.Error(), "canary")
	}
}

func TestErrorsOfSecretsAreNotTheProvidersFault(t *testing.T) {
	t.Parallel()
	for code, retryable := range map[secret.Code]bool{
		secret.NotFound: false, secret.Unauthorized: false, secret.TransportError: true, secret.UpstreamError: true, secret.Misconfigured: false,
	} {
		e := outbound.SecretError(&secret.Error{Code: code, Message: "why"})
		require.Equal(t, outbound.NoSecret, e.Class)
		require.Equal(t, retryable, e.Retryable)
		require.False(t, e.ProviderFault || e.Unknown)
	}
}

// No part of a path names another place than its own.
func TestPathsStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.RequestURI
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(s.Close)
	store, err := secret.New(secret.Config{Static: map[string]string{"p": "x"}})
	require.NoError(t, err)
	a, err := outbound.NewAPI("p", s.URL+"/base/", egress.GuardConfig{Exceptions: []string{s.Listener.Addr().String()}}, store)
	require.NoError(t, err)
	for part, want := range map[string]string{
		"a b": "a%20b", "..": "%2E%2E", ".": "%2E", "a/b": "a%2Fb", "../x": "..%2Fx", "a?b#c": "a%3Fb%23c", "%2e": "%252e", "ü": "%C3%BC", "@h": "@h",
	} {
		var out map[string]any
		_, e := a.Do(t.Context(), tool.Call{}, outbound.Ask{Method: http.MethodGet, Path: []string{"x", part, "y"}, Query: url.Values{"q": {"1&2"}}}, &out)
		require.Nil(t, e)
		require.Equal(t, "/base/x/"+want+"/y?q=1%262", <-got, part)
	}
	_, err = outbound.NewAPI("p", "https://example.com", egress.GuardConfig{}, nil)
	require.Error(t, err)
}

// A secret that the provider does not take is asked for anew.
func TestASecretThatIsNotTakenIsDropped(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	plane := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"data":{"provider":"p","secret":"s"}}`))
	}))
	t.Cleanup(plane.Close)
	var status atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(s.Close)
	store, err := secret.New(secret.Config{BaseURL: plane.URL, Keys: auth.DevKeyring()})
	require.NoError(t, err)
	a, err := outbound.NewAPI("p", s.URL, egress.GuardConfig{Exceptions: []string{s.Listener.Addr().String()}}, store)
	require.NoError(t, err)
	ask := func(want int64) {
		var out map[string]any
		_, _ = a.Do(context.Background(), tool.Call{UserID: 1, RunID: "r", ToolCallID: "c"}, outbound.Ask{Method: http.MethodGet}, &out)
		require.Equal(t, want, asked.Load())
	}
	status.Store(200)
	ask(1)
	ask(1)
	status.Store(401)
	ask(1)
	ask(2)
}

func TestTextIsCutAtACharacter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, n := rapid.String().Draw(t, "s"), rapid.IntRange(0, 40).Draw(t, "n")
		c := outbound.Cut(s, n)
		if len(c) > n || !strings.HasPrefix(s, c) || !utf8.ValidString(c) || len(c) < min(n, len(s))-3 {
			t.Fatalf("%q cut at %d is %q", s, n, c)
		}
		if l := outbound.Line(s, n); strings.ContainsAny(l, "\n\r\t") || len(l) > n {
			t.Fatalf("%q", l)
		}
	})
	require.Equal(t, "a b", outbound.Line(" a \r\n b\t", 10))
}

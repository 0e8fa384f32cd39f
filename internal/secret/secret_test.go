package secret_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
)

const canary = "ghp_canary0123456789canary0123456789"

// nonces remembers them in memory: the store under test has no say in it.
type nonces struct{ seen sync.Map }

func (n *nonces) Remember(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	_, there := n.seen.LoadOrStore(string(hash), true)
	return !there, nil
}

// plane is a control plane that checks signatures as the service does.
type plane struct {
	*httptest.Server
	asked atomic.Int64
	later atomic.Int64 // how far its clock is ahead
	last  atomic.Value // the body of the last request
	reply func(w http.ResponseWriter, body map[string]any)
}

func keys(t testing.TB) auth.Keyring {
	k, err := auth.ParseKeyring("k1:first-secret-of-the-tests-0123456789")
	require.NoError(t, err)
	return k
}

func controlPlane(t testing.TB, reply func(w http.ResponseWriter, body map[string]any)) *plane {
	p := &plane{reply: reply}
	v := &auth.Verifier{Keys: keys(t), Audience: "openagents-control-plane", Nonces: &nonces{}, Now: func() time.Time {
		return time.Now().Add(time.Duration(p.later.Load()))
	}}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		raw, _ := io.ReadAll(r.Body)
		var body map[string]any
		_ = json.Unmarshal(raw, &body)
		run, _ := body["run_id"].(string)
		caller, err := v.Verify(r.Context(), auth.Request{
			Method: r.Method, Target: r.URL.RequestURI(), Header: r.Header, BodySHA256: auth.BodyHash(raw), RunID: run, Scope: auth.Service,
		})
		if err != nil || caller.UserID == nil || float64(*caller.UserID) != body["user_id"] {
			http.Error(w, fmt.Sprint(err), http.StatusUnauthorized)
			return
		}
		p.last.Store(body)
		p.reply(w, body)
	}))
	t.Cleanup(p.Close)
	return p
}

func gives(text string, more string) func(http.ResponseWriter, map[string]any) {
	return func(w http.ResponseWriter, body map[string]any) {
		fmt.Fprintf(w, `{"data":{"provider":%q,"secret":%q%s}}`, body["provider"], text, more)
	}
}

func store(t testing.TB, c secret.Config) *secret.Store {
	if len(c.Keys.IDs()) == 0 {
		c.Keys = keys(t)
	}
	s, err := secret.New(c)
	require.NoError(t, err)
	return s
}

var scope = secret.Scope{Provider: "github", IntegrationID: "int_1", UserID: 42, RunID: "run_1", ToolCallID: "call_1", OrgID: "org_1"}

func code(t testing.TB, err error) secret.Code {
	t.Helper()
	var e *secret.Error
	require.ErrorAs(t, err, &e)
	require.NotContains(t, fmt.Sprintf("%v %+v %v", e, e, errors.Unwrap(e)), canary)
	return e.Code
}

func TestASignedRequestFetchesASecretOfItsScope(t *testing.T) {
	t.Parallel()
	p := controlPlane(t, gives(canary, `,"scope":{"user_id":42,"integration_id":"int_1"}`))
	var heard []string
	s := store(t, secret.Config{BaseURL: p.URL + "/base", Path: "/fetch", Register: func(x string) { heard = append(heard, x) }})
	v, err := s.Get(t.Context(), scope)
	require.NoError(t, err)
	require.Equal(t, canary, v.Reveal())
	require.Equal(t, []string{canary}, heard)
	require.Equal(t, map[string]any{
		"user_id": 42.0, "provider": "github", "integration_id": "int_1", "run_id": "run_1", "tool_call_id": "call_1", "org_id": "org_1",
	}, p.last.Load())

	_, err = s.Get(t.Context(), scope)
	require.NoError(t, err)
	require.EqualValues(t, 1, p.asked.Load(), "the same scope is not asked about twice")
	for i, change := range []func(*secret.Scope){
		func(x *secret.Scope) { x.Provider = "email" }, func(x *secret.Scope) { x.UserID = 43 },
		func(x *secret.Scope) { x.RunID = "run_2" }, func(x *secret.Scope) { x.ToolCallID = "call_2" },
		func(x *secret.Scope) { x.OrgID = "org_2" },
	} {
		other := scope
		change(&other)
		_, err := s.Get(t.Context(), other)
		if other.UserID == 43 {
			require.Equal(t, secret.InvalidResponse, code(t, err), "an answer for another user is not taken")
		} else {
			require.NoError(t, err)
		}
		require.EqualValues(t, i+2, p.asked.Load(), "each part of the scope counts")
	}
	other := scope
	other.IntegrationID = "int_2"
	_, err = s.Get(t.Context(), other)
	require.Equal(t, secret.InvalidResponse, code(t, err))
	s.Forget(scope)
	_, err = s.Get(t.Context(), scope)
	require.NoError(t, err)
	require.EqualValues(t, 8, p.asked.Load())
}

func TestSecretsAreKeptForAShortWhile(t *testing.T) {
	t.Parallel()
	more := atomic.Value{}
	p := controlPlane(t, func(w http.ResponseWriter, body map[string]any) { gives(canary, more.Load().(string))(w, body) })
	start := time.Now()
	later := &p.later
	s := store(t, secret.Config{
		BaseURL: p.URL, MaxEntries: 3,
		Now: func() time.Time { return start.Add(time.Duration(later.Load())) },
	})
	get := func(call string) int64 {
		x := scope
		x.ToolCallID = call
		before := p.asked.Load()
		_, err := s.Get(t.Context(), x)
		require.NoError(t, err)
		return p.asked.Load() - before
	}
	more.Store("")
	require.EqualValues(t, 1, get("default"))
	later.Store(int64(59 * time.Second))
	require.EqualValues(t, 0, get("default"))
	more.Store(`,"cache_ttl_ms":86400000`)
	require.EqualValues(t, 1, get("day"))
	more.Store(`,"cache_ttl_ms":0`)
	require.EqualValues(t, 1, get("never"))
	require.EqualValues(t, 1, get("never"))

	later.Store(int64(61 * time.Second))
	n, err := s.Once(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "the default one has expired")
	require.EqualValues(t, 0, get("day"))
	later.Store(int64(59*time.Second + 5*time.Minute))
	n, err = s.Once(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n, "whatever the answer says")

	later.Store(0)
	more.Store(`,"cache_ttl_ms":60000`)
	for _, call := range []string{"a", "b", "c", "d"} {
		require.EqualValues(t, 1, get(call))
	}
	later.Store(int64(time.Hour))
	n, err = s.Once(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, n, "no more are kept than may be")

	require.EqualValues(t, 1, get("e"))
	p.later.Store(int64(2 * time.Hour))
	require.EqualValues(t, 1, get("f"))
	n, err = s.Once(t.Context())
	require.NoError(t, err)
	require.Zero(t, n, "to keep one drops those that have expired")
	p.later.Store(int64(2*time.Hour + 61*time.Second))
	require.EqualValues(t, 1, get("f"))
}

func TestNothingIsKeptLongerThanTheBound(t *testing.T) {
	t.Parallel()
	p := controlPlane(t, gives(canary, ""))
	start := time.Now()
	var later atomic.Int64
	s := store(t, secret.Config{
		BaseURL: p.URL, TTL: time.Hour, MaxTTL: time.Minute,
		Now: func() time.Time { return start.Add(time.Duration(later.Load())) },
	})
	_, err := s.Get(t.Context(), scope)
	require.NoError(t, err)
	later.Store(int64(59 * time.Second))
	n, err := s.Once(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	later.Store(int64(time.Minute))
	n, err = s.Once(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func TestCallsAtOnceShareOneRequest(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	p := controlPlane(t, func(w http.ResponseWriter, body map[string]any) { <-release; gives(canary, "")(w, body) })
	s := store(t, secret.Config{BaseURL: p.URL})
	gone, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 9)
	first := make(chan error, 1)
	go func() { _, err := s.Get(gone, scope); first <- err }()
	require.Eventually(t, func() bool { return p.asked.Load() == 1 }, 5*time.Second, time.Millisecond)
	for range 8 {
		go func() { _, err := s.Get(t.Context(), scope); errs <- err }()
	}
	cancel()
	require.Equal(t, secret.TransportError, code(t, <-first), "who gives up does not wait")
	close(release)
	for range 8 {
		require.NoError(t, <-errs, "nor does it take the others along")
	}
	require.EqualValues(t, 1, p.asked.Load())
}

func TestWhyThereIsNoSecret(t *testing.T) {
	t.Parallel()
	status := func(n int) func(http.ResponseWriter, map[string]any) {
		return func(w http.ResponseWriter, _ map[string]any) { w.WriteHeader(n) }
	}
	raw := func(s string) func(http.ResponseWriter, map[string]any) {
		return func(w http.ResponseWriter, _ map[string]any) { _, _ = io.WriteString(w, s) }
	}
	var followed atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	t.Cleanup(elsewhere.Close)
	for _, c := range []struct {
		name  string
		reply func(http.ResponseWriter, map[string]any)
		want  secret.Code
	}{
		{"revoked", status(404), secret.NotFound},
		{"not signed right", status(401), secret.Unauthorized},
		{"not allowed", status(403), secret.Unauthorized},
		{"broken", status(500), secret.UpstreamError},
		{"refused", status(422), secret.UpstreamError},
		{"no JSON", raw("<html>" + canary), secret.InvalidResponse},
		{"JSON of another shape", raw(`{"data":{"secret":{"x":"` + canary + `"}}}`), secret.InvalidResponse},
		{"no secret", raw(`{"data":{"provider":"github"}}`), secret.InvalidResponse},
		{"another provider's", raw(`{"data":{"provider":"email","secret":"` + canary + `"}}`), secret.InvalidResponse},
		{"a header in it", raw(`{"data":{"provider":"github","secret":"a\r\nX: y"}}`), secret.InvalidResponse},
		{"too long", gives(strings.Repeat("a", 20<<10), ""), secret.InvalidResponse},
		{"sent elsewhere", func(w http.ResponseWriter, _ map[string]any) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, secret.UpstreamError},
		{"cut off", func(http.ResponseWriter, map[string]any) { panic(http.ErrAbortHandler) }, secret.TransportError},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := controlPlane(t, c.reply)
			s := store(t, secret.Config{BaseURL: p.URL})
			for i := range int64(2) {
				_, err := s.Get(t.Context(), scope)
				require.Equal(t, c.want, code(t, err), "%v", err)
				if c.want != secret.TransportError {
					require.Equal(t, i+1, p.asked.Load(), "a refusal is not kept")
				}
			}
		})
	}
	t.Run("a wrong key", func(t *testing.T) {
		t.Parallel()
		p := controlPlane(t, gives(canary, ""))
		wrong, err := auth.ParseKeyring("k1:another-secret-of-the-tests-0123456789")
		require.NoError(t, err)
		_, err = store(t, secret.Config{BaseURL: p.URL, Keys: wrong}).Get(t.Context(), scope)
		require.Equal(t, secret.Unauthorized, code(t, err))
	})
	t.Run("silence", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		p := controlPlane(t, func(http.ResponseWriter, map[string]any) { <-release })
		t.Cleanup(func() { close(release) })
		_, err := store(t, secret.Config{BaseURL: p.URL, Timeout: 100 * time.Millisecond}).Get(t.Context(), scope)
		require.Equal(t, secret.TransportError, code(t, err))
		var e *secret.Error
		require.ErrorAs(t, err, &e)
		require.True(t, e.Retryable())
	})
	for _, x := range []secret.Scope{
		{}, {Provider: "github", RunID: "r", ToolCallID: "c"}, {Provider: "github", UserID: 1, ToolCallID: "c"},
		{Provider: "github", UserID: 1, RunID: "r"}, {UserID: 1, RunID: "r", ToolCallID: "c"},
	} {
		_, err := store(t, secret.Config{BaseURL: elsewhere.URL}).Get(t.Context(), x)
		require.Equal(t, secret.InvalidScope, code(t, err))
	}
	_, err := store(t, secret.Config{}).Get(t.Context(), scope)
	require.Equal(t, secret.Misconfigured, code(t, err))
	require.Zero(t, followed.Load())
}

func TestStaticSecretsNeedNobody(t *testing.T) {
	t.Parallel()
	static, err := secret.ParseStatic("github=" + canary + ", email=re_canary=")
	require.NoError(t, err)
	require.Equal(t, map[string]string{"github": canary, "email": "re_canary="}, static)
	p := controlPlane(t, gives("of the control plane", ""))
	var heard []string
	s := store(t, secret.Config{Static: static, BaseURL: p.URL, Register: func(x string) { heard = append(heard, x) }})
	require.ElementsMatch(t, []string{canary, "re_canary="}, heard)
	v, err := s.Get(t.Context(), secret.Scope{Provider: "github"})
	require.NoError(t, err)
	require.Equal(t, canary, v.Reveal())
	require.Zero(t, p.asked.Load())

	none, err := secret.ParseStatic(" ")
	require.NoError(t, err)
	require.Empty(t, none)
	for _, bad := range []string{canary, "=" + canary, "a=" + canary + ",a=x", "a=", "a=x\ny", "a= x"} {
		_, err := secret.ParseStatic(bad)
		require.Error(t, err, bad)
		require.NotContains(t, err.Error(), canary)
	}
}

func TestASecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	s := store(t, secret.Config{Static: map[string]string{"github": canary}})
	v, err := s.Get(t.Context(), secret.Scope{Provider: "github"})
	require.NoError(t, err)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v, "in", struct{ V secret.Value }{v})
	encoded, err := json.Marshal(map[string]any{"v": v})
	require.NoError(t, err)
	all := log.String() + string(encoded) + fmt.Sprintf("%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v) + fmt.Sprintf("%+v %#v", struct{ V secret.Value }{v}, &v)
	require.NotContains(t, all, canary)
	require.NotContains(t, all, fmt.Sprintf("%x", canary))
	require.Contains(t, all, secret.Hidden)
}

func TestStoresThatCannotBeMeant(t *testing.T) {
	t.Parallel()
	for _, c := range []secret.Config{
		{BaseURL: "http://control.example.com", Keys: keys(t)}, {BaseURL: "ftp://x", Keys: keys(t)}, {BaseURL: "x", Keys: keys(t)},
		{BaseURL: "https://u:p@control.example.com", Keys: keys(t)}, {BaseURL: "https://control.example.com"},
		{Static: map[string]string{"github": ""}}, {TTL: -1}, {MaxEntries: -1},
	} {
		_, err := secret.New(c)
		require.Error(t, err, "%+v", c)
	}
	for _, c := range []secret.Config{
		{BaseURL: "http://control.example.com", Keys: keys(t), PlainHTTP: true}, {BaseURL: "https://control.example.com", Keys: keys(t)},
	} {
		_, err := secret.New(c)
		require.NoError(t, err)
	}
}

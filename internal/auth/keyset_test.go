package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// A11: made-up key ids do not reach the key server.
func TestAFloodOfKeyIDsIsOneFetch(t *testing.T) {
	t.Parallel()
	s, c := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey)), &clock{}
	v := identities(t, s, c)
	flood := func() {
		var all sync.WaitGroup
		errs := make(chan error, 200)
		for i := range 200 {
			all.Go(func() {
				token := jwt(t, jose.ES256, fmt.Sprintf("made-up-%d", i), ec1, identityClaims(nil))
				_, err := v.Verify(t.Context(), bearer("Bearer "+token))
				errs <- err
			})
		}
		all.Wait()
		close(errs)
		for err := range errs {
			refused(t, err, auth.IdentityInvalid)
		}
	}
	flood()
	require.EqualValues(t, 1, s.fetches.Load())
	c.advance(10 * time.Second)
	flood()
	require.EqualValues(t, 2, s.fetches.Load())
	_, err := v.Verify(t.Context(), bearer("Bearer "+jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil))))
	require.NoError(t, err)
}

func TestANewKeyIsFoundAndAnOldOneDropped(t *testing.T) {
	t.Parallel()
	s, c := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey)), &clock{}
	v := identities(t, s, c)
	older := bearer("Bearer " + jwt(t, jose.RS256, "r1", rsa1, identityClaims(m{"exp": now.Unix() + 1e6})))
	newer := bearer("Bearer " + jwt(t, jose.RS256, "r2", rsa2, identityClaims(m{"exp": now.Unix() + 1e6})))
	_, err := v.Verify(t.Context(), older)
	require.NoError(t, err)

	s.publish(public("r2", "RS256", &rsa2.PublicKey))
	_, err = v.Verify(t.Context(), newer)
	refused(t, err, auth.IdentityInvalid) // too soon after the first fetch
	c.advance(10 * time.Second)
	_, err = v.Verify(t.Context(), newer)
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), older)
	refused(t, err, auth.IdentityInvalid)
}

// Keys that turn old are renewed beside the request, not before it, and dropped
// when they could not be renewed for too long.
func TestOldKeysServeWhileTheServerIsDownAndNotForEver(t *testing.T) {
	t.Parallel()
	s, c := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey)), &clock{}
	v := identities(t, s, c)
	token := bearer("Bearer " + jwt(t, jose.RS256, "r1", rsa1, identityClaims(m{"exp": now.Unix() + 1e6})))
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)

	asked := make(chan struct{}, 1)
	s.do(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		select {
		case asked <- struct{}{}:
		default:
		}
	})
	c.advance(10 * time.Minute)
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
	<-asked
	// A key that is not known here may be a new one that could not be fetched.
	_, err = v.Verify(t.Context(), bearer("Bearer "+jwt(t, jose.RS256, "r2", rsa2, identityClaims(nil))))
	refused(t, err, auth.IdentityUnavailable)

	c.advance(50 * time.Minute)
	_, err = v.Verify(t.Context(), token)
	require.Equal(t, 503, refused(t, err, auth.IdentityUnavailable).Status())

	s.publish(public("r1", "RS256", &rsa1.PublicKey))
	c.advance(10 * time.Second)
	_, err = v.Verify(t.Context(), token)
	require.NoError(t, err)
}

// A11: whatever the key server does, the answer is "not now", soon, and no key
// of its making is taken.
func TestABadKeyServerIsUnavailable(t *testing.T) {
	t.Parallel()
	other := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey))
	good, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("r1", "RS256", &rsa1.PublicKey)}})
	require.NoError(t, err)
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	weak, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("r1", "RS256", &rsaKey(1024).PublicKey)}})
	require.NoError(t, err)
	secret := `{"keys":[{"kty":"oct","kid":"r1","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`
	for name, answer := range map[string]http.HandlerFunc{
		"error":         func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = w.Write(good) },
		"redirect":      func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) },
		"no JSON":       text("<html>"),
		"no keys":       text(`{"keys":[]}`),
		"null":          text(`null`),
		"a secret key":  text(secret),
		"a weak key":    text(string(weak)),
		"too many keys": text(strings.Replace(string(good), "[", "["+strings.Repeat(`{},`, 64), 1)),
		"too large":     text(string(good) + strings.Repeat(" ", 300<<10)),
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			_, _ = w.Write(good[:len(good)/2])
		},
		"huge header": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("a", 128<<10))
			_, _ = w.Write(good)
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"slow tokens": func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(good[:10])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newKeyServer(t)
			s.do(answer)
			v := identities(t, s, &clock{}, func(c *auth.IdentityConfig) { c.FetchTimeout = 300 * time.Millisecond })
			token := bearer("Bearer " + jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil)))
			_, err := v.Verify(t.Context(), token)
			refused(t, err, auth.IdentityUnavailable)
			_, err = v.Verify(t.Context(), token)
			refused(t, err, auth.IdentityUnavailable)
			require.EqualValues(t, 1, s.fetches.Load(), "a failure is not repeated at once")
		})
	}
	require.Zero(t, other.fetches.Load())

	t.Run("not there", func(t *testing.T) {
		t.Parallel()
		s := newKeyServer(t)
		s.Close()
		_, err := identities(t, s, &clock{}).Verify(t.Context(), bearer("Bearer "+jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil))))
		refused(t, err, auth.IdentityUnavailable)
	})
}

// A caller who goes away does not take the fetch of the others with it.
func TestAFetchOutlivesItsFirstCaller(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	s.do(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-goOn
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public("r1", "", &rsa1.PublicKey)}})
	})
	v := identities(t, s, &clock{})
	token := bearer("Bearer " + jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil)))
	first, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { _, err := v.Verify(first, token); gone <- err }()
	<-began
	leave()
	refused(t, <-gone, auth.IdentityUnavailable)
	close(goOn)
	_, err := v.Verify(t.Context(), token)
	require.NoError(t, err)
}

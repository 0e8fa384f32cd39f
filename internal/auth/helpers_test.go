package auth_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

const (
	secret1  = "first-secret-of-the-tests-0123456789"
	secret2  = "second-secret-of-the-tests-012345678"
	audience = "runtime.test"
)

var now = time.Unix(1_771_459_200, 0)

// seen is a nonce store for tests of what comes before the nonce.
type seen struct {
	mu     sync.Mutex
	hashes map[string]time.Time
}

func (s *seen) Remember(_ context.Context, hash []byte, until time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.hashes[string(hash)]; there {
		return false, nil
	}
	if s.hashes == nil {
		s.hashes = map[string]time.Time{}
	}
	s.hashes[string(hash)] = until
	return true, nil
}

func keyring(t testing.TB, pairs ...string) auth.Keyring {
	k, err := auth.ParseKeyring(strings.Join(pairs, ","))
	require.NoError(t, err)
	return k
}

func verifier(t testing.TB) *auth.Verifier {
	return &auth.Verifier{
		Keys: keyring(t, "k1:"+secret1, "k2:"+secret2), Audience: audience,
		Nonces: &seen{}, Now: func() time.Time { return now },
	}
}

// call is a request and the claims that would be right for it.
type call struct {
	auth.Request
	claims auth.Claims
}

func newCall() call {
	user := int64(42)
	body := auth.BodyHash([]byte(`{"frameId":"f1"}`))
	return call{
		Request: auth.Request{
			Method: "POST", Target: "/internal/v1/runs/r1/frames?wait=1", BodySHA256: body,
			RunID: "r1", Header: http.Header{},
		},
		claims: auth.Claims{
			Audience: audience, Scope: auth.Service, Actor: "laravel", Method: "POST",
			Target: "/internal/v1/runs/r1/frames?wait=1", BodySHA256: body, RunID: "r1", UserID: &user,
		},
	}
}

func (c call) sign(t testing.TB, k auth.Keyring) call {
	token, err := auth.Sign(k, c.claims, now)
	require.NoError(t, err)
	c.Header.Set(auth.SignatureHeader, token)
	c.Header.Set(auth.UserHeader, "42")
	return c
}

// signText makes a token of claims that Sign would not make.
func signText(secret, claims string) string {
	p := base64.RawURLEncoding.EncodeToString([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(p))
	return "v1." + p + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// claimsText is a right token's claims with some members set to other JSON; an
// empty text leaves the member out.
func claimsText(t testing.TB, change map[string]string) string {
	c := newCall().claims
	c.IssuedAt, c.ExpiresAt = now.Unix(), now.Unix()+60
	c.Nonce, c.KeyID = "nonce-0123456789", "k1"
	b, err := canon.Marshal(c)
	require.NoError(t, err)
	var m map[string]rawJSON
	unmarshal(t, b, &m)
	for name, text := range change {
		if text == "" {
			delete(m, name)
			continue
		}
		m[name] = rawJSON(text)
	}
	var parts []string
	for name, text := range m {
		parts = append(parts, `"`+name+`":`+string(text))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func refused(t testing.TB, err error, reason auth.Reason) *auth.Refusal {
	t.Helper()
	var r *auth.Refusal
	require.ErrorAs(t, err, &r)
	require.Equal(t, reason, r.Reason, r.Message)
	require.NotEmpty(t, r.Message)
	for _, secret := range []string{secret1, secret2, "first-secret", "laravel", "r1", "42"} {
		require.NotContains(t, r.Message, secret, "a refusal repeats nothing of the request")
	}
	return r
}

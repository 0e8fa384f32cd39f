package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const issuer = "https://accounts.example.test"

func rsaKey(bits int) *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return k
}

func ecKey(c elliptic.Curve) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}

var (
	rsa1, rsa2 = rsaKey(2048), rsaKey(2048)
	ec1, ec384 = ecKey(elliptic.P256()), ecKey(elliptic.P384())
)

func public(kid, alg string, k crypto.PublicKey) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Algorithm: alg, Use: "sig", Key: k}
}

// keyServer publishes keys, and misbehaves when told to.
type keyServer struct {
	*httptest.Server
	fetches atomic.Int64
	answer  atomic.Pointer[http.HandlerFunc]
}

func newKeyServer(t testing.TB, keys ...jose.JSONWebKey) *keyServer {
	s := &keyServer{}
	s.publish(keys...)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		(*s.answer.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) publish(keys ...jose.JSONWebKey) {
	s.do(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: keys})
	})
}

func (s *keyServer) do(h http.HandlerFunc) { s.answer.Store(&h) }

// clock is a time that tests move.
type clock struct{ seconds atomic.Int64 }

func (c *clock) now() time.Time          { return now.Add(time.Duration(c.seconds.Load()) * time.Second) }
func (c *clock) advance(d time.Duration) { c.seconds.Add(int64(d / time.Second)) }

func identities(t testing.TB, s *keyServer, c *clock, change ...func(*auth.IdentityConfig)) *auth.IdentityVerifier {
	config := auth.IdentityConfig{
		Issuer: issuer, JWKSURL: s.URL, Audience: "https://runtime.test",
		AllowedEmails: []string{"laravel@project.test"}, AllowedSubjects: []string{"subject-1"}, Now: c.now,
	}
	for _, f := range change {
		f(&config)
	}
	v, err := auth.NewIdentityVerifier(config)
	require.NoError(t, err)
	return v
}

type m = map[string]any

func identityClaims(change m) m {
	all := m{
		"iss": issuer, "aud": "https://runtime.test", "sub": "subject-2", "azp": "party-1",
		"email": "laravel@project.test", "email_verified": true,
		"iat": now.Unix() - 10, "exp": now.Unix() + 3600,
	}
	for name, v := range change {
		if v == nil {
			delete(all, name)
			continue
		}
		all[name] = v
	}
	return all
}

func jwt(t testing.TB, alg jose.SignatureAlgorithm, kid string, key any, claims any) string {
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options = options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, options)
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	jws, err := signer.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

func bearer(values ...string) http.Header {
	h := http.Header{}
	for _, v := range values {
		h.Add("Authorization", v)
	}
	return h
}

func TestIdentitiesThatMayCall(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey), public("e1", "", &ec1.PublicKey))
	v := identities(t, s, &clock{})
	for name, c := range map[string]struct {
		token string
		who   string
	}{
		"RS256, by verified e-mail":  {jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil)), "laravel@project.test"},
		"ES256, by subject":          {jwt(t, jose.ES256, "e1", ec1, identityClaims(m{"sub": "subject-1", "email": nil})), "subject-1"},
		"a subject's e-mail unread":  {jwt(t, jose.RS256, "r1", rsa1, identityClaims(m{"sub": "subject-1", "email_verified": false})), "subject-1"},
		"audiences as a list of one": {jwt(t, jose.RS256, "r1", rsa1, identityClaims(m{"aud": []string{"https://runtime.test"}})), "laravel@project.test"},
		"issued 30 s ahead":          {jwt(t, jose.RS256, "r1", rsa1, identityClaims(m{"iat": now.Unix() + 30, "nbf": now.Unix() + 30})), "laravel@project.test"},
	} {
		who, err := v.Verify(t.Context(), bearer("Bearer "+c.token))
		require.NoError(t, err, name)
		require.Equal(t, c.who, who, name)
	}
	require.EqualValues(t, 1, s.fetches.Load(), "keys are fetched once")
}

func TestIdentitiesThatMayNot(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey), public("e1", "ES256", &ec1.PublicKey),
		public("e384", "", &ec384.PublicKey), public("r512", "RS512", &rsa1.PublicKey), jose.JSONWebKey{KeyID: "enc", Use: "enc", Key: &rsa2.PublicKey})
	v := identities(t, s, &clock{}, func(c *auth.IdentityConfig) { c.AuthorizedParties = []string{"party-1"} })
	plain := identities(t, s, &clock{})
	right := jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil))
	der, err := x509.MarshalPKIXPublicKey(&rsa1.PublicKey)
	require.NoError(t, err)
	payload := strings.Split(right, ".")[1]
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"r1"}`)) + "." + payload + "."
	with := func(change m) []string {
		return []string{"Bearer " + jwt(t, jose.RS256, "r1", rsa1, identityClaims(change))}
	}
	for name, c := range map[string]struct {
		values []string
		reason auth.Reason
		status int
		plain  bool
	}{
		"A12 no identity":                     {nil, auth.IdentityMissing, 401, false},
		"two identities":                      {[]string{"Bearer " + right, "Bearer " + right}, auth.IdentityInvalid, 401, false},
		"another scheme":                      {[]string{"Basic " + right}, auth.IdentityInvalid, 401, false},
		"no scheme":                           {[]string{right}, auth.IdentityInvalid, 401, false},
		"empty":                               {[]string{""}, auth.IdentityInvalid, 401, false},
		"no token":                            {[]string{"Bearer "}, auth.IdentityInvalid, 401, false},
		"no JWT":                              {[]string{"Bearer abc"}, auth.IdentityInvalid, 401, false},
		"oversize":                            {with(m{"x": strings.Repeat("a", 9000)}), auth.IdentityInvalid, 401, false},
		"A9 algorithm none":                   {[]string{"Bearer " + none}, auth.IdentityInvalid, 401, false},
		"A9 HS256 with the RSA public key":    {[]string{"Bearer " + jwt(t, jose.HS256, "r1", der, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"A9 RS512":                            {[]string{"Bearer " + jwt(t, jose.RS512, "r1", rsa1, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"A9 PS256":                            {[]string{"Bearer " + jwt(t, jose.PS256, "r1", rsa1, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"A9 ES384":                            {[]string{"Bearer " + jwt(t, jose.ES384, "e384", ec384, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"A9 ES256 under the RSA key's id":     {[]string{"Bearer " + jwt(t, jose.ES256, "r1", ec1, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"A9 a key published for RS512":        {[]string{"Bearer " + jwt(t, jose.RS256, "r512", rsa1, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"A9 a key for encryption":             {[]string{"Bearer " + jwt(t, jose.RS256, "enc", rsa2, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"another key under a known id":        {[]string{"Bearer " + jwt(t, jose.RS256, "r1", rsa2, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"no key id":                           {[]string{"Bearer " + jwt(t, jose.RS256, "", rsa1, identityClaims(nil))}, auth.IdentityInvalid, 401, false},
		"payload changed":                     {[]string{"Bearer " + strings.Replace(right, "."+payload[:20], "."+swapCase(payload[:20]), 1)}, auth.IdentityInvalid, 401, false},
		"A10 another audience":                {with(m{"aud": "https://other.test"}), auth.IdentityInvalid, 401, false},
		"A10 no audience":                     {with(m{"aud": nil}), auth.IdentityInvalid, 401, false},
		"A10 another issuer":                  {with(m{"iss": issuer + "/"}), auth.IdentityInvalid, 401, false},
		"A10 expired":                         {with(m{"exp": now.Unix() - 1}), auth.IdentityInvalid, 401, false},
		"A10 expires now":                     {with(m{"exp": now.Unix()}), auth.IdentityInvalid, 401, false},
		"A10 no expiry":                       {with(m{"exp": nil}), auth.IdentityInvalid, 401, false},
		"A10 nbf ahead":                       {with(m{"nbf": now.Unix() + 31}), auth.IdentityInvalid, 401, false},
		"A10 iat ahead":                       {with(m{"iat": now.Unix() + 31}), auth.IdentityInvalid, 401, false},
		"A10 e-mail not verified":             {with(m{"email_verified": false}), auth.IdentityInvalid, 403, false},
		"A10 verified not stated":             {with(m{"email_verified": nil}), auth.IdentityInvalid, 403, false},
		"A10 verified as text":                {with(m{"email_verified": "true"}), auth.IdentityInvalid, 401, false},
		"A10 a user's token":                  {with(m{"email": "person@project.test", "sub": "person"}), auth.IdentityInvalid, 403, false},
		"A10 e-mail in capitals":              {with(m{"email": "LARAVEL@project.test"}), auth.IdentityInvalid, 403, false},
		"A10 neither e-mail nor subject":      {with(m{"email": nil, "sub": nil}), auth.IdentityInvalid, 403, false},
		"A10 another party":                   {with(m{"azp": "party-2"}), auth.IdentityInvalid, 401, false},
		"A10 no party":                        {with(m{"azp": nil}), auth.IdentityInvalid, 401, false},
		"A10 several audiences, no party set": {with(m{"aud": []string{"https://runtime.test", "https://other.test"}}), auth.IdentityInvalid, 401, true},
	} {
		which := v
		if c.plain {
			which = plain
		}
		who, err := which.Verify(t.Context(), bearer(c.values...))
		require.Error(t, err, name)
		require.Empty(t, who, name)
		var r *auth.Refusal
		require.ErrorAs(t, err, &r, name)
		require.Equal(t, c.reason, r.Reason, "%s: %v", name, err)
		require.Equal(t, c.status, r.Status(), name)
		require.NotContains(t, r.Message, "project.test", name)
	}
	_, err = v.Verify(t.Context(), bearer("bearer "+right))
	require.NoError(t, err)
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' {
			return r - 32
		}
		if 'A' <= r && r <= 'Z' {
			return r + 32
		}
		return r
	}, s)
}

// A12: the token and the identity are both required.
func TestBothLayersAreRequired(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t, public("r1", "RS256", &rsa1.PublicKey))
	v := verifier(t)
	v.Identity = identities(t, s, &clock{})
	identity := "Bearer " + jwt(t, jose.RS256, "r1", rsa1, identityClaims(nil))

	c := newCall().sign(t, v.Keys)
	_, err := v.Verify(t.Context(), c.Request)
	refused(t, err, auth.IdentityMissing)

	c.Header.Set("Authorization", identity)
	caller, err := v.Verify(t.Context(), c.Request)
	require.NoError(t, err, "a missing identity did not use the token up")
	require.Equal(t, "laravel@project.test", caller.Identity)

	c = newCall()
	c.Header.Set("Authorization", identity)
	_, err = v.Verify(t.Context(), c.Request)
	refused(t, err, auth.MissingToken)
}

func TestIdentityConfigIsChecked(t *testing.T) {
	t.Parallel()
	right := auth.IdentityConfig{Issuer: issuer, JWKSURL: "https://keys.test/jwks", Audience: "a", AllowedSubjects: []string{"s"}}
	for says, spoil := range map[string]func(*auth.IdentityConfig){
		"issuer":           func(c *auth.IdentityConfig) { c.Issuer = "" },
		"audience":         func(c *auth.IdentityConfig) { c.Audience = "" },
		"http or https":    func(c *auth.IdentityConfig) { c.JWKSURL = "file:///etc/keys" },
		"key set's":        func(c *auth.IdentityConfig) { c.JWKSURL = "" },
		"at least one e-m": func(c *auth.IdentityConfig) { c.AllowedSubjects = nil },
	} {
		c := right
		spoil(&c)
		_, err := auth.NewIdentityVerifier(c)
		require.ErrorContains(t, err, says)
		var refusal *auth.Refusal
		require.False(t, errors.As(err, &refusal))
	}
	_, err := auth.NewIdentityVerifier(right)
	require.NoError(t, err)
}

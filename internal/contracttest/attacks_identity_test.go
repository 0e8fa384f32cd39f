package contracttest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

const (
	issuer  = "https://accounts.issuer.test"
	service = "https://runtime.test"
	caller  = "caller@project.test"
)

// identityProvider publishes keys and signs identity tokens.
type identityProvider struct {
	*httptest.Server
	rsa     *rsa.PrivateKey
	fetches atomic.Int64
	answer  atomic.Pointer[http.HandlerFunc]
}

func newIdentityProvider(t *testing.T) *identityProvider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p := &identityProvider{rsa: key}
	p.publish()
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.fetches.Add(1)
		(*p.answer.Load())(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *identityProvider) publish() {
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "rsa1", Algorithm: "RS256", Use: "sig", Key: p.rsa.Public()}}}
	p.do(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(keys) // who asked may have left
	})
}

func (p *identityProvider) do(h http.HandlerFunc) { p.answer.Store(&h) }

// verifier is the second layer as it is configured for the tests.
func (p *identityProvider) verifier(t *testing.T, change ...func(*auth.IdentityConfig)) *auth.IdentityVerifier {
	t.Helper()
	c := auth.IdentityConfig{
		Issuer: issuer, JWKSURL: p.URL, Audience: service, AllowedEmails: []string{caller}, FetchTimeout: 300 * time.Millisecond,
	}
	for _, f := range change {
		f(&c)
	}
	v, err := auth.NewIdentityVerifier(c)
	require.NoError(t, err)
	return v
}

// identityClaims are those of a caller who is let in, with changes; nil leaves
// one out.
func identityClaims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": issuer, "aud": service, "sub": "1", "azp": "party-1", "email": caller, "email_verified": true, "iat": now - 10, "exp": now + 600,
	}
	for name, v := range change {
		claims[name] = v
		if v == nil {
			delete(claims, name)
		}
	}
	return claims
}

func jwt(t *testing.T, alg jose.SignatureAlgorithm, kid string, key any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", kid))
	require.NoError(t, err)
	raw, err := json.Marshal(claims)
	require.NoError(t, err)
	signed, err := signer.Sign(raw)
	require.NoError(t, err)
	text, err := signed.CompactSerialize()
	require.NoError(t, err)
	return text
}

func (p *identityProvider) token(t *testing.T, change map[string]any) string {
	return jwt(t, jose.RS256, "rsa1", p.rsa, identityClaims(change))
}

// as is a request that carries an identity token.
func (s *siege) as(identity string) contracttest.Request {
	q := s.cancel()
	q.Header = http.Header{"Authorization": {"Bearer " + identity}}
	s.tokens = append(s.tokens, identity)
	return q
}

func encoded(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestA09IdentityAlgorithms(t *testing.T) {
	t.Parallel()
	p := newIdentityProvider(t)
	s := besiege(t, "A9", contracttest.Options{Identity: p.verifier(t)})
	claims, err := json.Marshal(identityClaims(nil))
	require.NoError(t, err)
	public := x509.MarshalPKCS1PublicKey(&p.rsa.PublicKey)
	inPEM := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: public})
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	for name, token := range map[string]string{
		"alg none":                             encoded(`{"alg":"none","kid":"rsa1"}`) + "." + encoded(string(claims)) + ".",
		"alg none, a signature kept":           encoded(`{"alg":"none","kid":"rsa1"}`) + "." + encoded(string(claims)) + ".AAAA",
		"alg nOnE":                             encoded(`{"alg":"nOnE","kid":"rsa1"}`) + "." + encoded(string(claims)) + ".",
		"HS256 with the public key":            jwt(t, jose.HS256, "rsa1", public, identityClaims(nil)),
		"HS256 with the public key as PEM":     jwt(t, jose.HS256, "rsa1", inPEM, identityClaims(nil)),
		"PS256 with the right key":             jwt(t, jose.PS256, "rsa1", p.rsa, identityClaims(nil)),
		"RS512 with the right key":             jwt(t, jose.RS512, "rsa1", p.rsa, identityClaims(nil)),
		"another key under the right id":       jwt(t, jose.RS256, "rsa1", other, identityClaims(nil)),
		"a curve's key under the RSA key's id": jwt(t, jose.ES256, "rsa1", curve, identityClaims(nil)),
	} {
		s.refuse(t, name, s.as(token), "unauthorized", string(auth.IdentityInvalid))
	}
	_, err = auth.ParseKeyring("k1:short")
	require.Error(t, err)
	s.note(t, "a weak secret", "the process does not start")
}

func TestA10IdentityClaims(t *testing.T) {
	t.Parallel()
	p := newIdentityProvider(t)
	s := besiege(t, "A10", contracttest.Options{Identity: p.verifier(t, func(c *auth.IdentityConfig) { c.AuthorizedParties = []string{"party-1"} })})
	now := time.Now().Unix()
	for name, change := range map[string]map[string]any{
		"another aud":        {"aud": "https://elsewhere.test"},
		"another iss":        {"iss": "https://accounts.elsewhere.test"},
		"another azp":        {"azp": "party-2"},
		"expired":            {"exp": now - 1},
		"not valid yet":      {"nbf": now + 600},
		"issued ahead":       {"iat": now + 600},
		"without expiry":     {"exp": nil},
		"email not of type":  {"email": []string{caller}},
		"aud is empty":       {"aud": ""},
		"iss is left out":    {"iss": nil},
		"iss with a slash":   {"iss": issuer + "/"},
		"aud in capitals":    {"aud": strings.ToUpper(service)},
		"azp is left out":    {"azp": nil},
		"times are negative": {"exp": -1, "iat": -2},
	} {
		s.refuse(t, name, s.as(p.token(t, change)), "unauthorized", string(auth.IdentityInvalid))
	}
	for name, change := range map[string]map[string]any{
		"email not verified":      {"email_verified": false},
		"email verified as text":  {"email_verified": nil},
		"another service":         {"email": "other@project.test"},
		"a user's token":          {"email": "someone@mail.test", "hd": "mail.test"},
		"email with a null added": {"email": caller + "\x00"},
	} {
		s.refuse(t, name, s.as(p.token(t, change)), "forbidden", string(auth.IdentityInvalid))
	}
}

func TestA11KeySetServer(t *testing.T) {
	t.Parallel()
	p := newIdentityProvider(t)
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for name, h := range map[string]http.HandlerFunc{
		"down": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"slow": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(strings.Repeat(" ", 1<<16))); err != nil {
					return
				}
			}
		},
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newIdentityProvider(t)
			p.do(h)
			s := besiege(t, "A11", contracttest.Options{Identity: p.verifier(t)})
			a := s.refuse(t, "key set server "+name, s.as(p.token(t, nil)), "unavailable", string(auth.IdentityUnavailable))
			require.NotEmpty(t, a.Header.Get("Retry-After"))
		})
	}
	t.Run("flood", func(t *testing.T) {
		s := besiege(t, "A11", contracttest.Options{Identity: p.verifier(t)})
		before := p.fetches.Load()
		for i := range 200 {
			token := jwt(t, jose.RS256, fmt.Sprintf("made-up-%d", i), p.rsa, identityClaims(nil))
			q := s.as(token)
			require.Equal(t, http.StatusUnauthorized, s.Do(t, q).Status)
		}
		require.LessOrEqual(t, p.fetches.Load()-before, int64(2), "made-up key ids turn into fetches")
		s.note(t, "200 tokens with made-up key ids", "401 unauthorized identity_invalid, at most 2 fetches of the keys")
	})
}

func TestA12BothLayersAreNeeded(t *testing.T) {
	t.Parallel()
	p := newIdentityProvider(t)
	s := besiege(t, "A12", contracttest.Options{Identity: p.verifier(t)})
	q := s.as(p.token(t, nil))
	q.Token = contracttest.NoToken
	s.refuse(t, "identity without signature", q, "unauthorized", string(auth.MissingToken))
	s.refuse(t, "signature without identity", s.cancel(), "unauthorized", string(auth.IdentityMissing))
	both := s.as(p.token(t, nil))
	both.Header["Authorization"] = append(both.Header["Authorization"], both.Header["Authorization"]...)
	s.refuse(t, "two identities", both, "unauthorized", string(auth.IdentityInvalid))
	basic := s.cancel()
	basic.Header = http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("a:b"))}}
	s.refuse(t, "another scheme", basic, "unauthorized", string(auth.IdentityInvalid))
	read := contracttest.Request{Target: "/internal/v1/runs/" + s.live, Header: http.Header{"Authorization": {"Bearer " + p.token(t, nil)}}}
	require.Equal(t, http.StatusOK, s.Do(t, read).Status, "with both the caller is let in")
}

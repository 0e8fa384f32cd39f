package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeySetBytes = 256 << 10
	maxKeys        = 64
	minRSABits     = 2048
)

// keySet is an issuer's published keys. Fetches are at least MinInterval apart,
// so tokens with made-up key ids cannot turn into a flood of them, and one fetch
// serves everybody who waits.
type keySet struct {
	config IdentityConfig
	client *http.Client

	mu       sync.Mutex
	keys     []jose.JSONWebKey
	fetched  time.Time     // when keys came
	asked    time.Time     // when a fetch last began
	failed   bool          // whether the last fetch failed
	fetching chan struct{} // closed when the running fetch ends; nil when none runs
}

func newKeySet(c IdentityConfig) *keySet {
	c.FetchTimeout = orDefault(c.FetchTimeout, 5*time.Second)
	c.RefreshEvery = orDefault(c.RefreshEvery, 10*time.Minute)
	c.MaxAge = orDefault(c.MaxAge, time.Hour)
	c.MinInterval = orDefault(c.MinInterval, 10*time.Second)
	client := http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
		TLSHandshakeTimeout:    c.FetchTimeout,
		IdleConnTimeout:        time.Minute,
	}}
	if c.Client != nil {
		client = *c.Client
	}
	// Keys come from the configured address or not at all.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &keySet{config: c, client: &client}
}

// keySetCall is the oidc.KeySet of one verification.
type keySetCall struct {
	set *keySet
	err *Refusal
}

// VerifySignature returns the payload of a token that a published key signed.
func (c *keySetCall) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, refusal := c.set.verify(ctx, raw)
	if refusal != nil {
		c.err = refusal
		return nil, refusal
	}
	return payload, nil
}

func (s *keySet) verify(ctx context.Context, raw string) ([]byte, *Refusal) {
	invalid := refuse(IdentityInvalid, "the identity token is not signed by a current key of the issuer")
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256, jose.ES256})
	if err != nil {
		return nil, invalid
	}
	header := jws.Signatures[0].Header
	if header.KeyID == "" {
		return nil, refuse(IdentityInvalid, "the identity token's header must name its key (kid)")
	}
	candidates, known := s.find(ctx, header.KeyID)
	if !known {
		return nil, refuse(IdentityUnavailable, "the issuer's keys cannot be had at the moment: try again later")
	}
	for _, k := range candidates {
		if !fits(k, header.Algorithm) {
			continue
		}
		if payload, err := jws.Verify(k.Key); err == nil {
			return payload, nil
		}
	}
	return nil, invalid
}

// find returns the published keys of that id, perhaps none. known is false when
// it could not be found out.
func (s *keySet) find(ctx context.Context, kid string) (found []jose.JSONWebKey, known bool) {
	for attempt := 0; ; attempt++ {
		s.mu.Lock()
		now := s.config.Now()
		usable := len(s.keys) > 0 && now.Sub(s.fetched) < s.config.MaxAge
		found = nil
		if usable {
			for _, k := range s.keys {
				if k.KeyID == kid {
					found = append(found, k)
				}
			}
		}
		stale := now.Sub(s.fetched) >= s.config.RefreshEvery
		if (len(found) == 0 || stale) && s.fetching == nil && now.Sub(s.asked) >= s.config.MinInterval && attempt == 0 {
			s.asked, s.fetching = now, make(chan struct{})
			go s.fetch(context.WithoutCancel(ctx), s.fetching)
		}
		wait, failed := s.fetching, s.failed
		s.mu.Unlock()

		if len(found) > 0 {
			return found, true
		}
		if wait == nil || attempt > 0 {
			return nil, usable && !failed
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func (s *keySet) fetch(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(ctx, s.config.FetchTimeout)
	defer cancel()
	keys, err := s.download(ctx)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err != nil
	if err == nil {
		s.keys, s.fetched = keys, s.config.Now()
	}
	s.fetching = nil
	close(done)
}

func (s *keySet) download(ctx context.Context) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.JWKSURL, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the key set answers %d", resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxKeySetBytes {
		return nil, errors.New("the key set is too large")
	}
	return parseKeySet(raw)
}

// parseKeySet leaves out keys that are not for our signatures and fails when
// none is left.
func parseKeySet(raw []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, errors.New("the key set has too many keys")
	}
	var keys []jose.JSONWebKey
	for _, one := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(one) == nil && k.KeyID != "" && (k.Use == "" || k.Use == "sig") && (fits(k, "RS256") || fits(k, "ES256")) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the key set has no key that could sign")
	}
	return keys, nil
}

// fits says whether a public key is one for the algorithm, so that no token can
// have a key used in another way than it was published for.
func fits(k jose.JSONWebKey, alg string) bool {
	if k.Algorithm != "" && k.Algorithm != alg {
		return false
	}
	switch public := k.Key.(type) {
	case *rsa.PublicKey:
		return alg == string(jose.RS256) && public.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return alg == string(jose.ES256) && public.Curve == elliptic.P256()
	default:
		return false
	}
}

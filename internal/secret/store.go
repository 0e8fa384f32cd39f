package secret

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sync/singleflight"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
)

const maxSecretBytes = 16 << 10

// Config says where secrets come from. Zero values take the defaults.
type Config struct {
	// Static gives a provider's secret to every caller. The control plane is not
	// asked about these providers.
	Static map[string]string

	BaseURL string       // of the control plane, https; empty: nobody is asked
	Path    string       // /api/internal/runtime/integrations/secrets/fetch
	Keys    auth.Keyring // signs the requests
	// Audience and Actor are the aud and actor claims of the requests:
	// openagents-control-plane and openagents-runtime.
	Audience, Actor string
	// PlainHTTP lets the control plane be asked without TLS on another machine.
	PlainHTTP bool

	Timeout    time.Duration // one request; 2.5 s
	TTL        time.Duration // how long a secret is kept when the answer does not say; 60 s
	MaxTTL     time.Duration // how long at the most, whatever it says; 5 min
	MaxEntries int           // how many are kept; 1024

	// Register hears each secret before anybody can use it, so that it can be
	// taken out of whatever is stored or logged. It may be nil.
	Register func(string)
	Now      func() time.Time // the wall clock when nil
}

// Store answers secrets and keeps them for a short while, in memory alone.
type Store struct {
	c      Config
	url    string
	target string
	client *http.Client
	flight singleflight.Group

	mu   sync.Mutex
	kept map[Scope]entry
}

type entry struct {
	value Value
	until time.Time
}

// New makes a store or says what cannot be meant.
func New(c Config) (*Store, error) {
	def(&c.Path, "/api/internal/runtime/integrations/secrets/fetch")
	def(&c.Audience, "openagents-control-plane")
	def(&c.Actor, "openagents-runtime")
	def(&c.Timeout, 2500*time.Millisecond)
	def(&c.TTL, time.Minute)
	def(&c.MaxTTL, 5*time.Minute)
	def(&c.MaxEntries, 1024)
	if c.Timeout < 0 || c.TTL < 0 || c.MaxTTL < 0 || c.MaxEntries < 0 {
		return nil, errors.New("secret: a limit is below zero")
	}
	c.TTL = min(c.TTL, c.MaxTTL)
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Store{c: c, kept: map[Scope]entry{}, client: egress.New(egress.Config{Timeout: c.Timeout})}
	for provider, text := range c.Static {
		if why := unusable(text); why != "" {
			return nil, fmt.Errorf("secret: the static secret of %s %s", provider, why)
		}
		s.register(text)
	}
	if c.BaseURL == "" {
		return s, nil
	}
	u, err := url.Parse(c.BaseURL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("secret: the control plane's address must be an https URL without user or query")
	case u.Scheme == "http" && !c.PlainHTTP && !loopback(u.Hostname()):
		return nil, errors.New("secret: the control plane's address must be https, for secrets come from there")
	case len(c.Keys.IDs()) == 0:
		return nil, errors.New("secret: requests to the control plane cannot be signed: the keyring is empty")
	}
	if u.Path == "" {
		u.Path = "/" // a URL without a path makes the joined one relative
	}
	full := u.JoinPath(c.Path)
	s.url, s.target = full.String(), full.RequestURI()
	return s, nil
}

// ParseStatic reads `provider=secret` pairs separated by commas. Errors name the
// provider or the place, never a secret.
func ParseStatic(text string) (map[string]string, error) {
	m := map[string]string{}
	if strings.TrimSpace(text) == "" {
		return m, nil
	}
	for i, pair := range strings.Split(text, ",") {
		provider, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || provider == "" {
			return nil, fmt.Errorf("secret %d: write it as provider=secret", i+1)
		}
		if _, twice := m[provider]; twice {
			return nil, fmt.Errorf("secret %d: provider %s comes twice", i+1, provider)
		}
		if why := unusable(value); why != "" {
			return nil, fmt.Errorf("secret %d: the secret of %s %s", i+1, provider, why)
		}
		m[provider] = value
	}
	return m, nil
}

// Get answers the secret of a scope. Its error is an *Error.
func (s *Store) Get(ctx context.Context, scope Scope) (Value, error) {
	if text, there := s.c.Static[scope.Provider]; there {
		return Value{text}, nil
	}
	switch {
	case scope.Provider == "" || scope.RunID == "" || scope.ToolCallID == "" || scope.UserID <= 0:
		return Value{}, &Error{Code: InvalidScope, Message: "a secret is for a user's call of a tool in a run"}
	case s.url == "":
		return Value{}, &Error{Code: Misconfigured, Message: "no secret of " + scope.Provider + " is configured, and no control plane to ask"}
	}
	if v, ok := s.find(scope); ok {
		return v, nil
	}
	// Calls at once for one scope share one request. It does not end with the
	// first caller's context, but with its own timeout.
	flight := s.flight.DoChan(fmt.Sprintf("%#v", scope), func() (any, error) {
		if v, ok := s.find(scope); ok {
			return v, nil
		}
		v, ttl, err := s.fetch(context.WithoutCancel(ctx), scope)
		if err != nil {
			return nil, err
		}
		s.register(v.text)
		s.keep(scope, v, ttl)
		return v, nil
	})
	select {
	case <-ctx.Done():
		return Value{}, &Error{Code: TransportError, Message: "the call was given up", Err: ctx.Err()}
	case r := <-flight:
		if r.Err != nil {
			return Value{}, r.Err
		}
		return r.Val.(Value), nil
	}
}

// Forget drops a provider's secret, because the provider does not take it.
func (s *Store) Forget(scope Scope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, scope)
}

// Once drops what is kept too long and says how much that was.
func (s *Store) Once(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.purge(), nil
}

func (s *Store) purge() (n int64) {
	now := s.c.Now()
	for scope, e := range s.kept {
		if !now.Before(e.until) {
			delete(s.kept, scope)
			n++
		}
	}
	return n
}

func (s *Store) find(scope Scope) (Value, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, there := s.kept[scope]
	if !there || !s.c.Now().Before(e.until) {
		delete(s.kept, scope)
		return Value{}, false
	}
	return e.value, true
}

func (s *Store) keep(scope Scope, v Value, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purge()
	for len(s.kept) >= s.c.MaxEntries {
		var first Scope
		var at time.Time
		for k, e := range s.kept {
			if at.IsZero() || e.until.Before(at) {
				first, at = k, e.until
			}
		}
		delete(s.kept, first)
	}
	s.kept[scope] = entry{value: v, until: s.c.Now().Add(ttl)}
}

func (s *Store) register(text string) {
	if s.c.Register != nil {
		s.c.Register(text)
	}
}

// unusable says what keeps a text from being a secret.
func unusable(text string) string {
	switch {
	case text == "":
		return "is empty"
	case len(text) > maxSecretBytes:
		return "is too long"
	case strings.ContainsFunc(text, unicode.IsControl) || strings.TrimSpace(text) != text:
		return "has control characters, or spaces around it"
	}
	return ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func def[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

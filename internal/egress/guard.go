package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

// GuardConfig is what a guarded client may do. Zero values take the defaults.
type GuardConfig struct {
	// Allow names the only hosts that may be called, Deny those that may not
	// whatever Allow says: host names, addresses, or *.suffix, which is every name
	// below the suffix and not the suffix itself. An empty Allow is every public
	// host.
	Allow, Deny []string
	// Ports that may be called; 80 and 443.
	Ports []uint16
	// HTTPSOnly refuses plain http, as calls with credentials must.
	HTTPSOnly bool
	// Exceptions are host:port pairs, to the letter, that may be on this machine or
	// in a private network, on any port and without TLS. They are dangerous outside
	// of development. Link-local addresses and metadata services stay refused.
	Exceptions []string

	Timeout        time.Duration // the whole call, redirects and body included; 30 s
	ConnectTimeout time.Duration // one hop's TCP; 5 s
	TLSTimeout     time.Duration // 5 s
	HeaderTimeout  time.Duration // one hop, from request sent to headers read; 15 s
	// MinBytes must come in every Window of a body, or the call ends; 256 bytes
	// in 5 s.
	MinBytes int64
	Window   time.Duration

	MaxRedirects   int   // 5; below zero none is followed, and a redirect is the answer
	MaxBytes       int64 // of a body, after decompression; 5 MiB
	MaxHeaderBytes int64 // 64 KiB

	UserAgent string         // openagents-runtime
	Resolver  *net.Resolver  // Go's own when nil
	RootCAs   *x509.CertPool // the system's when nil
	// Provider is the word that calls are counted under.
	Provider string
	// Observe hears of each hop, Refused of each refusal; both must be quick.
	Observe func(Call)
	Refused func(context.Context, *Refusal)
	Logger  *slog.Logger // hears of exceptions once; may be nil
}

// Guard makes calls to hosts that somebody else may have chosen. Each hop's name
// is resolved once, all its addresses are checked, and one of those is dialed.
// The environment's proxy is not asked. A connection serves one request.
type Guard struct {
	c          GuardConfig
	allow      hosts
	deny       hosts
	exceptions map[string]bool
	transport  http.RoundTripper
}

// NewGuard makes a guard or says what cannot be meant.
func NewGuard(c GuardConfig) (*Guard, error) {
	for name, d := range map[string]time.Duration{
		"whole": c.Timeout, "connect": c.ConnectTimeout, "TLS": c.TLSTimeout, "header": c.HeaderTimeout, "progress": c.Window,
	} {
		if d < 0 {
			return nil, fmt.Errorf("egress: the %s timeout is below zero", name)
		}
	}
	if c.MaxBytes < 0 || c.MaxHeaderBytes < 0 || c.MinBytes < 0 {
		return nil, errors.New("egress: a limit is below zero")
	}
	c.Timeout = orDefault(c.Timeout, 30*time.Second)
	c.ConnectTimeout = orDefault(c.ConnectTimeout, 5*time.Second)
	c.TLSTimeout = orDefault(c.TLSTimeout, 5*time.Second)
	c.HeaderTimeout = orDefault(c.HeaderTimeout, 15*time.Second)
	c.Window = orDefault(c.Window, 5*time.Second)
	c.MinBytes = orDefault(c.MinBytes, 256)
	c.MaxBytes = orDefault(c.MaxBytes, 5<<20)
	c.MaxHeaderBytes = orDefault(c.MaxHeaderBytes, 64<<10)
	if c.MaxRedirects == 0 {
		c.MaxRedirects = 5
	}
	if len(c.Ports) == 0 {
		c.Ports = []uint16{80, 443}
	}
	if c.UserAgent == "" {
		c.UserAgent = "openagents-runtime"
	}
	if c.Resolver == nil {
		c.Resolver = &net.Resolver{PreferGo: true}
	}
	g := &Guard{c: c}
	var err error
	if g.allow, err = parseHosts(c.Allow); err != nil {
		return nil, err
	}
	if g.deny, err = parseHosts(c.Deny); err != nil {
		return nil, err
	}
	if g.exceptions, err = parseExceptions(c.Exceptions); err != nil {
		return nil, err
	}
	g.transport = &tripper{
		next: pinnedTransport(c), classes: nil, otherwise: c.Provider, observe: c.Observe, untraced: true,
	}
	if c.Logger != nil && len(c.Exceptions) > 0 {
		c.Logger.Warn("calls to hosts that are not public are allowed; do not do this outside of development",
			"provider", c.Provider, "hosts", c.Exceptions)
	}
	return g, nil
}

// MaxBytes is the most that a body may have.
func (g *Guard) MaxBytes() int64 { return g.c.MaxBytes }

// Check says whether a URL would be called, as far as can be told without
// asking for its addresses.
func (g *Guard) Check(rawURL string) error {
	t, refusal := parseTarget(rawURL)
	if refusal == nil {
		refusal = g.permit(t)
	}
	if refusal == nil && t.addr.IsValid() {
		refusal = g.admit(t, []netip.Addr{t.addr})
	}
	if refusal != nil {
		return refusal
	}
	return nil
}

// permit decides about a target by its name.
func (g *Guard) permit(t target) *Refusal {
	refuse := func(code, why string) *Refusal {
		return &Refusal{ReasonCode: code, Host: t.host, URL: shown(t.url), Message: why}
	}
	excused := g.exceptions[t.pair()]
	switch {
	case metadataHosts[t.host]:
		return refuse(MetadataEndpoint, "the host is a metadata service")
	case g.deny.match(t.host):
		return refuse(HostNotAllowed, "the host is among those refused")
	case !g.allow.empty() && !g.allow.match(t.host):
		return refuse(HostNotAllowed, "the host is not among those allowed")
	case excused:
		return nil
	case g.c.HTTPSOnly && t.url.Scheme != "https":
		return refuse(InvalidURL, "the scheme must be https")
	case !t.addr.IsValid() && local(t.host):
		return refuse(PrivateAddress, "the host is a name of this machine or network")
	case !slices.Contains(g.c.Ports, t.port):
		return refuse(HostNotAllowed, fmt.Sprintf("port %d is not among those allowed", t.port))
	}
	return nil
}

// lookUp returns the addresses of a target's host, not checked.
func (g *Guard) lookUp(ctx context.Context, t target) ([]netip.Addr, error) {
	if t.addr.IsValid() {
		return []netip.Addr{t.addr}, nil
	}
	name := t.host
	if !g.exceptions[t.pair()] {
		name += "." // as it stands, without the machine's search list
	}
	list, err := g.c.Resolver.LookupNetIP(ctx, "ip", name)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil || len(list) == 0 {
		return nil, &Refusal{ReasonCode: DNSResolutionFailed, Message: "the host's name has no address", Err: err}
	}
	for i := range list {
		list[i] = normalAddr(list[i])
	}
	return list, nil
}

// admit checks every address that a target may be reached at: one that is not
// public refuses them all.
func (g *Guard) admit(t target, list []netip.Addr) *Refusal {
	excused := g.exceptions[t.pair()]
	for _, a := range list {
		if code, why := CheckAddr(a); code != "" && !(excused && excusable(a)) {
			return &Refusal{ReasonCode: code, Message: fmt.Sprintf("%s is %s", a, why)}
		}
	}
	return nil
}

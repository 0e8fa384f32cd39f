package egress

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// maxDialed bounds how many of a name's addresses are tried.
const maxDialed = 8

// pin is where one request may connect to. It travels in the request's context.
type pin struct {
	addrs []netip.Addr // checked
	port  uint16
}

type pinKey struct{}

// pinnedTransport connects to the pin of a request's context and nowhere else.
// It keeps no connection, so none is found again by another request.
func pinnedTransport(c GuardConfig) *http.Transport {
	return &http.Transport{
		Proxy: nil,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			p, ok := ctx.Value(pinKey{}).(pin)
			if !ok {
				return nil, &Refusal{ReasonCode: DNSPinMismatch, Message: "no address was checked for this call"}
			}
			return p.dial(ctx, c.ConnectTimeout)
		},
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.RootCAs},
		TLSHandshakeTimeout:    c.TLSTimeout,
		ResponseHeaderTimeout:  c.HeaderTimeout,
		MaxResponseHeaderBytes: c.MaxHeaderBytes,
		DisableKeepAlives:      true,
	}
}

// dial tries the addresses in turn. All but the last get two seconds at the
// most, so that one dead address does not use up the time of the others.
func (p pin) dial(ctx context.Context, within time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	list := p.addrs[:min(len(p.addrs), maxDialed)]
	var last error
	for i, a := range list {
		d := p.dialer()
		if i < len(list)-1 {
			d.Timeout = 2 * time.Second
		}
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, p.port).String())
		if err == nil {
			return conn, nil
		}
		last = err
	}
	return nil, last
}

func (p pin) dialer() net.Dialer { return net.Dialer{KeepAlive: -1, Control: p.control} }

// control is asked by the dialer about the address that it is about to use, after
// all else, so whatever led there, only checked addresses are reached.
func (p pin) control(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || at.Port() != p.port || !slices.Contains(p.addrs, normalAddr(at.Addr())) {
		return &Refusal{ReasonCode: DNSPinMismatch, Message: "the address is not the one that was checked"}
	}
	return nil
}

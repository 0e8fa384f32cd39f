package egress

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// hosts is a list of patterns: a host name or address, or `*.` and a suffix. The
// suffix alone is not matched: as in a certificate, `*.example.com` is every
// name below example.com and not example.com itself, so a list lets through
// what is written in it.
type hosts struct {
	exact    map[string]bool
	suffixes []string // with the dot
}

func parseHosts(patterns []string) (hosts, error) {
	h := hosts{exact: map[string]bool{}}
	for _, p := range patterns {
		rest, wild := strings.CutPrefix(p, "*.")
		bare := strings.TrimSuffix(strings.TrimPrefix(rest, "["), "]")
		name, addr, why := parseHost(bare, strings.Contains(bare, ":"))
		switch {
		case why != "" || wild && addr.IsValid() || strings.Contains(rest, "*"):
			return h, fmt.Errorf("egress: %q is no host and no *.suffix", p)
		case wild:
			h.suffixes = append(h.suffixes, "."+name)
		default:
			h.exact[name] = true
		}
	}
	return h, nil
}

func (h hosts) empty() bool { return len(h.exact)+len(h.suffixes) == 0 }

func (h hosts) match(host string) bool {
	if h.exact[host] {
		return true
	}
	for _, s := range h.suffixes {
		if strings.HasSuffix(host, s) && len(host) > len(s) {
			return true
		}
	}
	return false
}

// parseExceptions reads host:port pairs.
func parseExceptions(pairs []string) (map[string]bool, error) {
	m := map[string]bool{}
	for _, p := range pairs {
		host, port, err := net.SplitHostPort(p)
		if err != nil {
			return nil, fmt.Errorf("egress: exception %q is not host:port", p)
		}
		name, addr, why := parseHost(host, strings.Contains(host, ":"))
		n, err := strconv.ParseUint(port, 10, 16)
		if why != "" || err != nil || n == 0 {
			return nil, fmt.Errorf("egress: exception %q is not host:port", p)
		}
		if addr.IsValid() && !excusable(addr) || metadataHosts[name] {
			return nil, fmt.Errorf("egress: exception %q can be neither link-local nor a metadata service", p)
		}
		m[pair(name, uint16(n))] = true
	}
	return m, nil
}

// normalAddr is an address as it is compared: the resolver may hand IPv4 out in
// IPv6's form.
func normalAddr(a netip.Addr) netip.Addr { return a.Unmap() }

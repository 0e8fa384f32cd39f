package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

const maxURLBytes = 8 << 10

// names maps a host as people write it to the ASCII form that is resolved, and
// refuses what is no host name.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

var errUnstable = errors.New("the name changes when it is mapped again")

// target is where one request goes. Its URL spells the host in the one form that
// is checked, resolved and sent.
type target struct {
	url  *url.URL
	host string     // lower case ASCII without a final dot, or an address
	addr netip.Addr // valid when host is an address
	port uint16
}

// origin is what credentials are for.
func (t target) origin() string { return fmt.Sprintf("%s://%s:%d", t.url.Scheme, t.host, t.port) }

// pair is the host with its port, as exceptions name it.
func (t target) pair() string { return pair(t.host, t.port) }

func pair(host string, port uint16) string { return host + "|" + strconv.Itoa(int(port)) }

// parseTarget reads an absolute URL. There is one spelling of everything: what
// two readers could understand in two ways is refused.
func parseTarget(raw string) (target, *Refusal) {
	if len(raw) > maxURLBytes {
		return target{}, &Refusal{ReasonCode: InvalidURL, Message: fmt.Sprintf("the URL is longer than %d bytes", maxURLBytes)}
	}
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's own words repeat the URL, query and all.
		return target{}, &Refusal{ReasonCode: InvalidURL, Message: "the URL cannot be read"}
	}
	return newTarget(u, raw)
}

func newTarget(u *url.URL, raw string) (target, *Refusal) {
	bad := func(why string) (target, *Refusal) {
		return target{}, &Refusal{ReasonCode: InvalidURL, Host: u.Hostname(), URL: shown(u), Message: why}
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return bad("the scheme must be http or https")
	case u.Opaque != "" || u.Hostname() == "":
		return bad("the URL names no host")
	case u.User != nil:
		return bad("the URL holds a user or a password")
	case strings.Contains(authority(raw), "%"):
		return bad("the host is written with percent signs")
	}
	t := target{port: 80}
	if u.Scheme == "https" {
		t.port = 443
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != p {
			return bad("the port is not a number from 1 to 65535")
		}
		t.port = uint16(n)
	}
	var why string
	if t.host, t.addr, why = parseHost(u.Hostname(), strings.HasPrefix(u.Host, "[")); why != "" {
		return bad(why)
	}
	clean := *u
	clean.Host, clean.Fragment, clean.RawFragment = t.host, "", ""
	if t.addr.Is6() {
		clean.Host = "[" + t.host + "]"
	}
	if u.Port() != "" {
		clean.Host += ":" + u.Port()
	}
	t.url = &clean
	return t, nil
}

// authority is what stands between // and the path, as written.
func authority(raw string) string {
	_, rest, _ := strings.Cut(raw, "//")
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

// parseHost returns a host in its one form, or why it has none.
func parseHost(host string, bracketed bool) (name string, addr netip.Addr, why string) {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "", netip.Addr{}, "the address has a zone"
		}
		if bracketed != a.Is6() {
			return "", netip.Addr{}, "only an IPv6 address stands in brackets"
		}
		return a.String(), a, ""
	}
	if bracketed {
		return "", netip.Addr{}, "there is no IPv6 address in the brackets"
	}
	name, err := names.ToASCII(strings.TrimSuffix(host, "."))
	if err == nil {
		// Some names are mapped to what is no name itself: another reader would go
		// elsewhere with it.
		var again string
		if again, err = names.ToASCII(name); again != name {
			err = errUnstable
		}
	}
	if err != nil {
		return "", netip.Addr{}, "the host is no host name"
	}
	// Mapping may have made ASCII digits of others, so addresses are looked for
	// once more, and in every spelling that some resolver takes for one.
	if last := name[strings.LastIndexByte(name, '.')+1:]; numeric(last) {
		return "", netip.Addr{}, "the host is an address in an odd spelling"
	}
	return name, netip.Addr{}, ""
}

// numeric says whether a host's last label makes readers take it for an IPv4
// address: decimal, octal or hexadecimal.
func numeric(label string) bool {
	if rest, hex := strings.CutPrefix(label, "0x"); hex {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// metadataHosts are names of metadataAddrs.
var metadataHosts = map[string]bool{
	"metadata": true, "metadata.google.internal": true, "metadata.goog": true,
	"metadata.aliyun.internal": true, "metadata.azure.internal": true, "metadata.azure.com": true,
	"metadata.tencentyun.com": true, "metadata.platformequinix.com": true, "metadata.packet.net": true,
	"instance-data": true, "instance-data.ec2.internal": true,
}

// localSuffixes are names that are not resolved in public.
var localSuffixes = []string{".localhost", ".local", ".internal", ".home.arpa", ".onion"}

// local says whether a name can only be meant for this machine or network.
func local(host string) bool {
	return !strings.Contains(host, ".") || slices.ContainsFunc(localSuffixes, func(s string) bool {
		return strings.HasSuffix(host, s)
	})
}

package egress

import "net/netip"

// metadataAddrs are services that hand a machine its credentials. Some lie in
// ranges that are otherwise public.
var metadataAddrs = addrs(
	"169.254.169.254",    // AWS, Google, Azure, OpenStack, DigitalOcean
	"169.254.169.253",    // AWS: resolver of the VPC
	"169.254.170.2",      // AWS: credentials of a task
	"169.254.170.23",     // AWS: identity of a pod
	"100.100.100.200",    // Alibaba
	"168.63.129.16",      // Azure: the host's wire server
	"192.0.0.192",        // Oracle
	"fd00:ec2::254",      // AWS
	"fd00:ec2::253",      // AWS: resolver
	"fd00:ec2::23",       // AWS: identity of a pod
	"fd20:ce::254",       // Google
	"fd00:c1::a9fe:a9fe", // Oracle
)

// notPublic are the ranges of the IANA special-purpose registries that no public
// service has, and those that carry an IPv4 address inside.
var notPublic = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by a carrier"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "reserved for AS112"},
	{netip.MustParsePrefix("192.52.193.0/24"), "reserved for AMT"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a 6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("192.175.48.0/24"), "reserved for AS112"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"}, // the broadcast address too

	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("::/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("64:ff9b::/96"), "translated by NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "translated by NAT64"},
	{netip.MustParsePrefix("100::/64"), "discarded"},
	{netip.MustParsePrefix("2001::/32"), "Teredo"},
	{netip.MustParsePrefix("2001::/23"), "reserved for protocols"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "reserved for AS112"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
	{netip.MustParsePrefix("5f00::/16"), "for segment routing"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// global6 is all of IPv6 that is given out for the public.
var global6 = netip.MustParsePrefix("2000::/3")

func addrs(list ...string) map[netip.Addr]bool {
	m := map[netip.Addr]bool{}
	for _, s := range list {
		m[netip.MustParseAddr(s)] = true
	}
	return m
}

// CheckAddr says why an address may not be called: MetadataEndpoint or
// PrivateAddress with words for it, or "" when it is public. What carries an
// IPv4 address inside is refused whatever that address is.
func CheckAddr(a netip.Addr) (reasonCode, why string) {
	if metadataAddrs[a.Unmap().WithZone("")] {
		return MetadataEndpoint, "a metadata service"
	}
	if !a.IsValid() || a.Zone() != "" {
		return PrivateAddress, "of one link only"
	}
	for _, r := range notPublic {
		// A prefix of IPv4 holds no mapped address, so those fall to their own.
		if r.prefix.Contains(a) {
			return PrivateAddress, r.what
		}
	}
	if a.Is6() && !global6.Contains(a) {
		return PrivateAddress, "not given out"
	}
	return "", ""
}

// excusable says whether an exception may open the address: this machine and
// private networks, never link-local or metadata.
func excusable(a netip.Addr) bool {
	code, _ := CheckAddr(a)
	return code == "" || code == PrivateAddress && (a.IsLoopback() || a.IsPrivate()) && !a.Is4In6() && a.Zone() == ""
}

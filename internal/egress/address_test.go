package egress_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
)

func TestAddressesThatAreNotPublicAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ addr, code string }{
		// The first and the last of each range.
		{"0.0.0.0", egress.PrivateAddress}, {"0.255.255.255", egress.PrivateAddress},
		{"10.0.0.0", egress.PrivateAddress}, {"10.255.255.255", egress.PrivateAddress},
		{"100.64.0.0", egress.PrivateAddress}, {"100.127.255.255", egress.PrivateAddress},
		{"127.0.0.1", egress.PrivateAddress}, {"127.255.255.255", egress.PrivateAddress},
		{"169.254.0.1", egress.PrivateAddress}, {"169.254.255.255", egress.PrivateAddress},
		{"172.16.0.0", egress.PrivateAddress}, {"172.31.255.255", egress.PrivateAddress},
		{"192.0.0.1", egress.PrivateAddress}, {"192.0.2.1", egress.PrivateAddress},
		{"192.31.196.1", egress.PrivateAddress}, {"192.52.193.1", egress.PrivateAddress},
		{"192.88.99.1", egress.PrivateAddress}, {"192.168.0.0", egress.PrivateAddress},
		{"192.168.255.255", egress.PrivateAddress}, {"192.175.48.1", egress.PrivateAddress},
		{"198.18.0.0", egress.PrivateAddress}, {"198.19.255.255", egress.PrivateAddress},
		{"198.51.100.7", egress.PrivateAddress}, {"203.0.113.7", egress.PrivateAddress},
		{"224.0.0.1", egress.PrivateAddress}, {"239.255.255.255", egress.PrivateAddress},
		{"240.0.0.1", egress.PrivateAddress}, {"255.255.255.255", egress.PrivateAddress},

		{"::", egress.PrivateAddress}, {"::1", egress.PrivateAddress},
		{"::ffff:127.0.0.1", egress.PrivateAddress}, {"::ffff:93.184.215.14", egress.PrivateAddress},
		{"::127.0.0.1", egress.PrivateAddress}, {"::93.184.215.14", egress.PrivateAddress},
		{"64:ff9b::7f00:1", egress.PrivateAddress}, {"64:ff9b::5db8:d70e", egress.PrivateAddress},
		{"64:ff9b:1::a00:1", egress.PrivateAddress}, {"100::1", egress.PrivateAddress},
		{"2001::1", egress.PrivateAddress}, {"2001:1ff:ffff::1", egress.PrivateAddress},
		{"2001:db8::1", egress.PrivateAddress}, {"2002:7f00:1::", egress.PrivateAddress},
		{"2620:4f:8000::1", egress.PrivateAddress}, {"3fff::1", egress.PrivateAddress},
		{"4000::1", egress.PrivateAddress}, {"5f00::1", egress.PrivateAddress},
		{"fc00::1", egress.PrivateAddress}, {"fdff:ffff::1", egress.PrivateAddress},
		{"fe80::1", egress.PrivateAddress}, {"fe80::1%eth0", egress.PrivateAddress},
		{"2606:4700::1111%eth0", egress.PrivateAddress},
		{"fec0::1", egress.PrivateAddress}, {"ff02::1", egress.PrivateAddress},

		{"169.254.169.254", egress.MetadataEndpoint}, {"169.254.170.2", egress.MetadataEndpoint},
		{"100.100.100.200", egress.MetadataEndpoint}, {"168.63.129.16", egress.MetadataEndpoint},
		{"fd00:ec2::254", egress.MetadataEndpoint}, {"fd20:ce::254", egress.MetadataEndpoint},
		{"::ffff:169.254.169.254", egress.MetadataEndpoint}, {"fd00:ec2::254%eth0", egress.MetadataEndpoint},

		// Their neighbours, and some that are known to be public.
		{"1.0.0.0", ""}, {"9.255.255.255", ""}, {"11.0.0.0", ""}, {"100.63.255.255", ""}, {"100.128.0.0", ""},
		{"126.255.255.255", ""}, {"128.0.0.0", ""}, {"169.253.255.255", ""}, {"169.255.0.0", ""},
		{"172.15.255.255", ""}, {"172.32.0.0", ""}, {"192.167.255.255", ""}, {"192.169.0.0", ""},
		{"198.17.255.255", ""}, {"198.20.0.0", ""}, {"223.255.255.255", ""}, {"93.184.215.14", ""},
		{"2001:200::1", ""}, {"2606:4700::1111", ""}, {"2a00:1450:4001::200e", ""}, {"2003::1", ""},
	} {
		code, why := egress.CheckAddr(netip.MustParseAddr(c.addr))
		require.Equal(t, c.code, code, "%s: %s", c.addr, why)
		require.Equal(t, c.code == "", why == "", c.addr)
	}
	code, _ := egress.CheckAddr(netip.Addr{})
	require.Equal(t, egress.PrivateAddress, code, "no address at all")
}

// anyAddr draws addresses of both families, often near the edges of ranges.
func anyAddr() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "v4") {
			b := rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "bytes")
			if rapid.Bool().Draw(t, "special") {
				b[0] = rapid.SampledFrom([]byte{0, 10, 100, 127, 169, 172, 192, 198, 203, 224, 239, 240, 255}).Draw(t, "first")
				b[1] = rapid.SampledFrom([]byte{0, 2, 16, 18, 31, 51, 64, 88, 127, 168, 254, 255}).Draw(t, "second")
			}
			return netip.AddrFrom4([4]byte(b))
		}
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		head := rapid.SampledFrom([][]byte{
			{}, {0x20, 1}, {0x20, 2}, {0xfc}, {0xfd}, {0xfe, 0x80}, {0xfe, 0xc0}, {0xff, 2}, {0, 0x64, 0xff, 0x9b},
			make([]byte, 10), make([]byte, 12), append(make([]byte, 10), 0xff, 0xff), make([]byte, 15),
		}).Draw(t, "head")
		copy(b, head)
		return netip.AddrFrom16([16]byte(b))
	})
}

func TestNoAddressPassesThatTheLibraryCallsNotGlobal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := anyAddr().Draw(t, "addr")
		inner := a.Unmap()
		local := !inner.IsGlobalUnicast() || inner.IsPrivate() || inner.IsLoopback() || inner.IsMulticast() ||
			inner.IsLinkLocalUnicast() || inner.IsUnspecified() || inner.IsInterfaceLocalMulticast() || a.Is4In6()
		if code, _ := egress.CheckAddr(a); local && code == "" {
			t.Fatalf("%s passes", a)
		}
		if code, _ := egress.CheckAddr(netip.AddrFrom16(a.As16())); a.Is4() && code == "" {
			t.Fatalf("%s passes in IPv6's form", a)
		}
	})
}

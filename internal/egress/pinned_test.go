package egress

import (
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// The dialer asks about the very address that it is about to use, whatever came before.
func TestOnlyCheckedAddressesAreDialed(t *testing.T) {
	t.Parallel()
	p := pin{addrs: []netip.Addr{netip.MustParseAddr("93.184.215.14"), netip.MustParseAddr("2606:4700::1111")}, port: 443}
	for _, ok := range []string{"93.184.215.14:443", "[2606:4700::1111]:443", "[::ffff:93.184.215.14]:443"} {
		require.NoError(t, p.control("tcp", ok, nil))
	}
	for _, other := range []string{"93.184.215.14:80", "127.0.0.1:443", "[2606:4700::1111%eth0]:443", "example.com:443", ""} {
		var r *Refusal
		require.ErrorAs(t, p.control("tcp", other, nil), &r, other)
		require.Equal(t, DNSPinMismatch, r.ReasonCode)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	d := p.dialer()
	_, err = d.DialContext(t.Context(), "tcp", l.Addr().String())
	require.ErrorContains(t, err, DNSPinMismatch)

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://93.184.215.14/", nil)
	require.NoError(t, err)
	_, err = pinnedTransport(GuardConfig{}).RoundTrip(req)
	require.ErrorContains(t, err, DNSPinMismatch, "a request that nobody checked goes nowhere")
	require.Nil(t, pinnedTransport(GuardConfig{}).Proxy)
}

package egress_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
)

func guard(t testing.TB, c egress.GuardConfig) *egress.Guard {
	g, err := egress.NewGuard(c)
	require.NoError(t, err)
	return g
}

// hostile are URLs that must be refused before anything is sent or looked up.
var hostile = []struct{ url, code string }{
	// Addresses that are not public.
	{"http://127.0.0.1/", egress.PrivateAddress},
	{"http://127.0.0.1:443/", egress.PrivateAddress},
	{"http://0.0.0.0/", egress.PrivateAddress},
	{"http://10.1.2.3/", egress.PrivateAddress},
	{"http://100.64.1.1/", egress.PrivateAddress},
	{"http://192.168.1.1/", egress.PrivateAddress},
	{"http://255.255.255.255/", egress.PrivateAddress},
	{"http://[::1]/", egress.PrivateAddress},
	{"http://[::]/", egress.PrivateAddress},
	{"http://[0:0:0:0:0:0:0:1]/", egress.PrivateAddress},
	{"http://[::ffff:127.0.0.1]/", egress.PrivateAddress},
	{"http://[::ffff:7f00:1]/", egress.PrivateAddress},
	{"http://[::127.0.0.1]/", egress.PrivateAddress},
	{"http://[64:ff9b::127.0.0.1]/", egress.PrivateAddress},
	{"http://[64:ff9b:1::1]/", egress.PrivateAddress},
	{"http://[2002:7f00:1::]/", egress.PrivateAddress},
	{"http://[2001:0:7f00:1::]/", egress.PrivateAddress},
	{"http://[fc00::1]/", egress.PrivateAddress},
	{"http://[fec0::1]/", egress.PrivateAddress},
	{"http://[ff02::1]/", egress.PrivateAddress},
	// Metadata services.
	{"http://169.254.169.254/latest/meta-data/", egress.MetadataEndpoint},
	{"http://[::ffff:169.254.169.254]/", egress.MetadataEndpoint},
	{"http://[fd00:ec2::254]/", egress.MetadataEndpoint},
	{"http://100.100.100.200/", egress.MetadataEndpoint},
	{"http://168.63.129.16/", egress.MetadataEndpoint},
	{"http://metadata/", egress.MetadataEndpoint},
	{"http://metadata.google.internal/computeMetadata/v1/", egress.MetadataEndpoint},
	{"http://METADATA.Google.Internal./", egress.MetadataEndpoint},
	{"http://metadata.google.internal:443/", egress.MetadataEndpoint},
	{"http://metadata。google。internal/", egress.MetadataEndpoint},
	// Names of this machine and network.
	{"http://localhost/", egress.PrivateAddress},
	{"http://LOCALHOST./", egress.PrivateAddress},
	{"http://a.localhost/", egress.PrivateAddress},
	{"http://printer.local/", egress.PrivateAddress},
	{"http://db.internal/", egress.PrivateAddress},
	{"http://postgres/", egress.PrivateAddress},
	{"http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", egress.PrivateAddress},
	// Addresses in odd spellings.
	{"http://127.1/", egress.InvalidURL},
	{"http://127.0.1/", egress.InvalidURL},
	{"http://0x7f000001/", egress.InvalidURL},
	{"http://0X7F.0.0.1/", egress.InvalidURL},
	{"http://0x7f.0.0.0x1/", egress.InvalidURL},
	{"http://2130706433/", egress.InvalidURL},
	{"http://017700000001/", egress.InvalidURL},
	{"http://0177.0.0.1/", egress.InvalidURL},
	{"http://127.0.0.01/", egress.InvalidURL},
	{"http://127.0.0.1./", egress.InvalidURL},
	{"http://127.0.0.1.1/", egress.InvalidURL},
	{"http://a.0x/", egress.InvalidURL},
	{"http://127。0。0。1/", egress.InvalidURL},
	{"http://①②⑦.⓪.⓪.①/", egress.InvalidURL},
	{"http://\uff11\uff12\uff17.0.0.1/", egress.InvalidURL},
	{"http://%31%32%37.0.0.1/", egress.InvalidURL},
	{"http://127%2e0%2e0%2e1/", egress.InvalidURL},
	{"http://127%E3%80%820%E3%80%820%E3%80%821/", egress.InvalidURL},
	{"http://ex%C3%A4mple.com/", egress.InvalidURL},
	{"http://[fe80::1%25eth0]/", egress.InvalidURL},
	{"http://[::1%25lo]/", egress.InvalidURL},
	{"http://[127.0.0.1]/", egress.InvalidURL},
	{"http://[::1/", egress.InvalidURL},
	{"http://[example.com]/", egress.InvalidURL},
	{"http://::1/", egress.InvalidURL},
	// What two readers could understand in two ways.
	{"http://user@example.com/", egress.InvalidURL},
	{"http://user:pass@example.com/", egress.InvalidURL},
	{"http://example.com@127.0.0.1/", egress.InvalidURL},
	{"http://example.com:80@127.0.0.1/", egress.InvalidURL},
	{"http://example.com\\@127.0.0.1/", egress.InvalidURL},
	{"http://127.0.0.1\\@example.com/", egress.InvalidURL},
	{"http:\\\\127.0.0.1\\", egress.InvalidURL},
	{"http:/127.0.0.1/", egress.InvalidURL},
	{"http:127.0.0.1/", egress.InvalidURL},
	{"http:///127.0.0.1/", egress.InvalidURL},
	{"http://exam\tple.com/", egress.InvalidURL},
	{"http://example.com\r\nHost: 127.0.0.1/", egress.InvalidURL},
	{" http://example.com/", egress.InvalidURL},
	{"http://exa mple.com/", egress.InvalidURL},
	{"http://exam\u00adple..com/", egress.InvalidURL},
	{"http://example..com/", egress.InvalidURL},
	{"http://.example.com/", egress.InvalidURL},
	{"http://example.com../", egress.InvalidURL},
	{"http://0\u2135.example.com/", egress.InvalidURL}, // mapped to what is no name
	{"http://-a.example.com/", egress.InvalidURL},
	{"http://xn--zzzzzzzzz.example.com/", egress.InvalidURL},
	{"http://a" + strings.Repeat(".a", 130) + ".com/", egress.InvalidURL},
	{"http://" + strings.Repeat("a", 64) + ".com/", egress.InvalidURL},
	{"http://example.com/" + strings.Repeat("a", 9000), egress.InvalidURL},
	// Schemes and ports.
	{"", egress.InvalidURL},
	{"example.com", egress.InvalidURL},
	{"//example.com/", egress.InvalidURL},
	{"file:///etc/passwd", egress.InvalidURL},
	{"ftp://example.com/", egress.InvalidURL},
	{"gopher://example.com:70/_", egress.InvalidURL},
	{"unix:///run/docker.sock", egress.InvalidURL},
	{"javascript:alert(1)", egress.InvalidURL},
	{"data:text/plain,x", egress.InvalidURL},
	{"http://example.com:0/", egress.InvalidURL},
	{"http://example.com:080/", egress.InvalidURL},
	{"http://example.com:65616/", egress.InvalidURL},
	{"http://example.com:+80/", egress.InvalidURL},
	{"http://example.com:22/", egress.HostNotAllowed},
	{"http://example.com:6379/", egress.HostNotAllowed},
	{"https://example.com:8443/", egress.HostNotAllowed},
}

func TestHostileURLsAreRefused(t *testing.T) {
	t.Parallel()
	ns := dns(t, nil)
	var refusals []*egress.Refusal
	g := guard(t, egress.GuardConfig{
		Resolver: ns.resolver(),
		Refused:  func(_ context.Context, r *egress.Refusal) { refusals = append(refusals, r) },
	})
	for _, c := range hostile {
		_, err := g.Do(t.Context(), egress.Request{URL: c.url})
		var r *egress.Refusal
		require.ErrorAs(t, err, &r, "%q", c.url)
		require.Equal(t, c.code, r.ReasonCode, "%q: %v", c.url, err)
		require.NotContains(t, err.Error()+r.URL, ":pass")
		require.ErrorAs(t, g.Check(c.url), &r, c.url)
		require.Equal(t, c.code, r.ReasonCode, c.url)
	}
	require.Len(t, refusals, len(hostile), "each is told")
	require.Empty(t, ns.asked(), "nothing is looked up")
}

func TestARefusalShowsNoSecret(t *testing.T) {
	t.Parallel()
	g := guard(t, egress.GuardConfig{})
	for _, u := range []string{
		"http://u:canary@10.0.0.1/p?token=canary#canary", "http://10.0.0.1/p?token=canary#canary",
		"http://canary:canary@exa mple.com/?canary", "http://example.com:99/p?canary",
	} {
		_, err := g.Do(t.Context(), egress.Request{URL: u})
		var r *egress.Refusal
		require.ErrorAs(t, err, &r)
		require.NotContains(t, err.Error()+r.LogValue().String()+r.Details()["url"]+r.Details()["host"], "canary", u)
		require.Equal(t, r.ReasonCode, r.Details()["reason_code"])
	}
}

func TestHostLists(t *testing.T) {
	t.Parallel()
	g := guard(t, egress.GuardConfig{
		Allow: []string{"api.example.com", "*.Example.org", "münchen.de", "93.184.215.14", "2606:4700::1111"},
		Deny:  []string{"bad.example.org", "*.worse.example.org"},
	})
	for url, code := range map[string]string{
		"https://api.example.com/":         "",
		"https://API.Example.Com./":        "",
		"https://example.com/":             egress.HostNotAllowed,
		"https://x.api.example.com/":       egress.HostNotAllowed,
		"https://api.example.com.evil.io/": egress.HostNotAllowed,
		"https://evilapi.example.com/":     egress.HostNotAllowed,
		"https://a.example.org/":           "",
		"https://a.b.example.org/":         "",
		"https://example.org/":             egress.HostNotAllowed, // the suffix alone
		"https://evilexample.org/":         egress.HostNotAllowed,
		"https://bad.example.org/":         egress.HostNotAllowed,
		"https://x.bad.example.org/":       "",
		"https://x.worse.example.org/":     egress.HostNotAllowed,
		"https://worse.example.org/":       "",
		"https://xn--mnchen-3ya.de/":       "",
		"https://MÜNCHEN.de/":              "",
		"http://93.184.215.14/":            "",
		"http://[2606:4700:0::1111]/":      "",
		"http://93.184.215.15/":            egress.HostNotAllowed,
	} {
		err := g.Check(url)
		var r *egress.Refusal
		if code == "" {
			require.NoError(t, err, url)
			continue
		}
		require.ErrorAs(t, err, &r, url)
		require.Equal(t, code, r.ReasonCode, url)
	}
	secure := guard(t, egress.GuardConfig{HTTPSOnly: true})
	require.NoError(t, secure.Check("https://example.com"))
	require.ErrorContains(t, secure.Check("http://example.com"), "https")
}

func TestAGuardThatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []egress.GuardConfig{
		{Allow: []string{"*"}}, {Allow: []string{""}}, {Allow: []string{"a.*.com"}}, {Allow: []string{"*.1.2.3.4"}},
		{Allow: []string{"https://example.com"}}, {Allow: []string{"example.com:443"}}, {Deny: []string{"127.1"}},
		{Exceptions: []string{"localhost"}}, {Exceptions: []string{"127.0.0.1:0"}}, {Exceptions: []string{"*:80"}},
		{Exceptions: []string{"169.254.169.254:80"}}, {Exceptions: []string{"169.254.1.1:80"}},
		{Exceptions: []string{"metadata.google.internal:80"}}, {Exceptions: []string{"100.100.100.200:80"}},
		{Exceptions: []string{"[fd00:ec2::254]:80"}}, {Exceptions: []string{"0.0.0.0:80"}},
		{Timeout: -1}, {Window: -1}, {MaxBytes: -1}, {MinBytes: -1},
	} {
		_, err := egress.NewGuard(c)
		require.Error(t, err, "%+v", c)
	}
}

// What the check takes is written in one way, and whatever it takes is no address
// that the rules refuse.
func FuzzURL(f *testing.F) {
	for _, c := range hostile {
		f.Add(c.url)
	}
	for _, u := range []string{"http://example.com", "https://a.b:443/x?y#z", "http://93.184.215.14/", "https://münchen.de/"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		clean, host, err := egress.Canonical(raw)
		if err != nil {
			var r *egress.Refusal
			require.ErrorAs(t, err, &r)
			require.NotEmpty(t, r.ReasonCode)
			return
		}
		again, same, err := egress.Canonical(clean)
		require.NoError(t, err, clean)
		require.Equal(t, clean, again)
		require.Equal(t, host, same)
		if a, err := netip.ParseAddr(host); err == nil {
			require.Equal(t, a.String(), host)
			require.Empty(t, a.Zone())
			return
		}
		require.Equal(t, strings.ToLower(host), host)
		require.NotContains(t, clean[:strings.Index(clean, host)], "@")
		require.Empty(t, strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-."), host)
		last := host[strings.LastIndexByte(host, '.')+1:]
		require.NotEmpty(t, strings.Trim(last, "0123456789"), "a resolver would take it for an address")
	})
}

package l402

import (
	"encoding/binary"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
)

// The classes of errors about what a server asks.
const (
	ChallengeUnsupported = "challenge_unsupported" // it asks for payment in another way
	ChallengeInvalid     = "challenge_invalid"     // its challenge cannot be read, or does not hold together
	PriceMissing         = "price_missing"         // its invoice names no amount
	PriceTooHigh         = "price_above_max"       // it asks for more than the caller's maxSats
	InvoiceExpired       = "invoice_expired"       // there is too little time left to pay it
	WrongNetwork         = "invoice_network"       // it is of another network than the wallet
)

// The schemes, by preference.
var schemes = []string{"L402", "LSAT"}

// offer is one way to pay that a server offers.
type offer struct {
	scheme  string
	token   string // the macaroon, as the server wrote it
	text    string // the invoice
	invoice bolt11.Invoice
}

// challenge is one of a WWW-Authenticate header.
type challenge struct {
	scheme string
	params map[string]string // by name in lower case
	odd    bool              // it cannot be read, or says something twice
}

// parseChallenges reads the values of WWW-Authenticate headers: challenges apart by
// commas, each a scheme and parameters apart by commas. Values may be quoted or not.
func parseChallenges(values []string) []challenge {
	var all []challenge
	for _, v := range values {
		s := scanner{text: v}
		for {
			s.skip(" \t,")
			name := s.while(isToken)
			if name == "" {
				break // at the end, or at what is no challenge
			}
			all = append(all, s.challenge(name))
		}
	}
	return all
}

type scanner struct {
	text string
	at   int
}

func (s *scanner) rest() string { return s.text[s.at:] }

func (s *scanner) skip(set string) { s.at = len(s.text) - len(strings.TrimLeft(s.rest(), set)) }

func (s *scanner) while(ok func(byte) bool) string {
	from := s.at
	for s.at < len(s.text) && ok(s.text[s.at]) {
		s.at++
	}
	return s.text[from:s.at]
}

func isToken(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isBare is what an unquoted value may hold: base64 is written bare by some.
func isBare(c byte) bool { return c > ' ' && c < 0x7f && c != ',' && c != '"' }

// challenge reads the parameters that follow a scheme, up to the next scheme.
func (s *scanner) challenge(scheme string) challenge {
	c := challenge{scheme: scheme, params: map[string]string{}}
	for {
		before := s.at
		s.skip(" \t,")
		name := s.while(isToken)
		s.skip(" \t")
		if name == "" || !strings.HasPrefix(s.rest(), "=") {
			if name == "" && s.rest() != "" {
				c.odd, s.at = true, len(s.text)
				return c
			}
			s.at = before // the next scheme begins here
			return c
		}
		s.at++
		s.skip(" \t")
		value, ok := s.value()
		name = strings.ToLower(name)
		if _, twice := c.params[name]; twice || !ok {
			c.odd = true
		}
		c.params[name] = value
		if !ok {
			s.at = len(s.text)
			return c
		}
	}
}

// value reads a quoted or a bare value.
func (s *scanner) value() (string, bool) {
	if !strings.HasPrefix(s.rest(), `"`) {
		v := s.while(isBare)
		return v, v != ""
	}
	var b strings.Builder
	for s.at++; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return b.String(), true
		case c == '\\' && s.at+1 < len(s.text):
			s.at++
			b.WriteByte(s.text[s.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// terms are what an offer must keep to.
type terms struct {
	network bolt11.Network
	maxSats int64
	now     time.Time
}

// choose finds the first offer that can be taken: L402 before LSAT, in the server's
// order. When there is none it says what is wrong with the first.
func choose(h http.Header, t terms) (offer, *tool.Error) {
	all := parseChallenges(h.Values("Www-Authenticate"))
	var first *tool.Error
	for _, scheme := range schemes {
		for _, c := range all {
			if !strings.EqualFold(c.scheme, scheme) {
				continue
			}
			o, bad := c.offer(scheme, t)
			if bad == nil {
				return o, nil
			}
			if first == nil {
				first = bad
			}
		}
	}
	if first == nil {
		first = &tool.Error{Class: ChallengeUnsupported, Message: "the server asks for payment, but not by L402"}
	}
	return offer{}, first
}

var tokenForm = regexp.MustCompile(`^[A-Za-z0-9+/_-]+={0,2}$`)

// leastLeft is how long an invoice must still be good for.
const leastLeft = 5 * time.Second

// offer checks a challenge: what it holds, that macaroon and invoice are for the same
// payment, and what the invoice asks for.
func (c challenge) offer(scheme string, t terms) (offer, *tool.Error) {
	invalid := func(why string) (offer, *tool.Error) {
		return offer{}, &tool.Error{Class: ChallengeInvalid, Message: "the server's challenge cannot be taken: " + why}
	}
	if c.odd {
		return invalid("it cannot be read in one way")
	}
	if v, said := c.params["version"]; said && v != "0" {
		return invalid("it is of a version that is not known")
	}
	o := offer{scheme: scheme, token: c.params["macaroon"], text: c.params["invoice"]}
	if newer, said := c.params["token"]; said {
		if o.token != "" && o.token != newer {
			return invalid("it has two tokens")
		}
		o.token = newer
	}
	committed, why := tokenHash(o.token)
	if why != "" {
		return invalid(why)
	}
	var err error
	if o.invoice, err = bolt11.Decode(o.text); err != nil {
		return invalid(err.Error())
	}
	switch i := o.invoice; {
	case i.PaymentHash != committed:
		return invalid("its macaroon is for another payment than its invoice")
	case i.Network != t.network:
		return offer{}, &tool.Error{Class: WrongNetwork, Message: "the invoice is of " + string(i.Network) + ", the wallet of " + string(t.network)}
	case i.AmountMsat == 0:
		return offer{}, &tool.Error{Class: PriceMissing, Message: "the invoice names no amount"}
	case wallet.Sats(i.AmountMsat) > t.maxSats:
		return offer{}, &tool.Error{
			Class: PriceTooHigh, ReasonCode: "policy_denied.per_call_limit_exceeded",
			Message: "the server asks for " + sats(wallet.Sats(i.AmountMsat)) + ", more than the " + sats(t.maxSats) + " that the call may cost",
		}
	case t.now.Add(leastLeft).After(i.ExpiresAt()):
		return offer{}, &tool.Error{Class: InvoiceExpired, Message: "the invoice has expired, or is about to"}
	}
	return o, nil
}

func sats(n int64) string {
	if n == 1 {
		return "1 sat"
	}
	return strconv.FormatInt(n, 10) + " sats"
}

// tokenHash is the payment hash that a macaroon commits to: its identifier is two
// bytes of version, 0, the hash, and what the server wants besides.
func tokenHash(token string) (hash [32]byte, why string) {
	if !tokenForm.MatchString(token) {
		return hash, "it has no macaroon in base64"
	}
	raw, err := macaroon.Base64Decode([]byte(token))
	if err != nil {
		return hash, "it has no macaroon in base64"
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(raw); err != nil {
		return hash, "its macaroon cannot be read"
	}
	id := m.Id()
	if len(id) < 2+len(hash) || binary.BigEndian.Uint16(id) != 0 {
		return hash, "its macaroon does not say which payment it is for"
	}
	return [32]byte(slices.Clone(id[2 : 2+len(hash)])), ""
}

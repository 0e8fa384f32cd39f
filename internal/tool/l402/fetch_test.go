package l402_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/l402"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/ledger"
)

func TestAPageIsPaidFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out, r, err := w.fetch("c1", map[string]any{"url": w.seller.URL + "/page?n=1"})
	require.NoError(t, err)
	require.Equal(t, "the page ", out["text"])
	require.EqualValues(t, 11, out["paidSats"], "10 sats and half a sat of fee")
	require.EqualValues(t, 1, out["feeSats"])
	require.Equal(t, false, out["reused"])
	require.EqualValues(t, 11, r.PaidSats)

	q := w.purse.quotes[0]
	require.EqualValues(t, 15, q.AmountSats, "10 sats, and 5 for the fee")
	require.True(t, q.Known)
	require.Equal(t, "127.0.0.1", q.Host)
	require.Equal(t, w.ledger.NodeKey(), q.Payee)
	require.Equal(t, q.PaymentHash, out["paymentHash"])
	require.Equal(t, q.PaymentHash, r.CorrelationID)

	var proof struct {
		Hash     string `json:"payment_hash"`
		Preimage string `json:"preimage"`
		Amount   int64  `json:"amount_msat"`
		Fee      int64  `json:"fee_msat"`
	}
	require.NoError(t, json.Unmarshal(r.Proof, &proof))
	require.Equal(t, q.PaymentHash, proof.Hash)
	require.Len(t, proof.Preimage, 64)
	require.Equal(t, []int64{10_000, 500}, []int64{proof.Amount, proof.Fee})
	spent, payments := w.spent()
	require.Equal(t, []int64{10_500, 1}, []int64{spent, int64(payments)})
}

// What a run has paid for at a place is good there, as long as the server takes it,
// and nowhere else.
func TestAPaymentIsUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seller.set(func(s *seller) { s.uses = 2 })
	fetch := func(id, path string) bool {
		out, r, err := w.fetch(id, map[string]any{"url": w.seller.URL + path})
		require.NoError(t, err)
		require.Equal(t, out["reused"] == true, r.PaidSats == 0)
		return out["reused"] == true
	}
	require.False(t, fetch("c1", "/page?n=1"))
	require.True(t, fetch("c2", "/page?n=2"))
	require.False(t, fetch("c3", "/page?n=3"), "it is used up, so another is bought")
	require.False(t, fetch("c4", "/other"), "another path")
	run := w.run
	w.run = uuid.New()
	require.False(t, fetch("c5", "/page"), "another run")
	w.run = run
	require.True(t, fetch("c6", "/page"))
	_, payments := w.spent()
	require.Equal(t, 4, payments)
}

func TestAFreePageCostsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	call := w.call("c1", map[string]any{"url": w.seller.URL + "/free"})
	call.Purse = nil
	out, r, err := w.read(w.tool.Run(t.Context(), call, nil))
	require.NoError(t, err)
	require.Equal(t, "free", out["text"])
	require.True(t, r.Paid)
	require.Zero(t, r.PaidSats)
	require.Nil(t, r.Proof)

	call = w.call("c2", map[string]any{})
	call.Purse = nil
	_, _, err = w.read(w.tool.Run(t.Context(), call, nil))
	require.Equal(t, "policy_denied.authorization_missing", refused(t, err, "policy_denied").ReasonCode)
	_, payments := w.spent()
	require.Zero(t, payments)
}

func TestChallengesAreReadInEverySpelling(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]func(token, invoice string) []string{
		"L402":              nil,
		"names in capitals": func(m, i string) []string { return []string{`l402 Macaroon="` + m + `",Invoice="` + i + `"`} },
		"token": func(m, i string) []string {
			return []string{`L402 version="0", token="` + m + `", invoice="` + i + `"`}
		},
		"token and macaroon": func(m, i string) []string {
			return []string{`L402 macaroon="` + m + `", token="` + m + `", invoice="` + i + `"`}
		},
		"bare": func(m, i string) []string { return []string{`L402 macaroon=` + m + `, invoice=` + i} },
		"spaces": func(m, i string) []string {
			return []string{"  L402  macaroon = \"" + m + "\" ,\tinvoice= \"" + i + `"  `}
		},
		"after others": func(m, i string) []string {
			return []string{`Basic realm="a, b=\"c\"", L402 macaroon="` + m + `", invoice="` + i + `"`}
		},
		"after a token68": func(m, i string) []string {
			return []string{`Negotiate abc==, L402 macaroon="` + m + `", invoice="` + i + `", Bearer`}
		},
		"a header each": func(m, i string) []string {
			return []string{`Bearer realm="x"`, `LSAT macaroon="x", invoice="y"`, `L402 macaroon="` + m + `", invoice="` + i + `"`}
		},
		"an escape": func(m, i string) []string { return []string{`L402 macaroon="` + m + `", invoice="\` + i + `"`} },
		"the second of two": func(m, i string) []string {
			return []string{`L402 macaroon="x", invoice="y", L402 macaroon="` + m + `", invoice="` + i + `"`}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seller.set(func(s *seller) { s.header = header })
			_, r, err := w.fetch("c1", map[string]any{})
			require.NoError(t, err)
			require.EqualValues(t, 11, r.PaidSats)
		})
	}
}

// A server that speaks LSAT is answered so.
func TestTheOlderNameIsSpoken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seller.set(func(s *seller) { s.scheme = "LSAT" })
	_, _, err := w.fetch("c1", map[string]any{})
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(w.seller.seen()[1], "LSAT "))
}

// Nothing is held and nothing is paid for a challenge that does not hold together or
// asks for more than the caller lets the call cost.
func TestBadChallengesAreRefusedBeforeAnythingIsHeld(t *testing.T) {
	t.Parallel()
	with := func(change func(*bolt11.Invoice)) func(*seller) {
		return func(s *seller) {
			s.stored = func() (string, string) { return forged(s.t, change) }
		}
	}
	line := func(f func(m, i string) string) func(*seller) {
		return func(s *seller) { s.header = func(m, i string) []string { return []string{f(m, i)} } }
	}
	for name, c := range map[string]struct {
		class  string
		change func(*seller)
	}{
		"more than announced":   {l402.PriceTooHigh, func(s *seller) { s.msat = 100_001 }},
		"no amount":             {l402.PriceMissing, func(s *seller) { s.msat = 0 }},
		"expired":               {l402.InvoiceExpired, with(func(i *bolt11.Invoice) { i.CreatedAt = time.Now().Add(-2 * time.Hour) })},
		"about to expire":       {l402.InvoiceExpired, func(s *seller) { s.expiry = time.Second }},
		"another network":       {l402.WrongNetwork, with(func(i *bolt11.Invoice) { i.Network = bolt11.Mainnet })},
		"macaroon of another":   {l402.ChallengeInvalid, func(s *seller) { s.another = true }},
		"no L402":               {l402.ChallengeUnsupported, line(func(m, i string) string { return `Basic realm="x"` })},
		"nothing":               {l402.ChallengeUnsupported, line(func(m, i string) string { return "" })},
		"no macaroon":           {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 invoice="` + i + `"` })},
		"no invoice":            {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 macaroon="` + m + `"` })},
		"invoice that is none":  {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 macaroon="` + m + `", invoice="` + i[:len(i)-1] + `"` })},
		"macaroon that is none": {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 macaroon="AGIAJEemVQUTEyNCR0exk7ek90Cg==", invoice="` + i + `"` })},
		"a header in disguise":  {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 macaroon="` + m + ` x", invoice="` + i + `"` })},
		"two macaroons": {l402.ChallengeInvalid, line(func(m, i string) string {
			return `L402 macaroon="` + m + `", macaroon="` + m + `", invoice="` + i + `"`
		})},
		"two tokens":          {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 macaroon="` + m + `", token="x", invoice="` + i + `"` })},
		"a quote without end": {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 macaroon="` + m + `", invoice="` + i })},
		"a newer version":     {l402.ChallengeInvalid, line(func(m, i string) string { return `L402 version="1", macaroon="` + m + `", invoice="` + i + `"` })},
		"identifier of another kind": {l402.ChallengeInvalid, line(func(m, i string) string {
			return `L402 macaroon="` + bake(t, []byte("root"), 1, make([]byte, 32)) + `", invoice="` + i + `"`
		})},
		"identifier that is short": {l402.ChallengeInvalid, func(s *seller) {
			s.header = func(m, i string) []string {
				return []string{`L402 macaroon="` + short(s.t) + `", invoice="` + i + `"`}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.seller.set(c.change)
			_, r, err := w.fetch("c1", map[string]any{})
			e := refused(t, err, c.class)
			require.False(t, e.Unknown)
			require.False(t, r.Paid && r.PaidSats > 0)
			require.Empty(t, w.purse.quotes)
			require.Empty(t, w.ledger.Payments())
			asked, _, _ := w.seller.counts()
			require.Equal(t, 1, asked)
		})
	}
}

// The purse decides about payees and budgets, and its word is the call's end.
func TestWhatThePurseRefusesIsNotPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.purse.payees = []string{strings.Repeat("02", 33)}
	_, _, err := w.fetch("c1", map[string]any{})
	require.Equal(t, "policy_denied.payee_not_allowed", refused(t, err, "policy_denied").ReasonCode)

	w.purse.payees, w.purse.left = nil, 14
	_, _, err = w.fetch("c2", map[string]any{})
	require.Equal(t, "policy_denied.budget_exhausted", refused(t, err, "policy_denied").ReasonCode)
	require.Empty(t, w.ledger.Payments())
}

// A server that offers one invoice twice is paid once.
func TestAnInvoiceThatComesAgainIsNotPaidAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, hash, err := w.ledger.Issue(10_000, "", time.Hour)
	require.NoError(t, err)
	w.seller.set(func(s *seller) { s.stored, s.uses = func() (string, string) { return text, hash }, 1 })
	_, _, err = w.fetch("c1", map[string]any{})
	require.NoError(t, err)
	_, _, err = w.fetch("c2", map[string]any{})
	require.Equal(t, "policy_denied.already_finalized", refused(t, err, "policy_denied").ReasonCode)
	_, payments := w.spent()
	require.Equal(t, 1, payments)
}

func TestFeesCountTowardsTheMost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, r, err := w.fetch("c1", map[string]any{"maxSats": 10})
	e := refused(t, err, string(wallet.NoRoute))
	require.False(t, e.Unknown)
	require.True(t, r.Paid)
	require.Zero(t, r.PaidSats)
	require.EqualValues(t, 10, w.purse.quotes[0].AmountSats)
	_, _, err = w.fetch("c2", map[string]any{"maxSats": 11})
	require.NoError(t, err)
	require.EqualValues(t, 11, w.purse.quotes[1].AmountSats)
}

func TestAPaymentThatFailsIsTheEndOfTheCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ledger.Behave(func(string) ledger.Behaviour { return ledger.FailBeforePaying })
	_, r, err := w.fetch("c1", map[string]any{})
	e := refused(t, err, string(wallet.NoRoute))
	require.Equal(t, "settlement.provider_rejected", e.ReasonCode)
	require.True(t, r.Paid)
	require.Zero(t, r.PaidSats)
	asked, _, _ := w.seller.counts()
	require.Equal(t, 1, asked)
}

// A server that takes the money and gives nothing for it: the call has failed and has
// spent, and says both.
func TestPaidAndNotServed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*seller)
		again  bool // the payment is good for the next call
	}{
		"402 again": {func(s *seller) { s.unpaid = true }, false},
		"401": {func(s *seller) {
			s.serve = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }
		}, false},
		"500": {func(s *seller) {
			s.serve = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
		}, true},
		"silence": {func(s *seller) {
			s.serve = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		}, true},
		"a break": {func(s *seller) {
			s.serve = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *l402.Config) { c.Guard.Timeout = 500 * time.Millisecond })
			w.seller.set(c.change)
			_, r, err := w.fetch("c1", map[string]any{})
			e := refused(t, err, l402.NotServed)
			require.False(t, e.Unknown, "what became of the money is known")
			require.True(t, r.Paid)
			require.EqualValues(t, 11, r.PaidSats)
			require.Contains(t, string(r.Proof), "preimage")
			require.Contains(t, e.Message, "11 sats paid")

			w.seller.set(func(s *seller) { s.serve, s.unpaid = nil, false })
			out, _, err := w.fetch("c2", map[string]any{})
			require.NoError(t, err)
			require.Equal(t, c.again, out["reused"])
			_, payments := w.spent()
			require.Equal(t, map[bool]int{true: 1, false: 2}[c.again], payments)
		})
	}
}

// An answer that cannot be shown was paid for all the same.
func TestAnAnswerThatCannotBeShownWasPaidFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *l402.Config) { c.MaxBinary = 4 })
	w.seller.set(func(s *seller) {
		s.serve = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0, 1, 2, 3, 4, 5, 6, 7}) }
	})
	_, r, err := w.fetch("c1", map[string]any{})
	refused(t, err, "content_unsupported")
	require.True(t, r.Paid)
	require.EqualValues(t, 11, r.PaidSats)
}

// A status is an output, after paying too.
func TestAStatusIsAnOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seller.set(func(s *seller) { s.serve = http.NotFound })
	out, r, err := w.fetch("c1", map[string]any{})
	require.NoError(t, err)
	require.EqualValues(t, 404, out["status"])
	require.EqualValues(t, 11, r.PaidSats)
}

// What was paid for goes to the server that sold it: not to where it redirects to.
func TestACredentialStaysWithItsServer(t *testing.T) {
	t.Parallel()
	var got []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		fmt.Fprint(w, "elsewhere")
	}))
	t.Cleanup(other.Close)
	w := newWorld(t, func(c *l402.Config) { c.Guard.Exceptions = append(c.Guard.Exceptions, other.Listener.Addr().String()) })
	w.seller.set(func(s *seller) {
		s.serve = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/x", http.StatusFound) }
	})
	for _, id := range []string{"c1", "c2"} {
		out, _, err := w.fetch(id, map[string]any{})
		require.NoError(t, err)
		require.Equal(t, "elsewhere", out["text"])
	}
	require.Equal(t, []string{"", ""}, got)
	seen := w.seller.seen()
	require.Len(t, seen, 3)
	require.Equal(t, seen[1], seen[2])
}

// A page that redirects to a seller is bought from the seller, and the payment is the
// seller's: the page that led there does not get it.
func TestAPageThatLeadsToASeller(t *testing.T) {
	t.Parallel()
	var got []string
	var to string
	portal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		http.Redirect(w, r, to, http.StatusFound)
	}))
	t.Cleanup(portal.Close)
	w := newWorld(t, func(c *l402.Config) { c.Guard.Exceptions = append(c.Guard.Exceptions, portal.Listener.Addr().String()) })
	to = w.seller.URL + "/page"
	for _, id := range []string{"c1", "c2"} {
		out, _, err := w.fetch(id, map[string]any{"url": portal.URL + "/go"})
		require.NoError(t, err)
		require.Equal(t, "the page ", out["text"])
		require.Equal(t, to, out["finalUrl"])
	}
	require.Equal(t, []string{"", ""}, got)
	require.Equal(t, "127.0.0.1", w.purse.quotes[0].Host)
}

func TestPostsGoWhereTheyMay(t *testing.T) {
	t.Parallel()
	in := map[string]any{"method": "POST", "body": `{"q":1}`, "contentType": "application/json"}
	w := newWorld(t)
	_, _, err := w.fetch("c1", in)
	require.Equal(t, egress.HostNotAllowed, refused(t, err, egress.HostNotAllowed).ReasonCode)
	asked, _, _ := w.seller.counts()
	require.Zero(t, asked)

	w = newWorld(t, func(c *l402.Config) { c.Post = []string{"*.example.com"} })
	_, _, err = w.fetch("c1", in)
	refused(t, err, egress.HostNotAllowed)

	w = newWorld(t, func(c *l402.Config) { c.Post = []string{"127.0.0.1"} })
	var keys []string
	w.seller.set(func(s *seller) {
		s.serve = func(w http.ResponseWriter, r *http.Request) {
			keys = append(keys, r.Header.Get("Idempotency-Key"))
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("Content-Type"), body)
		}
	})
	in["url"] = nil
	out, r, err := w.fetch("c1", in)
	require.NoError(t, err)
	require.Equal(t, `POST application/json {"q":1}`, out["text"])
	require.EqualValues(t, 11, r.PaidSats)
	require.Equal(t, []string{"key_c1"}, keys)

	// A redirect of a POST is the answer.
	w.seller.set(func(s *seller) {
		s.serve = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/free", http.StatusSeeOther) }
	})
	out, _, err = w.fetch("c2", in)
	require.NoError(t, err)
	require.EqualValues(t, 303, out["status"])
}

// A POST whose first answer is lost may have been carried out for nothing.
func TestALostAnswerOfAPostIsUnknown(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(broken.Close)
	w := newWorld(t, func(c *l402.Config) {
		c.Post, c.Guard.Exceptions = []string{"127.0.0.1"}, append(c.Guard.Exceptions, broken.Listener.Addr().String())
	})
	for method, unknown := range map[string]bool{"POST": true, "GET": false} {
		call := w.call("c_"+method, map[string]any{"url": broken.URL, "method": method})
		_, _, err := w.read(w.tool.Run(t.Context(), call, nil))
		var e *tool.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, unknown, e.Unknown)
		_, known, _ := w.tool.Reconcile(t.Context(), call)
		require.Equal(t, !unknown, known)
	}
}

func TestOnlyPublicHTTPSIsReached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for url, class := range map[string]string{
		"http://example.com/":              egress.InvalidURL,
		"https://10.0.0.1/":                egress.PrivateAddress,
		"https://169.254.169.254/x":        egress.MetadataEndpoint,
		"https://localhost/":               egress.PrivateAddress,
		"https://user:word@example.com/":   egress.InvalidURL,
		"https://127.0.0.1:1/":             egress.HostNotAllowed,
		"ftp://example.com/":               egress.InvalidURL,
		"https://metadata.google.internal": egress.MetadataEndpoint,
	} {
		_, _, err := w.fetch("c1", map[string]any{"url": url})
		refused(t, err, class)
	}
	call := w.call("c2", map[string]any{})
	for _, in := range []string{`{`, `{"url":"` + w.seller.URL + `","maxSats":1,"method":"PUT"}`, `{"url":"` + w.seller.URL + `","maxSats":1,"body":"x"}`,
		`{"url":"` + w.seller.URL + `","maxSats":1,"headers":{"authorization":"L402 x:y"}}`} {
		call.Input = json.RawMessage(in)
		_, err := w.tool.Run(t.Context(), call, nil)
		refused(t, err, "tool_input_invalid")
	}
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for why, change := range map[string]func(*l402.Config){
		"wallet": func(c *l402.Config) { c.Wallet = nil },
		"limit":  func(c *l402.Config) { c.MaxText = -1 },
		"fees":   func(c *l402.Config) { c.FeePPM = 1_000_001 },
		"host":   func(c *l402.Config) { c.Post = []string{"https://x"} },
		"egress": func(c *l402.Config) { c.Guard.Timeout = -1 },
	} {
		c := w.config
		change(&c)
		_, err := l402.New(c)
		require.ErrorContains(t, err, why)
	}
}

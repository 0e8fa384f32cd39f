package wallet_test

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/ledger"
)

const macaroon = "0201036c6e6402f801030a10b493608461fb6e64810053fa31ef27991201301a0c"

func secrets(t testing.TB, value string) *secret.Store {
	t.Helper()
	s, err := secret.New(secret.Config{Static: map[string]string{"lnd": value}})
	require.NoError(t, err)
	return s
}

// node is a ledger behind TLS with a certificate of its own, and a wallet that
// takes no other.
func node(t testing.TB, c ledger.Config) (*ledger.Ledger, *wallet.LND) {
	t.Helper()
	if c.Path == "" {
		c.Path = filepath.Join(t.TempDir(), "ledger")
	}
	c.Macaroon = macaroon
	l, err := ledger.Open(c)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	s := httptest.NewTLSServer(l.Handler())
	t.Cleanup(s.Close)
	return l, client(t, s, macaroon)
}

func client(t testing.TB, s *httptest.Server, key string) *wallet.LND {
	t.Helper()
	c := wallet.LNDConfig{URL: s.URL, Secrets: secrets(t, key), Network: bolt11.Regtest, Patience: 5 * time.Second}
	if s.TLS != nil {
		c.Certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	}
	w, err := wallet.NewLND(c)
	require.NoError(t, err)
	return w
}

// payment is one of so many millisats, with the money held for it.
func payment(t testing.TB, l *ledger.Ledger, msat, maxFee int64) wallet.Payment {
	t.Helper()
	text, hash, err := l.Issue(msat, "test", time.Hour)
	require.NoError(t, err)
	return held(t, text, hash, msat, maxFee)
}

func held(t testing.TB, text, hash string, msat, maxFee int64) wallet.Payment {
	t.Helper()
	raw, err := hex.DecodeString(hash)
	require.NoError(t, err)
	return wallet.Payment{
		Hold:    tool.HoldByExecutor(tool.Quote{AmountSats: wallet.Sats(msat + maxFee), Known: true, PaymentHash: hash}, "auth_1", false),
		Invoice: text, PaymentHash: [32]byte(raw), AmountMsat: msat, MaxFeeMsat: maxFee, Timeout: 5 * time.Second,
	}
}

func class(t testing.TB, err error) *wallet.Error {
	t.Helper()
	var e *wallet.Error
	require.ErrorAs(t, err, &e)
	return e
}

func TestAnInvoiceIsPaidOnce(t *testing.T) {
	t.Parallel()
	l, w := node(t, ledger.Config{FeeMsat: 1500})
	p := payment(t, l, 21_001, 2_000)

	state, _, err := w.Lookup(t.Context(), p.PaymentHash)
	require.NoError(t, err)
	require.Equal(t, wallet.Unknown, state)

	paid, err := w.Pay(t.Context(), p)
	require.NoError(t, err)
	require.True(t, paid.Preimage.Proves(p.PaymentHash))
	require.Equal(t, int64(21_001), paid.AmountMsat)
	require.Equal(t, int64(1_500), paid.FeeMsat)
	require.Equal(t, int64(23), paid.Sats(), "22.501 sats are 23")

	again, err := w.Pay(t.Context(), p)
	require.NoError(t, err)
	require.Equal(t, paid, again)
	state, found, err := w.Lookup(t.Context(), p.PaymentHash)
	require.NoError(t, err)
	require.Equal(t, wallet.Settled, state)
	require.Equal(t, paid, found)

	balance, err := w.Balance(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(1_000_000_000-22_501), balance)
}

func TestManyWhoPayTheSameInvoicePayItOnce(t *testing.T) {
	t.Parallel()
	l, w := node(t, ledger.Config{})
	p := payment(t, l, 10_000, 0)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			paid, err := w.Pay(t.Context(), p)
			require.NoError(t, err)
			require.Equal(t, int64(10_000), paid.AmountMsat)
		})
	}
	all.Wait()
	require.Equal(t, int64(1_000_000_000-10_000), l.BalanceMsat())
}

// Nothing is paid with money that is held for something else, or not at all.
func TestOnlyWhatIsHeldIsPaid(t *testing.T) {
	t.Parallel()
	l, w := node(t, ledger.Config{})
	other := payment(t, l, 10_000, 1_000)
	for name, c := range map[string]struct {
		class  wallet.Class
		change func(*wallet.Payment)
	}{
		"no hold":                  {wallet.NotHeld, func(p *wallet.Payment) { p.Hold = tool.Hold{} }},
		"a hold for another":       {wallet.NotHeld, func(p *wallet.Payment) { p.Hold = other.Hold }},
		"a hold without the fee":   {wallet.NotHeld, func(p *wallet.Payment) { p.MaxFeeMsat = 2_001 }},
		"an amount below zero":     {wallet.NotHeld, func(p *wallet.Payment) { p.AmountMsat = -1 }},
		"another invoice":          {wallet.NotPayable, func(p *wallet.Payment) { p.Invoice = other.Invoice }},
		"a smaller amount is said": {wallet.NotPayable, func(p *wallet.Payment) { p.AmountMsat = 9_000 }},
		"no invoice":               {wallet.NotPayable, func(p *wallet.Payment) { p.Invoice = "lnbcrt1" }},
	} {
		t.Run(name, func(t *testing.T) {
			p := payment(t, l, 10_000, 1_000)
			c.change(&p)
			_, err := w.Pay(t.Context(), p)
			require.Equal(t, c.class, class(t, err).Class)
			require.False(t, class(t, err).Unknown)
		})
	}
	require.Empty(t, l.Payments())
}

func TestAPaymentThatFailsIsKnownToHaveFailed(t *testing.T) {
	t.Parallel()
	l, w := node(t, ledger.Config{BalanceSats: 100, FeeMsat: 2_000})
	for name, c := range map[string]struct {
		p     wallet.Payment
		class wallet.Class
		how   ledger.Behaviour
	}{
		"no route":     {payment(t, l, 10_000, 2_000), wallet.NoRoute, ledger.FailBeforePaying},
		"fee too high": {payment(t, l, 10_000, 1_999), wallet.NoRoute, ledger.Ordinary},
		"too little":   {payment(t, l, 99_000, 2_000), wallet.NoBalance, ledger.Ordinary},
		"expired":      {expired(t, l), wallet.Declined, ledger.Ordinary},
	} {
		t.Run(name, func(t *testing.T) {
			l.Behave(func(string) ledger.Behaviour { return c.how })
			_, err := w.Pay(t.Context(), c.p)
			require.Equal(t, c.class, class(t, err).Class)
			require.False(t, class(t, err).Unknown)
		})
	}
	require.Equal(t, int64(100_000), l.BalanceMsat())
}

func expired(t *testing.T, l *ledger.Ledger) wallet.Payment {
	t.Helper()
	text, hash, err := l.Issue(10_000, "", time.Nanosecond)
	require.NoError(t, err)
	return held(t, text, hash, 10_000, 2_000)
}

// A wallet that pays and never says so has paid: asking tells, and asking it to pay
// again does not pay again.
func TestAPaymentWhoseAnswerIsLostIsUnknownUntilAsked(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]ledger.Behaviour{"silent": ledger.SilentAfterPaying, "broken": ledger.BreakAfterPaying} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, w := node(t, ledger.Config{})
			p := payment(t, l, 10_000, 0)
			l.Behave(func(string) ledger.Behaviour { return how })
			within, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer stop()
			_, err := w.Pay(within, p)
			require.Equal(t, wallet.OutcomeOpen, class(t, err).Class)
			require.True(t, class(t, err).Unknown)

			state, paid, err := w.Lookup(t.Context(), p.PaymentHash)
			require.NoError(t, err)
			require.Equal(t, wallet.Settled, state)
			require.True(t, paid.Preimage.Proves(p.PaymentHash))
			again, err := w.Pay(t.Context(), p)
			require.NoError(t, err)
			require.Equal(t, paid, again)
			require.Equal(t, int64(1_000_000_000-10_000), l.BalanceMsat())
			require.Equal(t, 2, l.Payments()[hex.EncodeToString(p.PaymentHash[:])].Requests)
		})
	}
}

func TestABreakBeforePayingIsUnknownToo(t *testing.T) {
	t.Parallel()
	l, w := node(t, ledger.Config{})
	p := payment(t, l, 10_000, 0)
	l.Behave(func(string) ledger.Behaviour { return ledger.BreakBeforePaying })
	_, err := w.Pay(t.Context(), p)
	require.True(t, class(t, err).Unknown, "nobody can tell it from a break after paying")
	state, _, err := w.Lookup(t.Context(), p.PaymentHash)
	require.NoError(t, err)
	require.Equal(t, wallet.Unknown, state)
}

func TestAPaymentOnItsWayIsWaitedFor(t *testing.T) {
	t.Parallel()
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprint(arrives), func(t *testing.T) {
			t.Parallel()
			l, w := node(t, ledger.Config{})
			p := payment(t, l, 10_000, 0)
			hash := hex.EncodeToString(p.PaymentHash[:])
			l.Behave(func(string) ledger.Behaviour { return ledger.StayInFlight })
			ended := make(chan error, 1)
			go func() {
				_, err := w.Pay(t.Context(), p)
				ended <- err
			}()
			require.Eventually(t, func() bool { return l.Payments()[hash].Status == ledger.InFlight }, 5*time.Second, time.Millisecond)
			state, _, err := w.Lookup(t.Context(), p.PaymentHash)
			require.NoError(t, err)
			require.Equal(t, wallet.Pending, state)
			_, err = w.Pay(t.Context(), p)
			require.True(t, class(t, err).Unknown, "a second payer learns that it is on its way")

			require.NoError(t, l.Resolve(hash, arrives))
			err = <-ended
			state, _, lookErr := w.Lookup(t.Context(), p.PaymentHash)
			require.NoError(t, lookErr)
			if arrives {
				require.NoError(t, err)
				require.Equal(t, wallet.Settled, state)
				return
			}
			require.Equal(t, wallet.Declined, class(t, err).Class)
			require.Equal(t, wallet.Failed, state)
			require.Equal(t, int64(1_000_000_000), l.BalanceMsat(), "the money is back")
		})
	}
}

// A process that is killed leaves a ledger that can be asked.
func TestALedgerOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	l, w := node(t, ledger.Config{Path: path, BalanceSats: 50})
	p := payment(t, l, 10_000, 0)
	paid, err := w.Pay(t.Context(), p)
	require.NoError(t, err)
	key := l.NodeKey()
	require.NoError(t, l.Close())

	l, w = node(t, ledger.Config{Path: path, BalanceSats: 70})
	require.Equal(t, key, l.NodeKey())
	require.Equal(t, int64(40_000), l.BalanceMsat())
	_, found, err := w.Lookup(t.Context(), p.PaymentHash)
	require.NoError(t, err)
	require.Equal(t, paid, found)
}

func TestOnlyTheNodesOwnCertificateIsTaken(t *testing.T) {
	t.Parallel()
	l, _ := node(t, ledger.Config{})
	p := payment(t, l, 10_000, 0)
	impostor := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("it was asked") }))
	t.Cleanup(impostor.Close)
	// httptest's servers all have one certificate, so the pin is of another node.
	other := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t)})
	for _, pin := range [][]byte{other, nil} {
		w, err := wallet.NewLND(wallet.LNDConfig{URL: impostor.URL, Certificate: pin, Secrets: secrets(t, macaroon), Network: bolt11.Regtest})
		require.NoError(t, err)
		_, err = w.Pay(t.Context(), p)
		var e *wallet.Error
		require.ErrorAs(t, err, &e)
		require.Contains(t, e.Err.Error(), "certificate")
		require.Equal(t, wallet.Unavailable, e.Class, "no request is sent to a stranger")
	}
}

func TestANodeThatDoesNotLetUsInHasPaidNothing(t *testing.T) {
	t.Parallel()
	l, _ := node(t, ledger.Config{})
	p := payment(t, l, 10_000, 0)
	s := httptest.NewServer(l.Handler())
	t.Cleanup(s.Close)
	w := client(t, s, "another_macaroon")
	_, err := w.Pay(t.Context(), p)
	require.Equal(t, wallet.Unavailable, class(t, err).Class)
	require.False(t, class(t, err).Unknown)
	_, _, err = w.Lookup(t.Context(), p.PaymentHash)
	require.Equal(t, wallet.Unavailable, class(t, err).Class)

	s.Close()
	_, err = w.Pay(t.Context(), p)
	require.Equal(t, wallet.Unavailable, class(t, err).Class)
	require.False(t, class(t, err).Unknown)
	_, err = w.Balance(t.Context())
	require.Equal(t, wallet.Unavailable, class(t, err).Class)
}

// What a node says is believed only as far as it can be checked.
func TestOddAnswersOfANode(t *testing.T) {
	t.Parallel()
	l, _ := node(t, ledger.Config{})
	p := payment(t, l, 10_000, 0)
	zeros := strings.Repeat("00", 32)
	for name, c := range map[string]struct {
		status  int
		body    string
		class   wallet.Class
		unknown bool
	}{
		"a preimage that proves nothing": {200, `{"result":{"status":"SUCCEEDED","payment_preimage":"` + zeros + `","value_msat":"10000"}}`, wallet.WrongReceipt, true},
		"no preimage":                    {200, `{"result":{"status":"SUCCEEDED"}}`, wallet.WrongReceipt, true},
		"a state that is new":            {200, `{"result":{"status":"PONDERING"}}`, wallet.OutcomeOpen, true},
		"an empty answer":                {200, ``, wallet.OutcomeOpen, true},
		"a stream that ends in between":  {200, `{"result":{"status":"IN_FLIGHT"}}`, wallet.OutcomeOpen, true},
		"no JSON":                        {200, `<html>`, wallet.OutcomeOpen, true},
		"a proxy that broke":             {502, `<html>`, wallet.OutcomeOpen, true},
		"nothing inside":                 {200, `{}`, wallet.OutcomeOpen, true},
		"another service":                {404, `404 page not found`, wallet.Unavailable, false},
		"no permission":                  {403, `{"code":7,"message":"permission denied"}`, wallet.Unavailable, false},
		"a locked wallet":                {500, `{"code":2,"message":"wallet locked, unlock it to enable full RPC access"}`, wallet.Unavailable, false},
		"an error, and no record":        {500, `{"error":{"grpc_code":5,"message":"payment isn't initiated"}}`, wallet.Declined, false},
		"an error that says nothing":     {500, `{"error":{"code":2,"message":"server is shutting down"}}`, wallet.OutcomeOpen, true},
		"payee that does not take it":    {200, `{"result":{"status":"FAILED","failure_reason":"FAILURE_REASON_INCORRECT_PAYMENT_DETAILS"}}`, wallet.Declined, false},
		"no way in time":                 {200, `{"result":{"status":"IN_FLIGHT"}}` + "\n" + `{"result":{"status":"FAILED","failure_reason":"FAILURE_REASON_TIMEOUT"}}`, wallet.TookTooLong, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(c.status)
				fmt.Fprintln(w, c.body)
			}))
			t.Cleanup(s.Close)
			_, err := client(t, s, macaroon).Pay(t.Context(), p)
			require.Equal(t, c.class, class(t, err).Class, "%v", err)
			require.Equal(t, c.unknown, class(t, err).Unknown)
			require.NotContains(t, err.Error(), macaroon)
		})
	}
}

func TestWhatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	store := secrets(t, macaroon)
	for name, c := range map[string]wallet.LNDConfig{
		"https":    {URL: "http://10.0.0.1:8080", Secrets: store},
		"address":  {URL: "https://user@node:8080", Secrets: store},
		"PEM":      {URL: "https://node:8080", Secrets: store, Certificate: []byte("x")},
		"macaroon": {URL: "https://node:8080"},
		"patience": {URL: "https://node:8080", Secrets: store, Patience: -1},
	} {
		_, err := wallet.NewLND(c)
		require.ErrorContains(t, err, name)
	}
}

func TestAPreimageIsNotPrinted(t *testing.T) {
	t.Parallel()
	paid := wallet.Paid{Preimage: wallet.Preimage{1, 2, 3}}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("paid", "paid", paid, "preimage", paid.Preimage)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&log, verb+verb, paid, paid.Preimage)
	}
	require.NotContains(t, log.String(), "010203")
	require.NotContains(t, log.String(), "1, 2, 3")
	require.NotContains(t, log.String(), "1 2 3")
	require.Contains(t, log.String(), "[preimage]")
}

func TestSatsAreRoundedUp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		msat := rapid.Int64Range(0, 1<<62).Draw(t, "msat")
		s := wallet.Sats(msat)
		if s*1000 < msat || (s-1)*1000 >= msat && msat > 0 {
			t.Fatalf("%d msat are not %d sats", msat, s)
		}
	})
}

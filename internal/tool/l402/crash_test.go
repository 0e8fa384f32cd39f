package l402_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/macaroon.v2"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/l402"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/ledger"
)

func short(t testing.TB) string {
	t.Helper()
	m, err := macaroon.New([]byte("root"), []byte("short"), "", macaroon.LatestVersion)
	require.NoError(t, err)
	raw, err := m.MarshalBinary()
	require.NoError(t, err)
	return base64.StdEncoding.EncodeToString(raw)
}

// crashed makes a call up to the moment when its money is held, and forgets all that
// the process had in memory.
func crashed(t *testing.T, w *world, id string, in map[string]any) tool.Call {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w.purse.before = stop
	_, err := w.tool.Run(ctx, w.call(id, in), nil)
	require.Error(t, err)
	w.purse.before = nil
	w.restart()
	require.Empty(t, w.ledger.Payments())
	return w.call(id, in)
}

// Held and not paid: the next attempt pays what is held, not what the server would ask
// for now.
func TestACrashBetweenHoldingAndPaying(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	call := crashed(t, w, "c1", map[string]any{})
	_, known, err := w.tool.Reconcile(t.Context(), call)
	require.NoError(t, err)
	require.False(t, known, "the wallet may still hear of it")

	w.seller.set(func(s *seller) { s.msat = 99_000 })
	out, r, err := w.read(w.tool.Run(t.Context(), call, nil))
	require.NoError(t, err)
	require.Equal(t, "the page ", out["text"])
	require.EqualValues(t, 11, r.PaidSats)
	require.Len(t, w.purse.quotes, 1)
	_, payments := w.spent()
	require.Equal(t, 1, payments)
}

// Held, never paid, and the invoice is past: the money comes back, but not before
// nobody can pay any more.
func TestAHoldWhoseInvoiceHasExpired(t *testing.T) {
	t.Parallel()
	var late time.Duration
	w := newWorld(t, func(c *l402.Config) { c.Now = func() time.Time { return time.Now().Add(late) } })
	call := crashed(t, w, "c1", map[string]any{})
	h, held, bad := call.Purse.Held(t.Context())
	require.Nil(t, bad)
	require.True(t, held)

	late = time.Hour + time.Minute
	_, _, err := w.read(w.tool.Run(t.Context(), call, nil))
	require.True(t, refused(t, err, string(wallet.OutcomeOpen)).Unknown)
	_, known, err := w.tool.Reconcile(t.Context(), call)
	require.NoError(t, err)
	require.False(t, known)
	_, known, err = w.tool.Probe(t.Context(), h)
	require.NoError(t, err)
	require.False(t, known)

	late = time.Hour + 3*time.Minute
	r, known, err := w.tool.Reconcile(t.Context(), call)
	refused(t, err, l402.NotPaid)
	require.True(t, known && r.Paid && r.PaidSats == 0)
	r, known, err = w.tool.Probe(t.Context(), h)
	require.NoError(t, err)
	require.True(t, known && r.Paid && r.PaidSats == 0)
	r, err = w.tool.Run(t.Context(), call, nil)
	require.False(t, refused(t, err, l402.InvoiceExpired).Unknown)
	require.True(t, r.Paid)
	require.Empty(t, w.ledger.Payments())
}

// Paid, and the answer of the wallet is lost: one payment, found by asking, and the
// page is served for it.
func TestAWalletThatIsSilentAfterPayingIsAsked(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]ledger.Behaviour{"silent": ledger.SilentAfterPaying, "broken": ledger.BreakAfterPaying} {
		for _, next := range []string{"run", "reconcile", "probe"} {
			t.Run(name+" "+next, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.ledger.Behave(func(string) ledger.Behaviour { return how })
				ctx, stop := context.WithTimeout(t.Context(), time.Second)
				defer stop()
				call := w.call("c1", map[string]any{})
				r, err := w.tool.Run(ctx, call, nil)
				e := refused(t, err, string(wallet.OutcomeOpen))
				require.True(t, e.Unknown)
				require.False(t, r.Paid)
				require.Equal(t, "settlement.unknown_outcome", e.ReasonCode)

				w.restart()
				if next == "probe" {
					h, _, _ := call.Purse.Held(t.Context())
					r, known, err := w.tool.Probe(t.Context(), h)
					require.NoError(t, err)
					require.True(t, known && r.Paid)
					require.EqualValues(t, 11, r.PaidSats)
					require.Contains(t, string(r.Proof), "preimage")
					_, _, served := w.seller.counts()
					require.Zero(t, served, "a probe asks about money alone")
					return
				}
				var out map[string]any
				if next == "run" {
					out, r, err = w.read(w.tool.Run(t.Context(), call, nil))
				} else {
					var known bool
					r, known, err = w.tool.Reconcile(t.Context(), call)
					require.True(t, known)
					out, r, err = w.read(r, err)
				}
				require.NoError(t, err)
				require.Equal(t, "the page ", out["text"])
				require.EqualValues(t, 11, r.PaidSats)
				_, payments := w.spent()
				require.Equal(t, 1, payments)
				require.Equal(t, 1, w.ledger.Payments()[r.CorrelationID].Requests, "it is asked about, not asked for again")
				asked, challenged, served := w.seller.counts()
				require.Equal(t, []int{2, 1, 1}, []int{asked, challenged, served})
			})
		}
	}
}

// forgetful is a purse that learns what is held only when it is asked to hold.
type forgetful struct{ tool.Purse }

func (forgetful) Held(context.Context) (tool.Hold, bool, *tool.Error) { return tool.Hold{}, false, nil }

// A hold that is a replay may have been spent.
func TestAReplayedHoldIsLookedUpFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, hash, err := w.ledger.Issue(10_000, "", time.Hour)
	require.NoError(t, err)
	w.seller.set(func(s *seller) { s.stored = func() (string, string) { return text, hash } })
	w.ledger.Behave(func(string) ledger.Behaviour { return ledger.BreakAfterPaying })
	call := w.call("c1", map[string]any{})
	_, err = w.tool.Run(t.Context(), call, nil)
	require.True(t, refused(t, err, string(wallet.OutcomeOpen)).Unknown)
	call.Purse = forgetful{call.Purse}
	_, r, err := w.read(w.tool.Run(t.Context(), call, nil))
	require.NoError(t, err)
	require.EqualValues(t, 11, r.PaidSats)
	require.Equal(t, 1, w.ledger.Payments()[hash].Requests)
}

// The runner asks by itself, within the same call.
func TestTheRunnerFindsALostPayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ledger.Behave(func(string) ledger.Behaviour { return ledger.BreakAfterPaying })
	catalog, err := tool.NewCatalog(w.tool)
	require.NoError(t, err)
	o := tool.NewRunner(tool.Config{}, catalog, telemetry.NewMetrics()).Do(t.Context(), w.call("c1", map[string]any{}), w.tool.Spec(), func(json.RawMessage) error { return nil })
	require.Equal(t, tool.Succeeded, o.State, "%v", o.Err)
	require.Contains(t, string(o.Output), "the page")
	require.True(t, o.Paid)
	require.EqualValues(t, 11, o.PaidSats)
	require.Contains(t, string(o.Proof), "preimage")
	_, payments := w.spent()
	require.Equal(t, 1, payments)
}

// A call that was paid for and not served has failed, and its outcome says what it cost.
func TestAFailedOutcomeSaysWhatItCost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seller.set(func(s *seller) { s.unpaid = true })
	catalog, err := tool.NewCatalog(w.tool)
	require.NoError(t, err)
	o := tool.NewRunner(tool.Config{}, catalog, telemetry.NewMetrics()).Do(t.Context(), w.call("c1", map[string]any{}), w.tool.Spec(), func(json.RawMessage) error { return nil })
	require.Equal(t, tool.Failed, o.State)
	require.Equal(t, l402.NotServed, o.Err.Class)
	require.True(t, o.Paid)
	require.EqualValues(t, 11, o.PaidSats)
	require.Equal(t, w.purse.quotes[0].PaymentHash, o.CorrelationID)
}

// On its way: nobody pays again, and nobody says that it failed.
func TestAPaymentOnItsWay(t *testing.T) {
	t.Parallel()
	for _, arrives := range []bool{true, false} {
		t.Run(fmt.Sprint(arrives), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.ledger.Behave(func(string) ledger.Behaviour { return ledger.StayInFlight })
			ctx, stop := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer stop()
			call := w.call("c1", map[string]any{})
			_, err := w.tool.Run(ctx, call, nil)
			require.True(t, refused(t, err, string(wallet.OutcomeOpen)).Unknown)
			_, known, err := w.tool.Reconcile(t.Context(), call)
			require.NoError(t, err)
			require.False(t, known)
			_, err = w.tool.Run(t.Context(), call, nil)
			require.True(t, refused(t, err, string(wallet.OutcomeOpen)).Unknown)

			require.NoError(t, w.ledger.Resolve(w.purse.quotes[0].PaymentHash, arrives))
			r, known, err := w.tool.Reconcile(t.Context(), call)
			require.True(t, known)
			require.True(t, r.Paid)
			if arrives {
				require.NoError(t, err)
				require.EqualValues(t, 11, r.PaidSats)
				return
			}
			refused(t, err, l402.NotPaid)
			require.Zero(t, r.PaidSats)
		})
	}
}

// A wallet that cannot be asked decides nothing.
func TestAWalletThatIsAwayDecidesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	call := crashed(t, w, "c1", map[string]any{})
	w.node.Close()
	_, known, err := w.tool.Reconcile(t.Context(), call)
	require.True(t, refused(t, err, string(wallet.Unavailable)).Unknown)
	require.False(t, known)
	_, err = w.tool.Run(t.Context(), call, nil)
	require.True(t, refused(t, err, string(wallet.Unavailable)).Unknown, "it may have been paid before")

	_, err = w.tool.Run(t.Context(), w.call("c2", map[string]any{}), nil)
	require.False(t, refused(t, err, string(wallet.Unavailable)).Unknown, "this one was not: the wallet was never reached")
}

// A POST that was paid for and broke off is not sent again: it may have been done.
func TestAPostIsNotSentAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *l402.Config) { c.Post = []string{"127.0.0.1"} })
	w.ledger.Behave(func(string) ledger.Behaviour { return ledger.BreakAfterPaying })
	call := w.call("c1", map[string]any{"method": "POST", "body": "x"})
	_, err := w.tool.Run(t.Context(), call, nil)
	require.True(t, refused(t, err, string(wallet.OutcomeOpen)).Unknown)
	w.restart()
	r, known, err := w.tool.Reconcile(t.Context(), call)
	refused(t, err, l402.NotServed)
	require.True(t, known && r.Paid)
	require.EqualValues(t, 11, r.PaidSats)
	asked, _, served := w.seller.counts()
	require.Equal(t, []int{1, 0}, []int{asked, served})

	w.ledger.Behave(func(string) ledger.Behaviour { return ledger.Ordinary })
	out, _, err := w.fetch("c2", map[string]any{"method": "POST", "body": "x"})
	require.NoError(t, err)
	require.Equal(t, true, out["reused"])
}

// A hold that is not of this tool is not spent.
func TestAHoldOfSomethingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, q := range []tool.Quote{
		{AmountSats: 1000, PaymentHash: "x"},
		{AmountSats: 1000, PaymentHash: strings.Repeat("00", 32), Detail: json.RawMessage(`[]`)},
	} {
		w.purse.of["c1"] = tool.HoldByExecutor(q, "auth_1", false)
		_, err := w.tool.Run(t.Context(), w.call("c1", map[string]any{}), nil)
		require.True(t, refused(t, err, l402.HoldInvalid).Unknown)
	}
	require.Empty(t, w.ledger.Payments())
}

// liar is a wallet that says it has paid.
type liar struct{ state wallet.State }

func (l liar) Pay(context.Context, wallet.Payment) (wallet.Paid, error) {
	return wallet.Paid{AmountMsat: 10_000}, nil
}

func (l liar) Lookup(context.Context, [32]byte) (wallet.State, wallet.Paid, error) {
	return l.state, wallet.Paid{AmountMsat: 10_000}, nil
}
func (liar) Balance(context.Context) (int64, error) { return 0, nil }
func (liar) Network() bolt11.Network                { return bolt11.Regtest }

func TestAProofIsChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *l402.Config) { c.Wallet = liar{wallet.Settled} })
	call := w.call("c1", map[string]any{})
	for range 2 { // paid, and then found
		_, err := w.tool.Run(t.Context(), call, nil)
		require.True(t, refused(t, err, string(wallet.WrongReceipt)).Unknown)
	}
	asked, _, _ := w.seller.counts()
	require.Equal(t, 1, asked, "nothing that proves nothing goes to a server")
}

// What was paid for is shown to nobody but the server that sold it: not in outputs, not
// in errors, not in the log, however the server repeats it.
func TestCredentialsAreShownNowhere(t *testing.T) {
	// slog's default is the process's, so nothing runs beside this test.
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	t.Cleanup(func() { slog.SetDefault(before) })

	var auth string
	echo := map[string]func(w http.ResponseWriter, r *http.Request){
		"as it is": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "you sent "+auth) },
		"in JSON": func(w http.ResponseWriter, r *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"h": r.Header})
		},
		"in HTML": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<title>%s</title><p>%s<a href='/x?%s'>y</a>", auth, auth, auth)
		},
		"in base64": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, base64.StdEncoding.EncodeToString([]byte("x"+auth)), base64.URLEncoding.EncodeToString([]byte(auth)))
		},
		"in hex": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, hex.EncodeToString([]byte(auth))) },
		"binary": func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(append([]byte{0, 1, 2}, auth...)) },
		"in headers": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Etag", `"`+auth+`"`)
			w.Header().Set("Content-Language", auth)
			fmt.Fprint(w, "x")
		},
		"preimage alone": func(w http.ResponseWriter, r *http.Request) {
			_, p, _ := strings.Cut(auth, ":")
			raw, _ := hex.DecodeString(p)
			fmt.Fprintln(w, p, strings.ToUpper(p), base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw))
		},
		"at the cut": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.Repeat("x", 3990)+auth) },
		"at the end of what is read": func(w http.ResponseWriter, r *http.Request) {
			// What is read ends in the middle of the preimage.
			_, preimage, _ := strings.Cut(auth, ":")
			fmt.Fprint(w, strings.Repeat("y ", 4096)[:8192-40]+preimage+strings.Repeat("z", 10_000))
		},
	}
	for name, serve := range echo {
		t.Run(name, func(t *testing.T) {
			text := 4096
			if name == "at the end of what is read" {
				text = 16384
			}
			w := newWorld(t, func(c *l402.Config) { c.MaxText, c.Guard.MaxBytes = text, 8192 })
			w.seller.set(func(s *seller) {
				s.serve = func(rw http.ResponseWriter, r *http.Request) {
					auth = r.Header.Get("Authorization")
					serve(rw, r)
				}
			})
			for _, id := range []string{"c1", "c2"} {
				_, r, err := w.fetch(id, map[string]any{})
				require.NoError(t, err)
				hidden(t, auth, string(r.Output))
			}
		})
	}
	w := newWorld(t)
	w.seller.set(func(s *seller) {
		s.serve = func(rw http.ResponseWriter, r *http.Request) {
			auth = r.Header.Get("Authorization")
			rw.WriteHeader(http.StatusPaymentRequired)
			fmt.Fprint(rw, auth)
		}
	})
	_, r, err := w.fetch("c1", map[string]any{})
	refused(t, err, l402.NotServed)
	hidden(t, auth, err.Error()+r.CorrelationID)
	hidden(t, auth, log.String())
}

// hidden says that a text holds no piece of a credential that would be of use.
func hidden(t *testing.T, auth, text string) {
	t.Helper()
	_, rest, _ := strings.Cut(auth, " ")
	token, preimage, ok := strings.Cut(rest, ":")
	require.True(t, ok)
	raw, err := hex.DecodeString(preimage)
	require.NoError(t, err)
	for _, whole := range []string{
		token, preimage, strings.ToUpper(preimage), base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		hex.EncodeToString([]byte(preimage)), hex.EncodeToString([]byte(token)),
	} {
		for at := 0; at+24 <= len(whole); at += 4 {
			require.NotContains(t, text, whole[at:at+24])
		}
	}
	for shift := range 3 {
		enc := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), preimage...))
		require.NotContains(t, text, enc[4:len(enc)-4])
	}
}

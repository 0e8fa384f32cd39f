package l402_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"gopkg.in/macaroon.v2"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/l402"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/ledger"
)

// seller is a server that sells pages by L402: it bakes a macaroon for an invoice's
// payment hash, and serves who brings it with the preimage.
type seller struct {
	*httptest.Server
	t      testing.TB
	ledger *ledger.Ledger
	root   []byte

	mu sync.Mutex
	// What it does; the zero values are those of an honest server.
	msat    int64
	scheme  string // L402 when empty
	expiry  time.Duration
	header  func(token, invoice string) []string // the challenge; nil for the usual one
	serve   func(w http.ResponseWriter, r *http.Request)
	uses    int  // how often a payment is good for; 0 is always
	unpaid  bool // 402 whatever was paid
	another bool // the macaroon is of another payment
	stored  func() (invoice, hash string)

	asked, challenged, served int
	used                      map[string]int
	authorizations            []string
}

func newSeller(t testing.TB, l *ledger.Ledger) *seller {
	s := &seller{t: t, ledger: l, root: []byte("root key of the seller"), msat: 10_000, expiry: time.Hour, used: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.handle))
	t.Cleanup(s.Close)
	return s
}

func (s *seller) set(f func(*seller)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *seller) counts() (asked, challenged, served int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.challenged, s.served
}

func (s *seller) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.authorizations...)
}

func (s *seller) handle(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/free" {
		fmt.Fprint(w, "free")
		return
	}
	s.mu.Lock()
	s.asked++
	auth := r.Header.Get("Authorization")
	s.authorizations = append(s.authorizations, auth)
	if s.good(auth) && !s.unpaid {
		s.served++
		serve := s.serve
		s.mu.Unlock()
		if serve != nil {
			serve(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "the page %s", body)
		return
	}
	defer s.mu.Unlock()
	s.challenged++
	invoice, hash := s.invoice()
	token := s.bake(hash)
	lines := []string{fmt.Sprintf(`%s macaroon="%s", invoice="%s"`, s.name(), token, invoice)}
	if s.header != nil {
		lines = s.header(token, invoice)
	}
	for _, line := range lines {
		w.Header().Add("WWW-Authenticate", line)
	}
	w.WriteHeader(http.StatusPaymentRequired)
	fmt.Fprint(w, "payment required")
}

func (s *seller) name() string {
	if s.scheme == "" {
		return "L402"
	}
	return s.scheme
}

func (s *seller) invoice() (text, hash string) {
	if s.stored != nil {
		return s.stored()
	}
	text, hash, err := s.ledger.Issue(s.msat, "a page", s.expiry)
	if err != nil {
		s.t.Errorf("invoice: %v", err)
	}
	return text, hash
}

func (s *seller) bake(hash string) string {
	raw, err := hex.DecodeString(hash)
	if err != nil {
		s.t.Error(err)
	}
	if s.another {
		raw = bytes.Repeat([]byte{7}, 32)
	}
	return bake(s.t, s.root, 0, raw)
}

// bake makes a macaroon whose identifier is a version, a payment hash, and 32 bytes of
// the server's own.
func bake(t testing.TB, root []byte, version uint16, hash []byte) string {
	id := binary.BigEndian.AppendUint16(nil, version)
	id = append(id, hash...)
	more := make([]byte, 32)
	_, _ = rand.Read(more)
	m, err := macaroon.New(root, append(id, more...), "seller", macaroon.LatestVersion)
	if err == nil {
		err = m.AddFirstPartyCaveat([]byte("services=pages:0"))
	}
	if err != nil {
		t.Error(err)
		return ""
	}
	raw, err := m.MarshalBinary()
	if err != nil {
		t.Error(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// good says whether an Authorization header is a macaroon of ours with the preimage of
// the payment that it is for, and not used up.
func (s *seller) good(auth string) bool {
	scheme, rest, _ := strings.Cut(auth, " ")
	token, preimage, ok := strings.Cut(rest, ":")
	if !ok || scheme != s.name() {
		return false
	}
	raw, err := macaroon.Base64Decode([]byte(token))
	if err != nil {
		return false
	}
	var m macaroon.Macaroon
	if m.UnmarshalBinary(raw) != nil || m.Verify(s.root, func(c string) error {
		if c != "services=pages:0" {
			return fmt.Errorf("caveat %q", c)
		}
		return nil
	}, nil) != nil {
		return false
	}
	secret, err := hex.DecodeString(preimage)
	if err != nil || len(secret) != 32 || !wallet.Preimage(secret).Proves([32]byte(m.Id()[2:34])) {
		return false
	}
	s.used[preimage]++
	return s.uses == 0 || s.used[preimage] <= s.uses
}

// purse holds money in memory, within a cap, for one payee or all, and one payment for
// one call.
type purse struct {
	mu     sync.Mutex
	left   int64
	payees []string
	of     map[string]tool.Hold // by call
	hashes map[string]string
	quotes []tool.Quote
	before func() // between what was held and what is answered
}

func newPurse(sats int64) *purse {
	return &purse{left: sats, of: map[string]tool.Hold{}, hashes: map[string]string{}}
}

// bound is a purse for one call.
type bound struct {
	*purse
	call string
}

func (b bound) Hold(_ context.Context, q tool.Quote) (tool.Hold, *tool.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	refuse := func(code string) (tool.Hold, *tool.Error) {
		return tool.Hold{}, &tool.Error{Class: "policy_denied", ReasonCode: code, Message: code}
	}
	if h, held := b.of[b.call]; held {
		if h.Quote().PaymentHash != q.PaymentHash {
			return refuse("policy_denied.idempotency_conflict")
		}
		return tool.HoldByExecutor(h.Quote(), "auth_1", true), nil
	}
	if other, held := b.hashes[q.PaymentHash]; held && other != b.call {
		return refuse("policy_denied.already_finalized")
	}
	if len(b.payees) > 0 && b.payees[0] != q.Payee {
		return refuse("policy_denied.payee_not_allowed")
	}
	if q.AmountSats > b.left {
		return refuse("policy_denied.budget_exhausted")
	}
	b.left -= q.AmountSats
	b.quotes = append(b.quotes, q)
	b.hashes[q.PaymentHash] = b.call
	b.of[b.call] = tool.HoldByExecutor(q, "auth_1", false)
	if b.before != nil {
		b.before()
	}
	return b.of[b.call], nil
}

func (b bound) Held(context.Context) (tool.Hold, bool, *tool.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, held := b.of[b.call]
	if !held {
		return tool.Hold{}, false, nil
	}
	return tool.HoldByExecutor(h.Quote(), "auth_1", true), true, nil
}

// world is a seller, a wallet, and the tool.
type world struct {
	t      testing.TB
	ledger *ledger.Ledger
	lnd    *wallet.LND
	seller *seller
	tool   *l402.Tool
	purse  *purse
	config l402.Config
	run    uuid.UUID
	node   *httptest.Server
}

func newWorld(t testing.TB, change ...func(*l402.Config)) *world {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Path: filepath.Join(t.TempDir(), "ledger"), BalanceSats: 10_000, FeeMsat: 500, Macaroon: "aabbccdd"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	node := httptest.NewServer(l.Handler())
	t.Cleanup(node.Close)
	store, err := secret.New(secret.Config{Static: map[string]string{"lnd": "aabbccdd"}})
	require.NoError(t, err)
	w, err := wallet.NewLND(wallet.LNDConfig{URL: node.URL, Secrets: store, Network: bolt11.Regtest, Patience: 2 * time.Second})
	require.NoError(t, err)
	s := newSeller(t, l)
	out := &world{t: t, ledger: l, lnd: w, seller: s, purse: newPurse(1_000), run: uuid.New(), node: node}
	out.config = l402.Config{
		Guard:  egress.GuardConfig{Exceptions: []string{s.Listener.Addr().String()}, Timeout: 3 * time.Second},
		Wallet: w, PayTimeout: time.Second, FeeSats: 5, FeePPM: 10_000,
	}
	for _, f := range change {
		f(&out.config)
	}
	out.restart()
	return out
}

// restart makes the tool anew: what it had in memory is gone.
func (w *world) restart() {
	var err error
	w.tool, err = l402.New(w.config)
	require.NoError(w.t, err)
}

func (w *world) call(id string, in map[string]any) tool.Call {
	w.t.Helper()
	if in["url"] == nil {
		in["url"] = w.seller.URL + "/page"
	}
	if in["maxSats"] == nil {
		in["maxSats"] = 100
	}
	raw, err := json.Marshal(in)
	require.NoError(w.t, err)
	var v any
	require.NoError(w.t, json.Unmarshal(raw, &v))
	require.NoError(w.t, schema(w.t, w.tool.Spec().Input).Validate(v))
	return tool.Call{RunKey: w.run, RunID: "run_1", ToolCallID: id, Input: raw, IdempotencyKey: "key_" + id, Purse: bound{w.purse, id}}
}

// fetch makes a call, whose output must satisfy its schema.
func (w *world) fetch(id string, in map[string]any) (map[string]any, tool.Result, error) {
	w.t.Helper()
	return w.read(w.tool.Run(w.t.Context(), w.call(id, in), func(json.RawMessage) error { return nil }))
}

func (w *world) read(r tool.Result, err error) (map[string]any, tool.Result, error) {
	w.t.Helper()
	if err != nil {
		require.Empty(w.t, r.Output)
		return nil, r, err
	}
	var out map[string]any
	require.NoError(w.t, json.Unmarshal(r.Output, &out))
	require.NoError(w.t, schema(w.t, w.tool.Spec().Output).Validate(any(out)))
	require.True(w.t, r.Paid)
	return out, r, nil
}

// spent is what the wallet has paid, in millisats, and how many payments that were.
func (w *world) spent() (msat int64, payments int) {
	for _, p := range w.ledger.Payments() {
		if p.Status == ledger.Succeeded {
			msat += p.ValueMsat + p.FeeMsat
			payments++
		}
	}
	require.Equal(w.t, 10_000_000-msat, w.ledger.BalanceMsat())
	return msat, payments
}

func refused(t testing.TB, err error, class string) *tool.Error {
	t.Helper()
	var e *tool.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%v", err)
	return e
}

func schema(t testing.TB, raw json.RawMessage) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("s.json", doc))
	s, err := c.Compile("s.json")
	require.NoError(t, err)
	return s
}

// forged is an invoice of a key that no wallet can pay to.
func forged(t testing.TB, change func(*bolt11.Invoice)) (text, hash string) {
	t.Helper()
	i := bolt11.Invoice{Network: bolt11.Regtest, AmountMsat: 10_000, CreatedAt: time.Now(), Expiry: time.Hour, Description: "forged"}
	_, _ = rand.Read(i.PaymentHash[:])
	change(&i)
	key, err := secp256k1.GeneratePrivateKey()
	require.NoError(t, err)
	text, err = bolt11.Encode(i, key)
	require.NoError(t, err)
	return text, i.HashHex()
}

// Package ledger is a Lightning wallet for development and tests: what it has and
// what it paid are lines of a file, and it speaks LND's REST API.
//
// It pays the invoices that it has issued itself, and no others: to pay one, its
// preimage must be known. No money moves.
package ledger

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
)

// Config says where a ledger is kept. Zero values take the defaults.
type Config struct {
	// Path is the file, which one process at a time may have open.
	Path string
	// BalanceSats is what a new ledger begins with; 1,000,000.
	BalanceSats int64
	// FeeMsat is what each payment costs besides.
	FeeMsat int64
	// Macaroon must come with each request, in hex; empty asks for none.
	Macaroon string
	Now      func() time.Time // the wall clock when nil
}

// Behaviour is what becomes of a payment.
type Behaviour int

// The behaviours.
const (
	Ordinary          Behaviour = iota
	FailBeforePaying            // no route is found, which is recorded
	BreakBeforePaying           // the connection breaks, and nothing is recorded
	SilentAfterPaying           // it is paid, and no answer comes until the asker gives up
	BreakAfterPaying            // it is paid, and the connection breaks
	StayInFlight                // it is on its way until Resolve is called
)

// Ledger is an open ledger. It is safe for concurrent use.
type Ledger struct {
	c    Config
	file *os.File

	mu       sync.Mutex
	key      *secp256k1.PrivateKey
	balance  int64 // msat that can be spent
	invoices map[string]invoice
	payments map[string]Payment
	behave   func(paymentHash string) Behaviour
	broken   error // the file could not be written: nothing is done any more
}

// Status is what became of a payment, in LND's words.
type Status string

// The statuses.
const (
	InFlight  Status = "IN_FLIGHT"
	Succeeded Status = "SUCCEEDED"
	Failed    Status = "FAILED"
)

// Payment is what a ledger knows of one.
type Payment struct {
	Hash          string `json:"hash"`
	Status        Status `json:"status"`
	ValueMsat     int64  `json:"value_msat"`
	FeeMsat       int64  `json:"fee_msat"`
	FailureReason string `json:"failure_reason,omitempty"`
	// Requests is how often it was asked for; it was paid once at the most.
	Requests int `json:"requests"`
}

type invoice struct {
	Hash     string `json:"hash"`
	Preimage string `json:"preimage"`
	Text     string `json:"text"`
}

// line is one fact of the file. Later facts replace earlier ones.
type line struct {
	Key     string   `json:"key,omitempty"`     // the node's, with the first line
	Balance *int64   `json:"balance,omitempty"` // msat, after this line
	Invoice *invoice `json:"invoice,omitempty"`
	Payment *Payment `json:"payment,omitempty"`
}

// Open opens a ledger, or begins one.
func Open(c Config) (*Ledger, error) {
	if c.BalanceSats == 0 {
		c.BalanceSats = 1_000_000
	}
	if c.BalanceSats < 0 || c.BalanceSats > bolt11.MaxAmountMsat/1000 || c.FeeMsat < 0 {
		return nil, errors.New("ledger: an amount is below zero, or more than there can be")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	file, err := os.OpenFile(c.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	l := &Ledger{c: c, file: file, invoices: map[string]invoice{}, payments: map[string]Payment{}, behave: func(string) Behaviour { return Ordinary }}
	if err := lock(file); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: %s: another process has it open: %w", c.Path, err), file.Close())
	}
	if err := l.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("ledger: %s: %w", c.Path, err), file.Close())
	}
	return l, nil
}

// Close closes the file.
func (l *Ledger) Close() error { return l.file.Close() }

// load reads the file. A last line that was cut off by a crash is dropped: what it
// says was never answered to anybody.
func (l *Ledger) load() error {
	var good int64
	lines := bufio.NewReader(l.file)
	for {
		raw, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var f line
		if err := json.Unmarshal(raw, &f); err != nil {
			return fmt.Errorf("a line cannot be read: %w", err)
		}
		if err := l.apply(f); err != nil {
			return err
		}
		good += int64(len(raw))
	}
	if err := l.file.Truncate(good); err != nil {
		return err
	}
	if _, err := l.file.Seek(good, 0); err != nil {
		return err
	}
	if l.key != nil {
		return nil
	}
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		return err
	}
	balance := l.c.BalanceSats * 1000
	return l.write(line{Key: hex.EncodeToString(key.Serialize()), Balance: &balance})
}

func (l *Ledger) apply(f line) error {
	if f.Key != "" {
		raw, err := hex.DecodeString(f.Key)
		if err != nil || len(raw) != 32 {
			return errors.New("its key cannot be read")
		}
		l.key = secp256k1.PrivKeyFromBytes(raw)
	}
	if f.Balance != nil {
		l.balance = *f.Balance
	}
	if f.Invoice != nil {
		l.invoices[f.Invoice.Hash] = *f.Invoice
	}
	if f.Payment != nil {
		l.payments[f.Payment.Hash] = *f.Payment
	}
	return nil
}

// write makes a fact durable before it holds.
func (l *Ledger) write(f line) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if l.broken == nil {
		if _, l.broken = l.file.Write(append(raw, '\n')); l.broken == nil {
			l.broken = l.file.Sync()
		}
	}
	if l.broken != nil {
		return fmt.Errorf("ledger: %w", l.broken)
	}
	return l.apply(f)
}

// Behave says what becomes of payments from now on. It is asked while the ledger is
// locked, so it must not call it.
func (l *Ledger) Behave(f func(paymentHash string) Behaviour) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.behave = f
}

// Payments are all that were asked for, by payment hash in hex.
func (l *Ledger) Payments() map[string]Payment {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]Payment, len(l.payments))
	for hash, p := range l.payments {
		all[hash] = p
	}
	return all
}

// BalanceMsat is what can be spent.
func (l *Ledger) BalanceMsat() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.balance
}

// NodeKey is the public key that the ledger's invoices are signed with, in hex.
func (l *Ledger) NodeKey() string { return hex.EncodeToString(l.key.PubKey().SerializeCompressed()) }

// Issue makes an invoice that this ledger can pay.
func (l *Ledger) Issue(msat int64, memo string, expiry time.Duration) (text, hash string, _ error) {
	var preimage, secret [32]byte
	if _, err := rand.Read(preimage[:]); err != nil {
		return "", "", err
	}
	if _, err := rand.Read(secret[:]); err != nil {
		return "", "", err
	}
	i := bolt11.Invoice{
		Network: bolt11.Regtest, AmountMsat: msat, CreatedAt: l.c.Now(), Expiry: expiry, Description: memo,
		PaymentHash: sha256.Sum256(preimage[:]), PaymentSecret: &secret,
	}
	text, err := bolt11.Encode(i, l.key)
	if err != nil {
		return "", "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return text, i.HashHex(), l.write(line{Invoice: &invoice{Hash: i.HashHex(), Preimage: hex.EncodeToString(preimage[:]), Text: text}})
}

// errRefused is what the ledger answers without recording a payment.
type errRefused struct {
	code int
	why  string
}

func (e errRefused) Error() string { return e.why }

// begin records that an invoice is to be paid, and how that ended, if it did at
// once.
func (l *Ledger) begin(text string, feeLimit int64) (Payment, Behaviour, error) {
	i, err := bolt11.Decode(text)
	if err != nil {
		return Payment{}, 0, errRefused{codeInvalid, err.Error()}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	hash := i.HashHex()
	how := l.behave(hash)
	if how == BreakBeforePaying {
		return Payment{}, how, nil
	}
	p, known := l.payments[hash]
	p.Hash = hash
	p.Requests++
	switch {
	case known && p.Status != Failed:
		if err := l.write(line{Payment: &p}); err != nil {
			return p, how, err
		}
		why := "invoice is already paid"
		if p.Status == InFlight {
			why = "payment is in transition"
		}
		return p, how, errRefused{codeExists, why}
	case i.Network != bolt11.Regtest:
		return p, how, errRefused{codeUnknown, "invoice not for current active network 'regtest'"}
	case i.AmountMsat == 0:
		return p, how, errRefused{codeUnknown, "amount must be specified when paying a zero amount invoice"}
	case !l.c.Now().Before(i.ExpiresAt()):
		return p, how, errRefused{codeUnknown, "invoice expired"}
	}
	p.ValueMsat, p.FeeMsat, p.FailureReason = i.AmountMsat, l.c.FeeMsat, ""
	_, ours := l.invoices[hash]
	switch {
	case how == FailBeforePaying || !ours || p.FeeMsat > feeLimit:
		return l.end(p, how, Failed, "FAILURE_REASON_NO_ROUTE")
	case p.ValueMsat+p.FeeMsat > l.balance:
		return l.end(p, how, Failed, "FAILURE_REASON_INSUFFICIENT_BALANCE")
	case how == StayInFlight:
		return l.end(p, how, InFlight, "")
	}
	return l.end(p, how, Succeeded, "")
}

// end records how a payment stands. The balance falls with the payment's record, in
// one line.
func (l *Ledger) end(p Payment, how Behaviour, s Status, reason string) (Payment, Behaviour, error) {
	before := l.payments[p.Hash].Status
	p.Status, p.FailureReason = s, reason
	f := line{Payment: &p}
	held := func(s Status) bool { return s == InFlight || s == Succeeded }
	balance := l.balance
	if held(s) && !held(before) {
		balance -= p.ValueMsat + p.FeeMsat
	}
	if !held(s) && held(before) {
		balance += p.ValueMsat + p.FeeMsat
	}
	f.Balance = &balance
	return p, how, l.write(f)
}

// Resolve ends a payment that stays in flight.
func (l *Ledger) Resolve(paymentHash string, arrived bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, known := l.payments[paymentHash]
	if !known || p.Status != InFlight {
		return errors.New("ledger: no such payment is in flight")
	}
	s, reason := Succeeded, ""
	if !arrived {
		s, reason = Failed, "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS"
	}
	_, _, err := l.end(p, Ordinary, s, reason)
	return err
}

// find is a payment and, when it arrived, its preimage.
func (l *Ledger) find(hash string) (p Payment, preimage string, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, known = l.payments[hash]
	if p.Status == Succeeded {
		preimage = l.invoices[hash].Preimage
	}
	return p, preimage, known
}

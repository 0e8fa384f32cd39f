// Package wallet pays Lightning invoices with money that is held for them.
package wallet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
)

// Wallet pays. Each payment has a hash, and no hash is paid twice, whoever asks
// and however often.
type Wallet interface {
	// Pay pays an invoice and waits for the end of it. Its error is an *Error, which
	// says whether the money may be gone.
	Pay(ctx context.Context, p Payment) (Paid, error)
	// Lookup asks what became of a payment. Paid is filled when it is Settled. An
	// error says that the wallet could not be asked.
	Lookup(ctx context.Context, paymentHash [32]byte) (State, Paid, error)
	// Balance is what can be spent, in thousandths of a sat.
	Balance(ctx context.Context) (int64, error)
	// Network is where the wallet's money is.
	Network() bolt11.Network
}

// Payment is one invoice to be paid.
type Payment struct {
	// Hold is the money that may be spent, at least AmountMsat and MaxFeeMsat
	// together, held for this very payment hash.
	Hold        tool.Hold
	Invoice     string
	PaymentHash [32]byte
	AmountMsat  int64
	MaxFeeMsat  int64
	// Timeout is how long the wallet looks for a way to pay. What is on its way then
	// may still arrive.
	Timeout time.Duration
}

// Paid is a payment that arrived.
type Paid struct {
	Preimage            Preimage
	AmountMsat, FeeMsat int64
}

// Sats is all that it has cost, rounded up.
func (p Paid) Sats() int64 { return Sats(p.AmountMsat + p.FeeMsat) }

// Sats are millisats rounded up to whole sats.
func Sats(msat int64) int64 {
	sats := msat / 1000
	if msat%1000 > 0 {
		sats++
	}
	return sats
}

// Preimage proves that an invoice was paid. It is worth what was paid for, so
// printing and logging it show that it is there and nothing of it.
type Preimage [32]byte

// Hex is the preimage itself, for the header that carries it and the stored proof.
func (p Preimage) Hex() string { return hex.EncodeToString(p[:]) }

func (p Preimage) String() string { return "[preimage]" }

// Format keeps it out of every verb.
func (p Preimage) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.String()) }

// MarshalText keeps it out of encoders.
func (p Preimage) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Proves says whether it is the preimage of a payment's hash.
func (p Preimage) Proves(paymentHash [32]byte) bool { return sha256.Sum256(p[:]) == paymentHash }

// State is what a wallet knows of a payment.
type State string

// The states of a payment.
const (
	Settled State = "settled" // it arrived; nothing changes that
	Failed  State = "failed"  // it did not, and the money is back
	Pending State = "pending" // it is on its way
	Unknown State = "unknown" // the wallet was never asked for it, or has forgotten
)

// Class says for programs why a payment did not come about.
type Class string

// The classes of an Error.
const (
	NotHeld      Class = "payment_not_held"      // the hold is not for this payment, or too small
	NotPayable   Class = "payment_not_payable"   // the invoice is another than was said
	NoRoute      Class = "payment_no_route"      // there is no way to the payee, or none within the fee
	NoBalance    Class = "payment_no_balance"    // the wallet has too little
	TookTooLong  Class = "payment_timeout"       // no way was found in time; the money is back
	Declined     Class = "payment_declined"      // the payee or the wallet does not take it
	Unavailable  Class = "wallet_unavailable"    // the wallet was not reached, or does not let us in
	OutcomeOpen  Class = "payment_unknown"       // it may have been paid
	WrongReceipt Class = "payment_proof_invalid" // it was paid, says the wallet, but its proof is none
)

// Error says why a payment did not come about. It holds no secret.
type Error struct {
	Class   Class
	Message string
	// Unknown says that the money may be gone; Lookup tells, sooner or later.
	Unknown bool
	Err     error
}

func (e *Error) Error() string { return string(e.Class) + ": " + e.Message }
func (e *Error) Unwrap() error { return e.Err }

// Check says what forbids a payment: a hold that is not for it, or an invoice
// that says something else than the caller believes. Every wallet asks it first.
func Check(p Payment, network bolt11.Network) error {
	q := p.Hold.Quote()
	if q.PaymentHash != hex.EncodeToString(p.PaymentHash[:]) {
		return &Error{Class: NotHeld, Message: "the money is held for another payment"}
	}
	if p.AmountMsat <= 0 || p.AmountMsat > bolt11.MaxAmountMsat || p.MaxFeeMsat < 0 || p.MaxFeeMsat > bolt11.MaxAmountMsat ||
		p.Hold.AmountSats() < Sats(p.AmountMsat+p.MaxFeeMsat) {
		return &Error{Class: NotHeld, Message: "less is held than the payment may cost"}
	}
	i, err := bolt11.Decode(p.Invoice)
	switch {
	case err != nil:
		return &Error{Class: NotPayable, Message: err.Error()}
	case i.PaymentHash != p.PaymentHash || i.AmountMsat != p.AmountMsat:
		return &Error{Class: NotPayable, Message: "the invoice is not what was agreed"}
	case i.Network != network:
		return &Error{Class: NotPayable, Message: "the invoice is of " + string(i.Network) + " and the wallet of " + string(network)}
	}
	return nil
}

package tool

import (
	"context"
	"encoding/json"
)

// MostSats is more than any amount can be: 21 million bitcoin.
const MostSats int64 = 2_100_000_000_000_000

// Price says what a call of a tool costs. A tool without one is free.
type Price struct {
	// Sats is a fixed price, which is held before the call is made.
	Sats int64
	// Quoted says that the tool learns the price in the middle of the call and asks
	// the call's Purse before it spends. Sats is 0 then.
	Quoted bool
}

// Quote is what somebody asks for a call.
type Quote struct {
	// AmountSats is the most that the call can come to, fees included, rounded up.
	AmountSats int64
	// Known is false when the price cannot be told beforehand. AmountSats is then
	// what the tool would hold all the same.
	Known bool
	// Provider is who is paid through, such as l402; Host who asks for the money, in
	// the form of a URL's host and without a port; Payee who gets it, such as the
	// public key of a node.
	Provider, Host, Payee string
	// PaymentHash names the payment in lower-case hex, where a payment has such a
	// name: nobody may hold for the same payment twice.
	PaymentHash string
	// RequestHash is the digest of what is paid for: an equal one is the same
	// purchase.
	RequestHash string
	// Detail is a JSON object with what is needed to go on after a crash. It may hold
	// credentials: it is stored with the reservation, and shown nowhere.
	Detail json.RawMessage
}

// Purse holds money for one call that learns its price in the middle. The
// executor's is the only one that is shipped.
type Purse interface {
	// Hold commits the decision and the reservation, under the lease of the run,
	// before it returns; nothing may be spent without what it returns. Asked again
	// with the same quote it answers what is held already, with Replay. Its error is
	// the call's, to be returned as it is: nothing is held then.
	Hold(ctx context.Context, q Quote) (Hold, *Error)
	// Held is what the call holds already, by an earlier attempt in whichever
	// process; false when that is nothing.
	Held(ctx context.Context) (Hold, bool, *Error)
}

// Prober is a tool with a price that can find out what became of the money of a hold
// without making the call again.
type Prober interface {
	// Probe asks whoever was to be paid. known is false when that cannot be told yet;
	// otherwise res says what was spent (Paid, PaidSats, Proof, CorrelationID), which
	// is nothing when PaidSats is 0.
	Probe(ctx context.Context, h Hold) (res Result, known bool, err error)
}

// Hold is money that is reserved for a call. Its zero value is no money; another
// comes from a Purse alone, so who was given one may spend up to its amount.
type Hold struct {
	quote         Quote
	authorization string
	replay        bool
}

// HoldByExecutor is the hold of a reservation that is committed. The executor
// calls it, for what it has stored, and nobody else.
func HoldByExecutor(q Quote, authorizationID string, replay bool) Hold {
	return Hold{quote: q, authorization: authorizationID, replay: replay}
}

// AmountSats is the most that may be spent.
func (h Hold) AmountSats() int64 { return h.quote.AmountSats }

// Quote is what it is held for.
func (h Hold) Quote() Quote { return h.quote }

// AuthorizationID names who let it be held.
func (h Hold) AuthorizationID() string { return h.authorization }

// Replay says that it was held before, so that it may have been spent: whoever
// gets it asks what became of the payment before making it.
func (h Hold) Replay() bool { return h.replay }

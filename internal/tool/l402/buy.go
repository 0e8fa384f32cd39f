package l402

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
)

// The classes of errors about a payment, besides the wallet's own.
const (
	NotServed   = "paid_not_served" // it was paid for, and not answered
	NotPaid     = "not_paid"        // it broke off, and nothing was paid
	Interrupted = "interrupted"     // it broke off before that
	HoldInvalid = "hold_invalid"    // what is held is not for a payment of this tool
)

const (
	reasonUnknown  = "settlement.unknown_outcome"
	reasonRejected = "settlement.provider_rejected"
)

// purchase is the detail of a quote: what goes to the wallet and then to the server.
type purchase struct {
	Scheme     string    `json:"scheme"`
	Token      string    `json:"token"`
	Invoice    string    `json:"invoice"`
	AmountMsat int64     `json:"amount_msat"`
	MaxFeeMsat int64     `json:"max_fee_msat"`
	Payee      string    `json:"payee"`
	ExpiresAt  time.Time `json:"expires_at"`
	URL        string    `json:"url"`
}

// bought is a payment that arrived; zero when there was none.
type bought struct {
	purchase
	wallet.Paid
	hash string
}

func (b bought) credential() credential {
	return credential{scheme: b.Scheme, token: b.Token, preimage: b.Preimage}
}

// proof is what is kept of it.
type proof struct {
	PaymentHash string `json:"payment_hash"`
	Preimage    string `json:"preimage"`
	AmountMsat  int64  `json:"amount_msat"`
	FeeMsat     int64  `json:"fee_msat"`
	Payee       string `json:"payee"`
	Invoice     string `json:"invoice"`
}

// result says what was spent, whatever else comes of the call.
func (b bought) result() (tool.Result, error) {
	if b.hash == "" {
		return tool.Result{Paid: true}, nil
	}
	kept, err := json.Marshal(proof{
		PaymentHash: b.hash, Preimage: b.Preimage.Hex(), AmountMsat: b.Paid.AmountMsat, FeeMsat: b.FeeMsat, Payee: b.Payee, Invoice: b.Invoice,
	})
	return tool.Result{CorrelationID: b.hash, Paid: true, PaidSats: b.Sats(), Proof: kept}, err
}

// unsealed reads what a hold is for.
func unsealed(h tool.Hold) (p purchase, hash [32]byte, _ error) {
	raw, err := hex.DecodeString(h.Quote().PaymentHash)
	if err != nil || len(raw) != len(hash) {
		return p, hash, errors.New("the hold names no payment")
	}
	if err := json.Unmarshal(h.Quote().Detail, &p); err != nil {
		return p, hash, errors.New("the hold's detail cannot be read")
	}
	return p, [32]byte(raw), nil
}

// buy pays what is held, unless it has been paid already, and fetches what it was
// paid for.
func (e *errand) buy(ctx context.Context, h tool.Hold, maybePaid bool) (tool.Result, error) {
	b, bad := e.pay(ctx, h, maybePaid)
	if bad != nil {
		return tool.Result{Paid: !bad.Unknown, CorrelationID: h.Quote().PaymentHash}, bad
	}
	return e.claim(ctx, b)
}

// pay pays what is held, or finds that it was.
func (t *Tool) pay(ctx context.Context, h tool.Hold, maybePaid bool) (bought, *tool.Error) {
	p, hash, err := unsealed(h)
	if err != nil {
		// Who has made the hold may have paid by it.
		return bought{}, &tool.Error{Class: HoldInvalid, ReasonCode: reasonUnknown, Message: err.Error(), Unknown: maybePaid}
	}
	b := bought{purchase: p, hash: h.Quote().PaymentHash}
	if maybePaid {
		state, found, bad := t.look(ctx, h)
		switch {
		case bad != nil:
			return bought{}, bad
		case state == wallet.Settled:
			return found, nil
		case state == wallet.Pending:
			return bought{}, notYet("the payment is on its way")
		case t.expired(p):
			return bought{}, neverPaid()
		case t.c.Now().Add(leastLeft).After(p.ExpiresAt):
			return bought{}, notYet("the invoice expires, and the wallet may still hear of it")
		}
	}
	b.Paid, err = t.c.Wallet.Pay(ctx, wallet.Payment{
		Hold: h, Invoice: p.Invoice, PaymentHash: hash, AmountMsat: p.AmountMsat, MaxFeeMsat: p.MaxFeeMsat, Timeout: t.c.PayTimeout,
	})
	if err != nil {
		return bought{}, payError(err)
	}
	if !b.Preimage.Proves(hash) {
		return bought{}, payError(&wallet.Error{Class: wallet.WrongReceipt, Message: "the wallet has paid, but its proof is none", Unknown: true})
	}
	return b, nil
}

// payError is the tool's error for one of a wallet.
func payError(err error) *tool.Error {
	var why *wallet.Error
	if !errors.As(err, &why) {
		why = &wallet.Error{Class: wallet.OutcomeOpen, Message: "the payment broke off", Unknown: true}
	}
	bad := &tool.Error{Class: string(why.Class), ReasonCode: reasonRejected, Message: why.Message, Unknown: why.Unknown}
	if why.Unknown {
		bad.ReasonCode = reasonUnknown
	}
	return bad
}

// claim asks for what was paid for. Whatever comes of it, the money is gone and the
// result says so.
func (e *errand) claim(ctx context.Context, b bought) (tool.Result, error) {
	c := b.credential()
	at := place(e.call.RunKey, b.URL)
	e.paid.keep(at, c)
	resp, err := e.ask(ctx, b.URL, &c)
	why := ""
	switch {
	case err != nil:
		why = "the server did not answer after it was paid; a repeated call does not pay again while this payment is good"
	case resp.Status == http.StatusPaymentRequired, resp.Status == http.StatusUnauthorized:
		e.paid.forget(at, c)
		why = "the server was paid and answers " + strconv.Itoa(resp.Status) + " all the same"
	case resp.Status >= http.StatusInternalServerError:
		why = "the server was paid and failed with " + strconv.Itoa(resp.Status) + "; a repeated call does not pay again while this payment is good"
	default:
		return e.show(resp, b, nil)
	}
	return b.unserved(why)
}

// unserved is the end of a call that was paid for in vain.
func (b bought) unserved(why string) (tool.Result, error) {
	res, err := b.result()
	if err != nil {
		return res, err
	}
	return res, &tool.Error{Class: NotServed, Message: why + " (" + sats(b.Sats()) + " paid)"}
}

// show makes the output of an answer. What the server has heard of us is taken out of
// what it says: a page may repeat its request.
func (e *errand) show(resp egress.Response, b bought, used *credential) (tool.Result, error) {
	res, err := b.result()
	if err != nil {
		return res, err
	}
	if b.hash != "" {
		c := b.credential()
		used = &c
	}
	r := outbound.Reading{Text: outbound.Most(e.c.MaxText, e.in.MaxBytes), Binary: outbound.Most(e.c.MaxBinary, e.in.MaxBytes)}
	if used != nil {
		r.Hide = used.hide
		if resp.Truncated {
			// The end may hold the beginning of what is hidden.
			resp.Body = resp.Body[:max(0, len(resp.Body)-used.longest())]
		}
	}
	page, bad := outbound.ReadPage(resp, r)
	if bad != nil {
		return res, bad
	}
	out := output{Page: page, PaidSats: res.PaidSats, FeeSats: wallet.Sats(b.FeeMsat), PaymentHash: b.hash, Reused: used != nil && b.hash == ""}
	res.Output, err = outbound.JSON(out)
	return res, err
}

// look asks the wallet what became of the payment of a hold, and gives what was bought
// when it has arrived.
func (t *Tool) look(ctx context.Context, h tool.Hold) (wallet.State, bought, *tool.Error) {
	p, hash, err := unsealed(h)
	if err != nil {
		return "", bought{}, &tool.Error{Class: HoldInvalid, ReasonCode: reasonUnknown, Message: err.Error(), Unknown: true}
	}
	state, paid, err := t.c.Wallet.Lookup(ctx, hash)
	if err != nil {
		bad := payError(err)
		bad.Unknown, bad.ReasonCode = true, reasonUnknown
		return "", bought{}, bad
	}
	b := bought{purchase: p, Paid: paid, hash: h.Quote().PaymentHash}
	if state == wallet.Settled && !paid.Preimage.Proves(hash) {
		return "", bought{}, payError(&wallet.Error{Class: wallet.WrongReceipt, Message: "the wallet has paid, but its proof is none", Unknown: true})
	}
	return state, b, nil
}

// lateness is how long after an invoice's expiry a request to pay it may still reach
// the wallet, from a process that was slow, or be let through by its clock.
const lateness = 2 * time.Minute

// expired says that nobody can pay any more.
func (t *Tool) expired(p purchase) bool { return t.c.Now().After(p.ExpiresAt.Add(lateness)) }

func notYet(why string) *tool.Error {
	return &tool.Error{Class: string(wallet.OutcomeOpen), ReasonCode: reasonUnknown, Message: why, Unknown: true}
}

func neverPaid() *tool.Error {
	return &tool.Error{Class: InvoiceExpired, ReasonCode: reasonRejected, Message: "the invoice expired before it was paid"}
}

// Probe finds out what became of the money of a hold. What the wallet has never heard
// of counts as not paid when nobody can pay it any more.
func (t *Tool) Probe(ctx context.Context, h tool.Hold) (res tool.Result, known bool, _ error) {
	b, known, bad := t.probe(ctx, h)
	switch {
	case bad != nil:
		return tool.Result{}, false, bad
	case !known:
		return tool.Result{}, false, nil
	}
	res, err := b.result()
	return res, err == nil, err
}

// probe is Probe for this package: b is zero when nothing was paid.
func (t *Tool) probe(ctx context.Context, h tool.Hold) (b bought, known bool, _ *tool.Error) {
	state, found, bad := t.look(ctx, h)
	switch {
	case bad != nil:
		return bought{}, false, bad
	case state == wallet.Settled:
		return found, true, nil
	case state == wallet.Failed, state == wallet.Unknown && t.expired(found.purchase):
		return bought{}, true, nil
	}
	return bought{}, false, nil
}

// Reconcile finds out what became of an earlier attempt. One that has paid fetches
// what it paid for; a POST is not sent again, since it may have been carried out.
func (t *Tool) Reconcile(ctx context.Context, call tool.Call) (tool.Result, bool, error) {
	e, bad := t.errand(call)
	if bad != nil {
		return tool.Result{}, false, bad
	}
	if call.Purse == nil {
		return tool.Result{}, false, nil
	}
	h, held, bad := call.Purse.Held(ctx)
	switch {
	case bad != nil:
		return tool.Result{}, false, bad
	case !held && e.post:
		return tool.Result{}, false, nil // it may have been carried out for nothing
	case !held:
		return tool.Result{Paid: true}, true, &tool.Error{Class: Interrupted, Message: "the call broke off before anything was paid", Retryable: true}
	}
	b, known, bad := t.probe(ctx, h)
	switch {
	case bad != nil:
		return tool.Result{}, false, bad
	case !known:
		return tool.Result{}, false, nil
	case b.hash == "":
		return tool.Result{Paid: true, CorrelationID: h.Quote().PaymentHash}, true,
			&tool.Error{Class: NotPaid, ReasonCode: reasonRejected, Message: "the call broke off and nothing was paid"}
	case e.post:
		e.paid.keep(place(call.RunKey, b.URL), b.credential())
		res, err := b.unserved("the call broke off after it was paid, and whether it was carried out is not known")
		return res, true, err
	}
	res, err := e.claim(ctx, b)
	return res, true, err
}

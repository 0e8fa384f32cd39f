// Package l402 fetches what a server sells for Lightning payments, by the L402
// protocol and its older name LSAT.
package l402

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
	"github.com/openagentsinc/openagents-runtime/internal/wallet"
)

// Config is how far the tool reaches, and what it pays with. Zero values take the
// defaults.
type Config struct {
	// Guard is the client's; its lists of hosts, sizes and times are the tool's. It
	// is asked for https alone, since what is paid for is worth the payment.
	Guard  egress.GuardConfig
	Wallet wallet.Wallet
	// Post names hosts, as Guard.Allow does, that a model may send a body to; none
	// when empty.
	Post []string
	// FeeSats and FeePPM bound what a payment may cost besides its amount: so many
	// sats, or that many millionths of the amount when those are more; zeros are no
	// fee at all.
	FeeSats, FeePPM int64
	PayTimeout      time.Duration // how long a way to pay is looked for; 30 s
	// MaxText and MaxBinary bound an output as they do that of http.fetch; 128 KiB and
	// 64 KiB.
	MaxText, MaxBinary int
	Credentials        int // that were paid for and are kept to be used again; 1024
	Parallel           int // calls at once in this process; 0 is without bound
	Now                func() time.Time
}

// Tool is l402.fetch.
type Tool struct {
	c     Config
	guard *egress.Guard
	post  *egress.Guard // nil: nowhere
	paid  *credentials
}

const provider = "l402"

// New makes the tool or says what cannot be meant.
func New(c Config) (*Tool, error) {
	switch {
	case c.Wallet == nil:
		return nil, errors.New("l402: there is no wallet to pay with")
	case c.MaxText < 0 || c.MaxBinary < 0 || c.Credentials < 0 || c.Parallel < 0 || c.PayTimeout < 0:
		return nil, errors.New("l402: a limit is below zero")
	case c.FeeSats < 0 || c.FeeSats > tool.MostSats || c.FeePPM < 0 || c.FeePPM > 1_000_000:
		return nil, errors.New("l402: a bound of fees is below zero, or above what is paid")
	}
	if c.PayTimeout == 0 {
		c.PayTimeout = 30 * time.Second
	}
	if c.MaxText == 0 {
		c.MaxText = 128 << 10
	}
	if c.MaxBinary == 0 {
		c.MaxBinary = 64 << 10
	}
	if c.Credentials == 0 {
		c.Credentials = 1024
	}
	if c.Guard.Timeout == 0 {
		c.Guard.Timeout = 30 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.Guard.Provider, c.Guard.HTTPSOnly = provider, true
	t := &Tool{c: c, paid: &credentials{most: c.Credentials}}
	var err error
	if t.guard, err = egress.NewGuard(c.Guard); err != nil {
		return nil, err
	}
	if len(c.Post) > 0 {
		may := c.Guard
		may.Allow, may.Logger = c.Post, nil
		if t.post, err = egress.NewGuard(may); err != nil {
			return nil, err
		}
	}
	return t, nil
}

type input struct {
	URL         string            `json:"url"`
	Method      string            `json:"method"`
	Headers     map[string]string `json:"headers"`
	Body        *string           `json:"body"`
	ContentType string            `json:"contentType"`
	MaxSats     int64             `json:"maxSats"`
	MaxBytes    int               `json:"maxBytes"`
}

type output struct {
	outbound.Page
	// PaidSats is what this call has spent, FeeSats what of it were fees.
	PaidSats    int64  `json:"paidSats"`
	FeeSats     int64  `json:"feeSats"`
	PaymentHash string `json:"paymentHash,omitempty"`
	// Reused says that an earlier payment of the run was good for this call.
	Reused bool `json:"reused"`
}

// errand is one call at work.
type errand struct {
	*Tool
	call tool.Call
	in   input
	req  egress.Request
	post bool
}

// errand reads a call's input.
func (t *Tool) errand(call tool.Call) (*errand, *tool.Error) {
	e := &errand{Tool: t, call: call}
	if err := json.Unmarshal(call.Input, &e.in); err != nil {
		return nil, outbound.Invalid("the input is not as the schema says")
	}
	e.req = egress.Request{Method: e.in.Method, URL: e.in.URL}
	var bad *tool.Error
	if e.req.Header, bad = outbound.PageHeader(e.in.Headers); bad != nil {
		return nil, bad
	}
	switch e.in.Method {
	case "", http.MethodGet:
		if e.in.Body != nil {
			return nil, outbound.Invalid("only a POST has a body")
		}
		e.req.Method = http.MethodGet
		return e, nil
	case http.MethodPost:
	default:
		return nil, outbound.Invalid("the method is not one of this tool's")
	}
	if t.post == nil {
		return nil, &tool.Error{Class: egress.HostNotAllowed, ReasonCode: egress.HostNotAllowed, Message: "POST is not allowed to any host"}
	}
	if err := t.post.Check(e.in.URL); err != nil {
		return nil, outbound.Error(err, false)
	}
	e.post, e.req.NoRedirects = true, true
	e.req.Header.Set("Idempotency-Key", call.IdempotencyKey)
	if e.in.Body != nil {
		kind, bad := outbound.BodyType(e.in.ContentType)
		if bad != nil {
			return nil, bad
		}
		e.req.Body = []byte(*e.in.Body)
		e.req.Header.Set("Content-Type", kind)
	}
	return e, nil
}

// Run asks for the page, pays when the server wants it, and asks again. A call that
// holds money already goes on where it stopped.
func (t *Tool) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	e, bad := t.errand(call)
	if bad != nil {
		return tool.Result{}, bad
	}
	if call.Purse != nil {
		switch h, held, bad := call.Purse.Held(ctx); {
		case bad != nil:
			return tool.Result{}, bad
		case held:
			return e.buy(ctx, h, true)
		}
	}
	resp, used, err := e.first(ctx)
	if err != nil {
		return tool.Result{}, err
	}
	if resp.Status != http.StatusPaymentRequired {
		return e.show(resp, bought{}, used)
	}
	o, bad := choose(resp.Header, terms{network: t.c.Wallet.Network(), maxSats: e.in.MaxSats, now: t.c.Now()})
	if bad != nil {
		return tool.Result{}, bad
	}
	if call.Purse == nil {
		return tool.Result{}, &tool.Error{
			Class: "policy_denied", ReasonCode: "policy_denied.authorization_missing", Message: "nobody has allowed that money is spent",
		}
	}
	q, err := e.quote(resp, o)
	if err != nil {
		return tool.Result{}, err
	}
	h, bad := call.Purse.Hold(ctx, q)
	if bad != nil {
		return tool.Result{}, bad
	}
	return e.buy(ctx, h, h.Replay())
}

// first asks for the page, with what the run has paid for at this place, and without
// when the server does not take that any more.
func (e *errand) first(ctx context.Context) (_ egress.Response, used *credential, _ error) {
	at := place(e.call.RunKey, e.req.URL)
	c, there := e.paid.find(at)
	if there {
		resp, err := e.ask(ctx, e.req.URL, &c)
		if err != nil {
			return resp, nil, err
		}
		switch resp.Status {
		case http.StatusPaymentRequired:
			e.paid.forget(at, c)
			return resp, nil, nil
		case http.StatusUnauthorized:
			e.paid.forget(at, c)
		default:
			return resp, &c, nil
		}
	}
	resp, err := e.ask(ctx, e.req.URL, nil)
	return resp, nil, err
}

// ask makes the request. A credential goes to the URL's origin alone: the guard sends
// no header of ours after a redirect to another.
func (e *errand) ask(ctx context.Context, url string, c *credential) (egress.Response, error) {
	req := e.req
	req.URL, req.Header = url, e.req.Header.Clone()
	if c != nil {
		req.Header.Set("Authorization", c.header())
	}
	resp, err := e.guard.Do(ctx, req)
	if err != nil {
		bad := outbound.Error(err, e.post)
		// The provider is everybody: one host's fault is not counted against the others.
		bad.ProviderFault = false
		return resp, bad
	}
	return resp, nil
}

// quote is what a server asks for, with all that is needed to go on after a crash.
func (e *errand) quote(resp egress.Response, o offer) (tool.Quote, error) {
	p := purchase{
		Scheme: o.scheme, Token: o.token, Invoice: o.text, AmountMsat: o.invoice.AmountMsat,
		MaxFeeMsat: e.maxFee(o.invoice.AmountMsat), Payee: o.invoice.PayeeHex(), ExpiresAt: o.invoice.ExpiresAt(), URL: resp.URL.String(),
	}
	detail, err := json.Marshal(p)
	if err != nil {
		return tool.Quote{}, err
	}
	body := sha256.Sum256(e.req.Body)
	what, err := json.Marshal([]string{e.req.Method, e.req.URL, e.req.Header.Get("Content-Type"), hex.EncodeToString(body[:])})
	if err != nil {
		return tool.Quote{}, err
	}
	digest := sha256.Sum256(what)
	return tool.Quote{
		AmountSats: wallet.Sats(p.AmountMsat + p.MaxFeeMsat), Known: true, Provider: provider, Host: resp.URL.Hostname(),
		Payee: p.Payee, PaymentHash: o.invoice.HashHex(), RequestHash: "sha256:" + hex.EncodeToString(digest[:]), Detail: detail,
	}, nil
}

// maxFee is what a payment may cost besides: within the configured bound, and within
// what the caller lets the call cost.
func (e *errand) maxFee(amountMsat int64) int64 {
	// A millionth first: the product of the two might not fit.
	fee := max(e.c.FeeSats*1000, amountMsat/1_000_000*e.c.FeePPM+amountMsat%1_000_000*e.c.FeePPM/1_000_000)
	return max(0, min(fee, e.in.MaxSats*1000-amountMsat))
}

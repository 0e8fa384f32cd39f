package wallet

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/wallet/bolt11"
)

// LNDConfig says where a node is and how it lets us in.
type LNDConfig struct {
	// URL of its REST API, https; http on this machine alone.
	URL string
	// Certificate is the node's own, in PEM: no other is taken. Empty means that the
	// system's authorities vouch for it.
	Certificate []byte
	// Secrets answers the node's macaroon, in hex, under the name Provider; lnd when
	// empty.
	Secrets  *secret.Store
	Provider string
	Network  bolt11.Network // mainnet when empty
	// Patience is how long an answer is waited for beyond a payment's timeout, and
	// how long a question may take; 10 s.
	Patience time.Duration
	Observe  func(egress.Call) // may be nil
}

// LND is a wallet that is a node of LND, spoken to by REST.
type LND struct {
	c      LNDConfig
	base   *url.URL
	client *http.Client
}

// NewLND makes a wallet or says what cannot be meant. The node is not asked.
func NewLND(c LNDConfig) (*LND, error) {
	if c.Provider == "" {
		c.Provider = "lnd"
	}
	if c.Network == "" {
		c.Network = bolt11.Mainnet
	}
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("lnd: the address must be an https URL without user or query")
	case u.Scheme == "http" && !onThisMachine(u.Hostname()):
		return nil, errors.New("lnd: the address must be https, for a key to money goes there")
	case c.Secrets == nil:
		return nil, errors.New("lnd: there is nowhere to get its macaroon from")
	case c.Patience < 0:
		return nil, errors.New("lnd: the patience is below zero")
	}
	// How long a payment takes is the caller's matter: each call has its own bound.
	e := egress.Config{
		HostClasses: map[string]string{u.Host: c.Provider}, Observe: c.Observe, ResponseHeaderTimeout: time.Hour,
	}
	if len(c.Certificate) > 0 {
		e.RootCAs = x509.NewCertPool()
		if !e.RootCAs.AppendCertsFromPEM(c.Certificate) {
			return nil, errors.New("lnd: its certificate is not in PEM")
		}
	}
	return &LND{c: c, base: u, client: egress.New(e)}, nil
}

func onThisMachine(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Network is where the node's money is.
func (l *LND) Network() bolt11.Network { return l.c.Network }

// lndPayment is a payment as the node tells it. Its numbers are strings.
type lndPayment struct {
	Status    string `json:"status"`
	Preimage  string `json:"payment_preimage"`
	ValueMsat string `json:"value_msat"`
	FeeMsat   string `json:"fee_msat"`
	Failure   string `json:"failure_reason"`
}

// told is one line of an answer: what it is about, or an error, which the node
// writes in one of two ways.
type told struct {
	Result *lndPayment `json:"result"`
	Error  *lndError   `json:"error"`
	lndError
}

type lndError struct {
	Code    int    `json:"code"`
	GRPC    int    `json:"grpc_code"`
	Message string `json:"message"`
}

func (e lndError) code() int { return max(e.Code, e.GRPC) }

// Codes of gRPC.
const (
	notFound         = 5
	permissionDenied = 7
	unauthenticated  = 16
)

// refusals are what a node says when it does not take a macaroon, or is not ready.
// It has no codes of its own for that.
var refusals = []string{
	"permission denied", "verification failed", "cannot retrieve macaroon", "expected 1 macaroon", "cannot get macaroon",
	"cannot determine data format of binary-encoded macaroon", "wallet locked", "wallet not created", "waiting to start",
	"the RPC server is in the process of starting up",
}

// shutDoor says whether a status that comes without an error of the node means that
// something in front of it, or another service, sent us away.
func shutDoor(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return true
	}
	return false
}

// shutOut says whether the node did not let us in, so that it did nothing.
func (e lndError) shutOut() bool {
	if e.code() == permissionDenied || e.code() == unauthenticated {
		return true
	}
	for _, words := range refusals {
		if strings.Contains(e.Message, words) {
			return true
		}
	}
	return false
}

// Pay asks the node to pay, and reads what it says until the payment has ended. An
// error of the node is never taken for the payment's end: what became of it is
// asked then.
func (l *LND) Pay(ctx context.Context, p Payment) (Paid, error) {
	if err := Check(p, l.c.Network); err != nil {
		return Paid{}, err
	}
	ctx, stop := context.WithTimeout(ctx, p.Timeout+l.c.Patience)
	defer stop()
	body, err := json.Marshal(struct {
		Invoice string `json:"payment_request"`
		Timeout int64  `json:"timeout_seconds"`
		MaxFee  string `json:"fee_limit_msat"`
	}{p.Invoice, max(1, int64(p.Timeout/time.Second)), strconv.FormatInt(p.MaxFeeMsat, 10)})
	if err != nil {
		return Paid{}, &Error{Class: NotPayable, Message: "the payment cannot be written", Err: err}
	}
	resp, sent, err := l.ask(ctx, http.MethodPost, "/v2/router/send", body)
	if err != nil {
		if !sent {
			return Paid{}, &Error{Class: Unavailable, Message: "the wallet was not reached", Err: err}
		}
		return Paid{}, open("the wallet's answer was lost", err)
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	for {
		var t told
		if err := lines.Decode(&t); err != nil {
			if shutDoor(resp.StatusCode) {
				return Paid{}, &Error{Class: Unavailable, Message: "the wallet answered " + strconv.Itoa(resp.StatusCode)}
			}
			return Paid{}, open("the wallet's answer broke off", err)
		}
		switch e := t.problem(resp.StatusCode); {
		case e != nil && e.shutOut():
			return Paid{}, &Error{Class: Unavailable, Message: "the wallet does not let us in"}
		case e != nil:
			return l.afterError(ctx, p)
		case t.Result == nil:
			return Paid{}, open("the wallet's answer is none", nil)
		}
		state, paid, err := t.Result.read(p.PaymentHash)
		switch {
		case err != nil:
			return Paid{}, err
		case state == Settled:
			return paid, nil
		case state == Failed:
			return Paid{}, t.Result.failed()
		}
	}
}

// maxAnswer bounds what is read of one answer; a payment of many parts tells of
// each.
const maxAnswer = 4 << 20

func open(why string, err error) *Error {
	return &Error{Class: OutcomeOpen, Message: why, Unknown: true, Err: err}
}

// afterError asks what became of a payment that the node answered with an error:
// an invoice that is paid already, or on its way, is answered so, too. The node is
// done with the request, so what it does not know was not paid.
func (l *LND) afterError(ctx context.Context, p Payment) (Paid, error) {
	switch state, paid, err := l.Lookup(ctx, p.PaymentHash); {
	case err != nil:
		return Paid{}, open("the wallet failed, and cannot say what became of the payment", err)
	case state == Settled:
		return paid, nil
	case state == Pending:
		return Paid{}, open("the payment is on its way", nil)
	default:
		return Paid{}, &Error{Class: Declined, Message: "the wallet does not take the payment"}
	}
}

func (t told) problem(status int) *lndError {
	switch {
	case t.Error != nil:
		return t.Error
	case t.Result == nil && (status != http.StatusOK || t.code() != 0):
		return &t.lndError
	}
	return nil
}

// read is a payment's state, and what was paid when it has settled.
func (r lndPayment) read(hash [32]byte) (State, Paid, error) {
	switch r.Status {
	case "SUCCEEDED":
	case "FAILED":
		return Failed, Paid{}, nil
	case "IN_FLIGHT", "INITIATED":
		return Pending, Paid{}, nil
	default:
		return Pending, Paid{}, open("the wallet tells a state that is not known", nil)
	}
	raw, err := hex.DecodeString(r.Preimage)
	if err != nil || len(raw) != 32 || !Preimage(raw).Proves(hash) {
		return Settled, Paid{}, &Error{Class: WrongReceipt, Message: "the wallet has paid, but its proof is none", Unknown: true}
	}
	paid := Paid{Preimage: Preimage(raw)}
	if paid.AmountMsat, err = msat(r.ValueMsat); err == nil {
		paid.FeeMsat, err = msat(r.FeeMsat)
	}
	if err != nil {
		return Settled, Paid{}, &Error{Class: WrongReceipt, Message: "the wallet has paid, but does not say how much", Unknown: true}
	}
	return Settled, paid, nil
}

func msat(s string) (int64, error) {
	if s == "" {
		return 0, nil // a zero is left out
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > bolt11.MaxAmountMsat {
		return 0, errors.New("no amount")
	}
	return n, nil
}

func (r lndPayment) failed() *Error {
	switch r.Failure {
	case "FAILURE_REASON_NO_ROUTE":
		return &Error{Class: NoRoute, Message: "there is no way to the payee within the fee that is allowed"}
	case "FAILURE_REASON_INSUFFICIENT_BALANCE":
		return &Error{Class: NoBalance, Message: "the wallet has too little to pay with"}
	case "FAILURE_REASON_TIMEOUT":
		return &Error{Class: TookTooLong, Message: "no way to the payee was found in time"}
	default:
		return &Error{Class: Declined, Message: "the payment was not taken"}
	}
}

// Lookup asks the node for its own record of a payment.
func (l *LND) Lookup(ctx context.Context, paymentHash [32]byte) (State, Paid, error) {
	ctx, stop := context.WithTimeout(ctx, l.c.Patience)
	defer stop()
	resp, _, err := l.ask(ctx, http.MethodGet, "/v2/router/track/"+base64.URLEncoding.EncodeToString(paymentHash[:]), nil)
	if err != nil {
		return Unknown, Paid{}, &Error{Class: Unavailable, Message: "the wallet was not reached", Err: err}
	}
	defer resp.Body.Close()
	var t told
	err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&t)
	switch e := t.problem(resp.StatusCode); {
	case err != nil:
		return Unknown, Paid{}, &Error{Class: Unavailable, Message: "the wallet's answer broke off", Err: err}
	case e != nil && e.code() == notFound:
		return Unknown, Paid{}, nil
	case e != nil && e.shutOut():
		return Unknown, Paid{}, &Error{Class: Unavailable, Message: "the wallet does not let us in"}
	case e != nil || t.Result == nil:
		return Unknown, Paid{}, &Error{Class: Unavailable, Message: "the wallet failed"}
	}
	return t.Result.read(paymentHash)
}

// Balance is what the node's channels can send.
func (l *LND) Balance(ctx context.Context) (int64, error) {
	ctx, stop := context.WithTimeout(ctx, l.c.Patience)
	defer stop()
	resp, _, err := l.ask(ctx, http.MethodGet, "/v1/balance/channels", nil)
	if err != nil {
		return 0, &Error{Class: Unavailable, Message: "the wallet was not reached", Err: err}
	}
	defer resp.Body.Close()
	var b struct {
		Local struct {
			Msat string `json:"msat"`
		} `json:"local_balance"`
	}
	if resp.StatusCode != http.StatusOK {
		return 0, &Error{Class: Unavailable, Message: "the wallet answered " + strconv.Itoa(resp.StatusCode)}
	}
	if err = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&b); err == nil {
		var n int64
		if n, err = msat(b.Local.Msat); err == nil {
			return n, nil
		}
	}
	return 0, &Error{Class: Unavailable, Message: "the wallet's answer is not as agreed", Err: err}
}

// ask makes one request. sent says whether the node may have got it.
func (l *LND) ask(ctx context.Context, method, path string, body []byte) (_ *http.Response, sent bool, _ error) {
	key, err := l.c.Secrets.Get(ctx, secret.Scope{Provider: l.c.Provider})
	if err != nil {
		return nil, false, err
	}
	var got atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	u := *l.base
	u.Path = strings.TrimSuffix(u.Path, "/") + path
	req, err := http.NewRequestWithContext(traced, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	// A connection of its own: one that has waited may be found closed, and then
	// nobody could say whether the request had gone.
	req.Close = true
	req.Header.Set("Grpc-Metadata-Macaroon", key.Reveal())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := l.client.Do(req)
	return resp, got.Load(), err
}

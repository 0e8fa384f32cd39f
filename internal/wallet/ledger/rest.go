package ledger

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Codes of gRPC, which LND's REST API repeats.
const (
	codeUnknown     = 2
	codeInvalid     = 3
	codeNotFound    = 5
	codeExists      = 6
	codeUnavailable = 14
)

// Handler answers the part of LND's REST API that pays, asks and invoices:
//
//	POST /v1/invoices             {value_msat, memo, expiry}
//	POST /v2/router/send          {payment_request, fee_limit_msat, timeout_seconds}
//	GET  /v2/router/track/{hash}  base64
//	GET  /v1/balance/channels
func (l *Ledger) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/invoices", l.addInvoice)
	mux.HandleFunc("POST /v2/router/send", l.send)
	mux.HandleFunc("GET /v2/router/track/{hash}", l.track)
	mux.HandleFunc("GET /v1/balance/channels", l.balances)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if l.c.Macaroon != "" && r.Header.Get("Grpc-Metadata-Macaroon") != l.c.Macaroon {
			fail(w, http.StatusInternalServerError, codeUnknown, "verification failed: signature mismatch after caveat verification")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		mux.ServeHTTP(w, r)
	})
}

type wirePayment struct {
	Hash          string `json:"payment_hash"`
	Preimage      string `json:"payment_preimage"`
	ValueMsat     string `json:"value_msat"`
	FeeMsat       string `json:"fee_msat"`
	Status        Status `json:"status"`
	FailureReason string `json:"failure_reason"`
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// A client that has gone hears nothing, and asks again.
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, status, code int, why string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": code, "message": why}})
}

// tell writes a payment as a line of a stream.
func (l *Ledger) tell(w http.ResponseWriter, hash string) {
	p, preimage, known := l.find(hash)
	if !known {
		fail(w, http.StatusNotFound, codeNotFound, "payment isn't initiated")
		return
	}
	if preimage == "" {
		preimage = hex.EncodeToString(make([]byte, 32))
	}
	reason := p.FailureReason
	if reason == "" {
		reason = "FAILURE_REASON_NONE"
	}
	answer(w, map[string]any{"result": wirePayment{
		Hash: p.Hash, Preimage: preimage, Status: p.Status, FailureReason: reason,
		ValueMsat: strconv.FormatInt(p.ValueMsat, 10), FeeMsat: strconv.FormatInt(p.FeeMsat, 10),
	}})
}

func (l *Ledger) send(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Invoice string `json:"payment_request"`
		MaxFee  string `json:"fee_limit_msat"`
		Timeout int64  `json:"timeout_seconds"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		fail(w, http.StatusBadRequest, codeInvalid, "the request cannot be read")
		return
	}
	limit, err := strconv.ParseInt(in.MaxFee, 10, 64)
	if err != nil || in.Timeout <= 0 {
		fail(w, http.StatusBadRequest, codeInvalid, "timeout_seconds and fee_limit_msat must be specified")
		return
	}
	p, how, err := l.begin(in.Invoice, limit)
	var refused errRefused
	switch {
	case errors.As(err, &refused):
		fail(w, http.StatusInternalServerError, refused.code, refused.why)
		return
	case err != nil:
		fail(w, http.StatusServiceUnavailable, codeUnavailable, err.Error())
		return
	}
	switch how {
	case BreakBeforePaying, BreakAfterPaying:
		panic(http.ErrAbortHandler)
	case SilentAfterPaying:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case StayInFlight:
		l.tell(w, p.Hash)
		l.wait(w, r, p.Hash)
	case Ordinary, FailBeforePaying:
		l.tell(w, p.Hash)
	}
}

// wait tells how a payment that is on its way has ended, when it has.
func (l *Ledger) wait(w http.ResponseWriter, r *http.Request, hash string) {
	// The client is gone when this fails, which the context says.
	_ = http.NewResponseController(w).Flush()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-tick.C:
		}
		if p, _, _ := l.find(hash); p.Status != InFlight {
			l.tell(w, hash)
			return
		}
	}
}

func (l *Ledger) track(w http.ResponseWriter, r *http.Request) {
	hash, err := base64.URLEncoding.DecodeString(r.PathValue("hash"))
	if err != nil || len(hash) != 32 {
		fail(w, http.StatusBadRequest, codeInvalid, "no payment hash")
		return
	}
	l.tell(w, hex.EncodeToString(hash))
}

func (l *Ledger) balances(w http.ResponseWriter, _ *http.Request) {
	msat := l.BalanceMsat()
	answer(w, map[string]any{"local_balance": map[string]string{
		"sat": strconv.FormatInt(msat/1000, 10), "msat": strconv.FormatInt(msat, 10),
	}})
}

func (l *Ledger) addInvoice(w http.ResponseWriter, r *http.Request) {
	var in struct {
		ValueMsat string `json:"value_msat"`
		Memo      string `json:"memo"`
		Expiry    string `json:"expiry"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		fail(w, http.StatusBadRequest, codeInvalid, "the request cannot be read")
		return
	}
	msat, err := strconv.ParseInt(in.ValueMsat, 10, 64)
	if err != nil {
		fail(w, http.StatusBadRequest, codeInvalid, "value_msat is no number")
		return
	}
	seconds, err := strconv.ParseInt(in.Expiry, 10, 32)
	if in.Expiry != "" && err != nil {
		fail(w, http.StatusBadRequest, codeInvalid, "expiry is no number")
		return
	}
	text, hash, err := l.Issue(msat, in.Memo, time.Duration(seconds)*time.Second)
	if err != nil {
		fail(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	raw, err := hex.DecodeString(hash)
	if err != nil {
		fail(w, http.StatusInternalServerError, codeUnknown, err.Error())
		return
	}
	answer(w, map[string]string{"r_hash": base64.StdEncoding.EncodeToString(raw), "payment_request": text})
}

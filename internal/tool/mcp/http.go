package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
)

// Guarded makes the clients of servers at an address: each may call the host and
// port of its server alone, by https unless g excepts the address.
func Guarded(g egress.GuardConfig) func(Server) (*http.Client, error) {
	return func(s Server) (*http.Client, error) {
		u, err := url.Parse(s.HTTP.URL)
		if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
			return nil, errors.New("http/url must be an https URL without user or fragment")
		}
		own := g
		own.Allow, own.HTTPSOnly, own.Provider = []string{u.Hostname()}, true, s.Provider()
		own.Ports = []uint16{443}
		if p := u.Port(); p != "" {
			n, err := strconv.ParseUint(p, 10, 16)
			if err != nil {
				return nil, errors.New("http/url has no port that can be called")
			}
			own.Ports = []uint16{uint16(n)}
		}
		// A server may answer a call with its headers at the end of it.
		own.HeaderTimeout = max(s.Longest(), s.connect())
		guard, err := egress.NewGuard(own)
		if err != nil {
			return nil, err
		}
		if err := guard.Check(s.HTTP.URL); err != nil {
			return nil, fmt.Errorf("http/url cannot be called: %w", err)
		}
		return guard.Client(), nil
	}
}

// exchange is what became of the last request of a call. It travels in the
// call's context.
type exchange struct {
	status atomic.Int32
	header atomic.Pointer[http.Header]
}

type exchangeKey struct{}

// wire sends the server's headers along and bounds what comes back.
type wire struct {
	next    http.RoundTripper
	headers map[string]Value
	secret  func(context.Context, string) (secret.Value, error)
	limit   int64 // of a message
}

func (w wire) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	for name, v := range w.headers {
		text, err := v.reveal(req.Context(), w.secret)
		if err != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, err
		}
		req.Header.Set(name, text)
	}
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if x, ok := req.Context().Value(exchangeKey{}).(*exchange); ok {
		x.status.Store(int32(resp.StatusCode))
		x.header.Store(&resp.Header)
	}
	limit := w.limit
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/event-stream" {
		limit *= 64 // many messages; each is bounded by whoever reads the stream
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: limit}
	return resp, nil
}

// reveal is the text of a value, which may be a secret.
func (v Value) reveal(ctx context.Context, get func(context.Context, string) (secret.Value, error)) (string, error) {
	if v.Secret == "" {
		return v.Text, nil
	}
	if get == nil {
		return "", &secret.Error{Code: secret.Misconfigured, Message: "there is nowhere to get the secret " + v.Secret + " from"}
	}
	s, err := get(ctx, v.Secret)
	if err != nil {
		return "", err
	}
	return v.Before + s.Reveal(), nil
}

var errTooLarge = errors.New("the server's answer is larger than max_message_bytes")

// bounded fails when there is more than may be.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		var one [1]byte
		if n, err := b.ReadCloser.Read(one[:]); n == 0 && err != nil {
			return 0, err
		}
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

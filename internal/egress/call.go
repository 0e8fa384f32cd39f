package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"sync/atomic"
)

// Request is one call.
type Request struct {
	Method string // GET when empty
	URL    string
	// Header is for the URL's origin (scheme, host and port) alone: nothing of it
	// is sent after a redirect to another.
	Header http.Header
	Body   []byte
	// MaxBytes lowers the guard's bound of the body, when it is not zero.
	MaxBytes int64
	// NoRedirects makes a redirect the answer.
	NoRedirects bool
}

// Response is what a call came to, read whole.
type Response struct {
	Status int
	Header http.Header
	// URL is where the answer came from, without a fragment.
	URL *url.URL
	// Body is after decompression; Truncated says that there was more of it.
	Body      []byte
	Truncated bool
	Hops      int // redirects that were followed
}

// perHop are headers that belong to a connection, which is the guard's.
var perHop = []string{
	"Accept-Encoding", "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Authenticate",
	"Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// Do makes a call and follows its redirects, each checked like the first. Its
// error is a *Refusal or a *Failure. Any status is an answer.
func (g *Guard) Do(ctx context.Context, r Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, g.c.Timeout)
	defer cancel()
	w := &walk{g: g, found: map[string][]netip.Addr{}, method: r.Method, body: r.Body, header: r.Header.Clone(), stay: r.NoRedirects}
	if w.method == "" {
		w.method = http.MethodGet
	}
	if w.header == nil {
		w.header = http.Header{}
	}
	for _, name := range perHop {
		w.header.Del(name)
	}
	limit := g.c.MaxBytes
	if r.MaxBytes > 0 {
		limit = min(limit, r.MaxBytes)
	}
	t, refusal := parseTarget(r.URL)
	if refusal != nil {
		return Response{}, w.refused(ctx, refusal, target{})
	}
	for {
		resp, next, err := w.hop(ctx, t, limit)
		if err != nil {
			return Response{}, err
		}
		if next == nil {
			return resp, nil
		}
		t = *next
	}
}

// walk is a call on its way through redirects.
type walk struct {
	g      *Guard
	found  map[string][]netip.Addr // a host keeps its addresses for the whole call
	method string
	header http.Header
	body   []byte
	hops   int
	stay   bool        // redirects are not followed
	sent   atomic.Bool // something was written to a server
}

// hop makes one request. next is where its redirect leads.
func (w *walk) hop(ctx context.Context, t target, limit int64) (_ Response, next *target, _ error) {
	if refusal := w.g.permit(t); refusal != nil {
		return Response{}, nil, w.refused(ctx, refusal, t)
	}
	list, known := w.found[t.host]
	if !known {
		var err error
		if list, err = w.g.lookUp(ctx, t); err != nil {
			return Response{}, nil, w.failed(ctx, err, t)
		}
		w.found[t.host] = list
	}
	if refusal := w.g.admit(t, list); refusal != nil {
		return Response{}, nil, w.refused(ctx, refusal, t)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	req := w.request(context.WithValue(ctx, pinKey{}, pin{addrs: list, port: t.port}), t)
	resp, err := w.g.transport.RoundTrip(req)
	if err != nil {
		return Response{}, nil, w.failed(ctx, err, t)
	}
	defer resp.Body.Close()
	if redirects(resp.StatusCode) && w.g.c.MaxRedirects > 0 && !w.stay {
		next, refusal := w.follow(t, resp)
		if refusal != nil {
			return Response{}, nil, w.refused(ctx, refusal, t)
		}
		return Response{}, next, nil
	}
	out := Response{Status: resp.StatusCode, Header: resp.Header, URL: t.url, Hops: w.hops}
	out.Body, out.Truncated, err = readBody(resp.Body, limit, w.g.c.MinBytes, w.g.c.Window, stop)
	if err != nil {
		return Response{}, nil, w.failed(ctx, err, t)
	}
	return out, nil, nil
}

func (w *walk) request(ctx context.Context, t target) *http.Request {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { w.sent.Store(true) },
	})
	req := (&http.Request{
		Method: w.method, URL: t.url, Host: t.url.Host, Header: w.header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", w.g.c.UserAgent)
	}
	if w.body != nil {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(w.body)), int64(len(w.body))
	}
	return req
}

func redirects(status int) bool {
	return slices.Contains([]int{301, 302, 303, 307, 308}, status)
}

// follow decides where a redirect leads and what goes along: 303 and a POST's
// 301 or 302 become a GET without body; another origin gets neither the
// caller's headers nor a body.
func (w *walk) follow(from target, resp *http.Response) (*target, *Refusal) {
	refuse := func(code, why string) (*target, *Refusal) {
		return nil, &Refusal{ReasonCode: code, Host: from.host, URL: shown(from.url), Message: why}
	}
	if w.hops++; w.hops > w.g.c.MaxRedirects {
		return refuse(RedirectLimitExceeded, "there are too many redirects")
	}
	locations := resp.Header.Values("Location")
	if len(locations) == 0 || locations[0] == "" {
		return refuse(RedirectMissingLocation, "the redirect does not say where to")
	}
	if len(locations) > 1 {
		return refuse(RedirectInvalidLocation, "the redirect names several places")
	}
	ref, err := url.Parse(locations[0])
	if err != nil {
		return refuse(RedirectInvalidLocation, "the place of the redirect cannot be read")
	}
	next, refusal := parseTargetRef(from.url, ref, locations[0])
	if refusal != nil {
		refusal.ReasonCode = RedirectInvalidLocation
		return nil, refusal
	}
	seeOther := resp.StatusCode == http.StatusSeeOther && w.method != http.MethodHead
	if seeOther || resp.StatusCode <= http.StatusFound && w.method == http.MethodPost {
		w.method, w.body = http.MethodGet, nil
		for _, name := range []string{"Content-Type", "Content-Encoding", "Content-Language", "Content-Location", "Digest", "Content-Digest", "Idempotency-Key"} {
			w.header.Del(name)
		}
	}
	if next.origin() != from.origin() {
		if w.method != http.MethodGet && w.method != http.MethodHead {
			return refuse(RedirectInvalidLocation, "the redirect would send the request's content to another origin")
		}
		w.header = http.Header{}
	}
	return &next, nil
}

func parseTargetRef(base, ref *url.URL, raw string) (target, *Refusal) {
	if ref.Host == "" && ref.User == nil && ref.Scheme == "" {
		raw = ""
	}
	u := base.ResolveReference(ref)
	if len(u.String()) > maxURLBytes {
		return target{}, &Refusal{Host: u.Hostname(), URL: shown(u), Message: "the place of the redirect is too long"}
	}
	return newTarget(u, raw)
}

func (w *walk) refused(ctx context.Context, r *Refusal, t target) error {
	if r.Host == "" && t.url != nil {
		r.Host, r.URL = t.host, shown(t.url)
	}
	r.Hops = w.hops
	if w.g.c.Refused != nil {
		w.g.c.Refused(ctx, r)
	}
	return r
}

// failed sorts an error into the few classes that callers tell apart.
func (w *walk) failed(ctx context.Context, err error, t target) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return w.refused(ctx, refusal, t)
	}
	f := &Failure{Host: t.host, URL: shown(t.url), Sent: w.sent.Load(), Err: err}
	if cause := context.Cause(ctx); cause != nil {
		err = errors.Join(err, cause)
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	switch kind := outcome(nil, err); {
	case errors.Is(err, errTooSlow):
		f.Class, f.Message = FailedSlow, "the answer of "+t.host+" came too slowly"
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert):
		f.Class, f.Message = FailedTLS, t.host+" could not be reached by TLS"
	case kind == TimedOut:
		f.Class, f.Message = FailedTimeout, t.host+" did not answer in time"
	case kind == Canceled:
		f.Class, f.Message = FailedCanceled, "the call was given up"
	case kind == Unreachable:
		f.Class, f.Message = FailedUnreachable, "no connection to "+t.host+" could be made"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.Class, f.Message = FailedIncomplete, "the answer of "+t.host+" broke off"
	default:
		f.Class, f.Message = FailedAnswer, "the answer of "+t.host+" could not be read"
	}
	return f
}

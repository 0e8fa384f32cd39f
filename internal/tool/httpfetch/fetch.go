// Package httpfetch reads public pages for a model, and sends to them when a
// person lets it.
package httpfetch

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/outbound"
)

// Config is how far the tools reach. Zero values take the defaults.
type Config struct {
	// Guard is the client's; its lists of hosts, sizes and times are the tools'.
	Guard egress.GuardConfig
	// MaxText bounds the text of an output, in bytes; 128 KiB. MaxBinary bounds a
	// body that is no text, before base64; 64 KiB.
	MaxText, MaxBinary int
	Parallel           int // calls at once in this process; 0 is without bound
}

// Tools are http.fetch and http.request.
type Tools struct {
	c     Config
	guard *egress.Guard
}

// New makes the tools or says what cannot be meant.
func New(c Config) (*Tools, error) {
	if c.MaxText < 0 || c.MaxBinary < 0 || c.Parallel < 0 {
		return nil, errors.New("http tools: a limit is below zero")
	}
	if c.MaxText == 0 {
		c.MaxText = 128 << 10
	}
	if c.MaxBinary == 0 {
		c.MaxBinary = 64 << 10
	}
	c.Guard.Provider = provider
	g, err := egress.NewGuard(c.Guard)
	if err != nil {
		return nil, err
	}
	return &Tools{c: c, guard: g}, nil
}

// Fetch is http.fetch: GET and HEAD.
func (t *Tools) Fetch() tool.Tool { return method{t, false} }

// Request is http.request: POST, PUT, PATCH and DELETE.
func (t *Tools) Request() tool.Tool { return method{t, true} }

const provider = "http"

type method struct {
	*Tools
	writes bool
}

// sendable are the request headers that a model may set: none of them says who
// is asking.
var sendable = []string{"Accept", "Accept-Language", "If-Modified-Since", "If-None-Match"}

// readable are the response headers that it is shown.
var readable = []string{
	"Cache-Control", "Content-Disposition", "Content-Language", "Date", "Etag", "Expires", "Last-Modified",
	"Location", "Retry-After",
}

type input struct {
	URL         string            `json:"url"`
	Method      string            `json:"method"`
	Headers     map[string]string `json:"headers"`
	Body        *string           `json:"body"`
	ContentType string            `json:"contentType"`
	MaxBytes    int               `json:"maxBytes"`
}

type output struct {
	Status      int               `json:"status"`
	FinalURL    string            `json:"finalUrl"`
	ContentType string            `json:"contentType"`
	Headers     map[string]string `json:"headers"`
	Title       string            `json:"title,omitempty"`
	Text        *string           `json:"text,omitempty"`
	Base64      *string           `json:"base64,omitempty"`
	Truncated   bool              `json:"truncated"`
	Bytes       int               `json:"bytes"`
}

// Run makes the request. A status of 400 and above is an output like any other.
func (m method) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	var in input
	if err := json.Unmarshal(call.Input, &in); err != nil {
		return tool.Result{}, invalid("the input is not as the schema says")
	}
	req, bad := m.request(call, in)
	if bad != nil {
		return tool.Result{}, bad
	}
	resp, err := m.guard.Do(ctx, req)
	if err != nil {
		e := outbound.Error(err, m.writes)
		// The provider is everybody: one host's fault is not counted against the others.
		e.ProviderFault = false
		return tool.Result{}, e
	}
	out, bad := m.output(resp, in.MaxBytes)
	if bad != nil {
		return tool.Result{}, bad
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return tool.Result{}, err
	}
	return tool.Result{Output: bytes.TrimSpace(b.Bytes())}, nil
}

func (m method) request(call tool.Call, in input) (egress.Request, *tool.Error) {
	req := egress.Request{Method: in.Method, URL: in.URL, Header: http.Header{}}
	methods := []string{"", http.MethodGet, http.MethodHead}
	if m.writes {
		methods = []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	}
	if !slices.Contains(methods, in.Method) {
		return req, invalid("the method is not one of this tool's")
	}
	for name, value := range in.Headers {
		canonical := http.CanonicalHeaderKey(name)
		if !slices.Contains(sendable, canonical) {
			return req, invalid("only these headers may be set: " + strings.Join(sendable, ", "))
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return req, invalid("a header's value holds something else than visible ASCII")
		}
		req.Header.Set(canonical, value)
	}
	if !m.writes {
		return req, nil
	}
	req.Header.Set("Idempotency-Key", call.IdempotencyKey)
	if in.Body != nil {
		kind, params, err := mime.ParseMediaType(orText(in.ContentType))
		if err != nil {
			return req, invalid("the content type cannot be read")
		}
		req.Body = []byte(*in.Body)
		req.Header.Set("Content-Type", mime.FormatMediaType(kind, params))
	}
	return req, nil
}

func orText(contentType string) string {
	if contentType == "" {
		return "text/plain; charset=utf-8"
	}
	return contentType
}

func (m method) output(resp egress.Response, most int) (output, *tool.Error) {
	out := output{
		Status: resp.Status, FinalURL: resp.URL.String(), Headers: map[string]string{},
		Bytes: len(resp.Body), Truncated: resp.Truncated,
	}
	for _, name := range readable {
		if v := resp.Header.Get(name); v != "" {
			out.Headers[strings.ToLower(name)] = outbound.Line(clean(v), 512)
		}
	}
	var text bool
	out.ContentType, text = kind(resp.Header.Get("Content-Type"), resp.Body)
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") && len(resp.Body) > 0 {
		return out, &tool.Error{Class: outbound.Unsupported, Message: "the answer is compressed in a way that was not asked for", Unknown: m.writes}
	}
	limit := func(n int) int {
		if most > 0 {
			n = min(n, most)
		}
		return n
	}
	if !text && len(resp.Body) > 0 {
		if n := limit(m.c.MaxBinary); len(resp.Body) > n || resp.Truncated {
			return out, &tool.Error{
				Class:   outbound.Unsupported,
				Message: "the answer is no text (" + out.ContentType + ") and too large to be handed on",
			}
		}
		encoded := base64.StdEncoding.EncodeToString(resp.Body)
		out.Base64 = &encoded
		return out, nil
	}
	full := decoded(resp.Body, resp.Header.Get("Content-Type"))
	if isHTML(out.ContentType) {
		out.Title, full = readableText(full, resp.URL)
		out.Title = outbound.Line(out.Title, 512)
	}
	cut := outbound.Cut(full, limit(m.c.MaxText))
	out.Truncated = out.Truncated || len(cut) < len(full)
	out.Text = &cut
	return out, nil
}

func invalid(why string) *tool.Error { return &tool.Error{Class: outbound.InvalidInput, Message: why} }

func (m method) timeout() time.Duration {
	if m.c.Guard.Timeout > 0 {
		return m.c.Guard.Timeout + 5*time.Second
	}
	return 35 * time.Second
}

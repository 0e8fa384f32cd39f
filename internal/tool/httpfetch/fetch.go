// Package httpfetch reads public pages for a model, and sends to them when a
// person lets it.
package httpfetch

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
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

type input struct {
	URL         string            `json:"url"`
	Method      string            `json:"method"`
	Headers     map[string]string `json:"headers"`
	Body        *string           `json:"body"`
	ContentType string            `json:"contentType"`
	MaxBytes    int               `json:"maxBytes"`
}

// Run makes the request. A status of 400 and above is an output like any other.
func (m method) Run(ctx context.Context, call tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
	var in input
	if err := json.Unmarshal(call.Input, &in); err != nil {
		return tool.Result{}, outbound.Invalid("the input is not as the schema says")
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
	page, bad := outbound.ReadPage(resp, outbound.Reading{
		Text: outbound.Most(m.c.MaxText, in.MaxBytes), Binary: outbound.Most(m.c.MaxBinary, in.MaxBytes),
	})
	if bad != nil {
		bad.Unknown = m.writes && resp.Header.Get("Content-Encoding") != ""
		return tool.Result{}, bad
	}
	raw, err := outbound.JSON(page)
	return tool.Result{Output: raw}, err
}

func (m method) request(call tool.Call, in input) (egress.Request, *tool.Error) {
	req := egress.Request{Method: in.Method, URL: in.URL}
	methods := []string{"", http.MethodGet, http.MethodHead}
	if m.writes {
		methods = []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	}
	if !slices.Contains(methods, in.Method) {
		return req, outbound.Invalid("the method is not one of this tool's")
	}
	var bad *tool.Error
	if req.Header, bad = outbound.PageHeader(in.Headers); bad != nil || !m.writes {
		return req, bad
	}
	req.Header.Set("Idempotency-Key", call.IdempotencyKey)
	if in.Body != nil {
		kind, bad := outbound.BodyType(in.ContentType)
		if bad != nil {
			return req, bad
		}
		req.Body = []byte(*in.Body)
		req.Header.Set("Content-Type", kind)
	}
	return req, nil
}

func (m method) timeout() time.Duration {
	if m.c.Guard.Timeout > 0 {
		return m.c.Guard.Timeout + 5*time.Second
	}
	return 35 * time.Second
}

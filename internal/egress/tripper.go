package egress

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Outcome is how a call ended, in few enough words to count by.
type Outcome string

const (
	Informational Outcome = "1xx"
	Succeeded     Outcome = "2xx"
	Redirected    Outcome = "3xx"
	Rejected      Outcome = "4xx"
	Broken        Outcome = "5xx"
	TimedOut      Outcome = "timeout"
	Canceled      Outcome = "canceled"
	Unreachable   Outcome = "unreachable" // no connection was made
	Failed        Outcome = "error"       // anything else
)

const otherHosts = "other"

type tripper struct {
	next    http.RoundTripper
	classes map[string]string
	// otherwise is what hosts without a class are counted under.
	otherwise string
	observe   func(Call)
	// untraced keeps our trace to ourselves.
	untraced bool
}

func (t *tripper) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.untraced {
		req = traced(req)
	}
	if t.observe == nil {
		return t.next.RoundTrip(req)
	}
	start := time.Now()
	resp, err := t.next.RoundTrip(req)
	t.observe(Call{HostClass: t.class(req), Outcome: outcome(resp, err), Duration: time.Since(start)})
	return resp, err
}

// CloseIdleConnections makes http.Client.CloseIdleConnections reach the transport.
func (t *tripper) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// traced returns the request with the headers of its context's trace. A request
// belongs to its caller, so the original is left alone.
func traced(req *http.Request) *http.Request {
	trace := telemetry.TraceFrom(req.Context()).Outgoing()
	if trace == (telemetry.Trace{}) {
		return req
	}
	req = req.Clone(req.Context())
	for name, value := range map[string]string{
		"Traceparent": trace.Parent, "Tracestate": trace.State, "X-Request-Id": trace.RequestID,
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	return req
}

func (t *tripper) class(req *http.Request) string {
	for _, host := range []string{req.URL.Host, req.URL.Hostname()} {
		if class, ok := t.classes[host]; ok {
			return class
		}
	}
	return t.otherwise
}

func outcome(resp *http.Response, err error) Outcome {
	if err == nil {
		switch resp.StatusCode / 100 {
		case 1:
			return Informational
		case 2:
			return Succeeded
		case 3:
			return Redirected
		case 4:
			return Rejected
		case 5:
			return Broken
		default:
			return Failed
		}
	}
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return TimedOut
	case errors.As(err, &op) && op.Op == "dial":
		return Unreachable
	default:
		return Failed
	}
}

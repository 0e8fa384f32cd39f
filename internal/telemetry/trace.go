package telemetry

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"strings"
)

// Trace says which request, and which distributed trace, a piece of work
// belongs to. It is stored on frames and events, so that work which goes on
// later, or in another process, still belongs to the request that caused it.
type Trace struct {
	// Parent is a W3C traceparent, version 00, or empty.
	Parent string
	// State is the W3C tracestate that came with it, or empty.
	State string
	// RequestID is the x-request-id, or empty.
	RequestID string
}

// W3C Trace Context, section 3.2.2 (https://www.w3.org/TR/trace-context/).
var (
	parentForm    = regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`)
	stateForm     = regexp.MustCompile(`^[\x20-\x7e]{1,512}$`)
	requestIDForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
)

const (
	zeroTrace = "00000000000000000000000000000000"
	zeroSpan  = "0000000000000000"
)

// NewTrace accepts what a caller sent and replaces what is not well formed: a
// bad traceparent starts a new trace and drops the tracestate, a bad request
// id gives a new one. It never fails: a trace must not refuse a request.
func NewTrace(parent, state, requestID string) Trace {
	t := Trace{Parent: parent, State: strings.TrimSpace(state), RequestID: requestID}
	if !validParent(t.Parent) {
		t.Parent, t.State = "00-"+randomHex(16)+"-"+randomHex(8)+"-01", ""
	}
	if !stateForm.MatchString(t.State) || !strings.Contains(t.State, "=") {
		t.State = ""
	}
	if !requestIDForm.MatchString(t.RequestID) {
		t.RequestID = "req_" + randomHex(12)
	}
	return t
}

func validParent(p string) bool {
	return parentForm.MatchString(p) && p[3:35] != zeroTrace && p[36:52] != zeroSpan
}

// TraceID is the 32 hex digits that join logs across services, or empty.
func (t Trace) TraceID() string {
	if !validParent(t.Parent) {
		return ""
	}
	return t.Parent[3:35]
}

// Outgoing is the trace for a call to somebody else: the same trace, a new span.
func (t Trace) Outgoing() Trace {
	if !validParent(t.Parent) {
		return t
	}
	t.Parent = t.Parent[:36] + randomHex(8) + t.Parent[52:]
	return t
}

type traceKey struct{}

// WithTrace returns a context that carries the trace.
func WithTrace(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceFrom is the trace that the context carries, or an empty one.
func TraceFrom(ctx context.Context) Trace {
	t, _ := ctx.Value(traceKey{}).(Trace)
	return t
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

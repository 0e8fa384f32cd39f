package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// door is what every request passes.
type door struct {
	config    Config
	auth      *auth.Verifier
	admission *Admission
	log       *slog.Logger
	contract  *contract
	routes    routes

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refusals *prometheus.CounterVec
}

// noOperation is the operation label of requests that have no route.
const noOperation = "none"

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	r = traced(r)
	trace := telemetry.TraceFrom(r.Context())
	out := &response{ResponseWriter: w, timeout: d.config.WriteTimeout}
	out.Header().Set("x-request-id", trace.RequestID)
	out.Header().Set("traceparent", trace.Parent)

	operation := noOperation
	defer func() {
		if fault := recover(); fault != nil || !out.detached {
			d.finish(out, r, operation, begun, fault)
		}
	}()
	found, err := d.routes.find(r)
	if err != nil {
		d.fail(out, r, err)
		return
	}
	operation = found.op.ID
	leaveDoor, err := d.admission.enter(operation)
	if err != nil {
		d.fail(out, r, err)
		return
	}
	// What the request has taken of what is bounded. An answer that waits for
	// something else gives it all back before.
	taken := []func(){leaveDoor}
	leave := sync.OnceFunc(func() {
		for _, giveBack := range slices.Backward(taken) {
			giveBack()
		}
	})
	defer leave()
	body, err := d.readBody(out, r, found.op)
	if err != nil {
		d.fail(out, r, err)
		return
	}
	worked, leavePlace, err := d.admission.place(operation, claimedOwner(r.Header))
	if err != nil {
		d.fail(out, r, err)
		return
	}
	taken = append(taken, leavePlace)
	detach := func() func(int64) { return d.detach(out, r, operation, begun) }
	r, err = d.admit(out, r, found.op, body, admitted{leave: leave, detach: detach})
	if err != nil {
		d.fail(out, r, err)
		return
	}
	// An operator who names nobody is one more owner here.
	owner, _ := ownerOf(r.Context())
	leaveShare, err := d.admission.share(operation, owner)
	if err != nil {
		d.fail(out, r, err)
		return
	}
	taken = append(taken, leaveShare)
	worked()
	if found.op.Streams {
		out.timeout = 0
	} else {
		ctx, cancel := context.WithTimeout(r.Context(), d.config.AnswerTimeout)
		defer cancel()
		r = r.WithContext(ctx)
	}
	found.handler.ServeHTTP(out, r)
}

// traced gives the request its trace. The headers keep only what is well
// formed, once: a trace must not refuse a request.
func traced(r *http.Request) *http.Request {
	single := func(name string) string {
		if values := r.Header.Values(name); len(values) == 1 {
			return values[0]
		}
		return ""
	}
	t := telemetry.NewTrace(single("traceparent"), strings.Join(r.Header.Values("tracestate"), ","), single("x-request-id"))
	r.Header.Set("traceparent", t.Parent)
	r.Header.Set("x-request-id", t.RequestID)
	r.Header.Del("tracestate")
	if t.State != "" {
		r.Header.Set("tracestate", t.State)
	}
	return r.WithContext(telemetry.WithTrace(r.Context(), t))
}

// admit lets a request in that is genuine, allowed and fits the contract. Nothing
// about the contract's details is told to a caller whose token is not right.
func (d *door) admit(out *response, r *http.Request, op api.Operation, body []byte, a admitted) (*http.Request, error) {
	caller, err := d.auth.Verify(r.Context(), auth.Request{
		Method: r.Method, Target: r.RequestURI, Header: r.Header, BodySHA256: auth.BodyHash(body),
		RunID: r.PathValue("runId"), ThreadID: r.PathValue("threadId"), Scope: auth.Scope(op.Scope),
	})
	if err != nil {
		return r, err
	}
	out.caller = caller
	a.caller, a.http10 = caller, !r.ProtoAtLeast(1, 1)
	r = r.WithContext(withAdmitted(r.Context(), a))
	return r, d.contract.check(r, op, body)
}

// finish logs and counts a request, and turns a panic into an answer, or into
// an aborted connection when part of the answer has gone out.
func (d *door) finish(out *response, r *http.Request, operation string, begun time.Time, panicked any) {
	abort := panicked != nil && out.status != 0
	if err, ok := panicked.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		abort = true
		if out.status == 0 {
			out.status = statusGone
		}
	} else if panicked != nil {
		d.log.ErrorContext(r.Context(), "a handler panicked", "operation", operation,
			"panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		if !abort {
			abort = d.answerPanic(out, r)
		} else {
			out.code = api.Internal
		}
	}
	d.count(operation, out.status, out.code, begun)
	d.accessLine(r.Context(), lineOf(out, r, operation), begun)
	if abort {
		panic(http.ErrAbortHandler)
	}
}

func (d *door) count(operation string, status int, code api.ErrorCode, begun time.Time) {
	class := statusClass(status)
	if code == api.Internal {
		class = "5xx"
	}
	d.requests.WithLabelValues(operation, class).Inc()
	d.seconds.WithLabelValues(operation).Observe(time.Since(begun).Seconds())
}

// detach lets a request's handler return while its answer goes on elsewhere.
// ended logs and counts the request when the answer has ended, with how many
// bytes were sent since. Nothing of the request is held until then but its line.
func (d *door) detach(out *response, r *http.Request, operation string, begun time.Time) (ended func(bytes int64)) {
	out.detached = true
	l := lineOf(out, r, operation)
	trace := telemetry.TraceFrom(r.Context())
	return func(bytes int64) {
		l.bytes += bytes
		d.count(operation, l.status, "", begun)
		d.accessLine(telemetry.WithTrace(context.Background(), trace), l, begun)
	}
}

// answerPanic answers 500 and says whether even that failed.
func (d *door) answerPanic(out *response, r *http.Request) (failed bool) {
	defer func() { failed = recover() != nil }()
	d.answer(out, r, internalFault())
	return false
}

// line is what the log says of a request.
type line struct {
	operation, method, path string
	status                  int
	bytes                   int64
	code                    api.ErrorCode
	reason                  auth.Reason
	actor, keyID            string
	scope                   auth.Scope
}

func lineOf(out *response, r *http.Request, operation string) line {
	const longestPath = 300
	path := r.URL.EscapedPath()
	if len(path) > longestPath {
		path = path[:longestPath]
	}
	return line{
		operation: operation, method: r.Method, path: path, status: out.status, bytes: out.bytes, code: out.code, reason: out.reason,
		actor: out.caller.Actor, keyID: out.caller.KeyID, scope: out.caller.Scope,
	}
}

func (d *door) accessLine(ctx context.Context, l line, begun time.Time) {
	attrs := []slog.Attr{
		slog.String("operation", l.operation), slog.String("method", l.method), slog.String("path", l.path),
		slog.Int("status", l.status), slog.Int64("bytes", l.bytes),
		slog.Float64("latency_ms", float64(time.Since(begun).Microseconds())/1000),
	}
	if l.code != "" {
		attrs = append(attrs, slog.String("code", string(l.code)))
	}
	if l.reason != "" {
		attrs = append(attrs, slog.String("reason", string(l.reason)))
	}
	if l.keyID != "" {
		attrs = append(attrs, slog.String("actor", l.actor), slog.String("kid", l.keyID), slog.String("scope", string(l.scope)))
	}
	d.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

func statusClass(status int) string {
	switch {
	case status >= 500:
		return "5xx"
	case status >= 400:
		return "4xx"
	default:
		return "2xx"
	}
}

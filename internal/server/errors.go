package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// retryAfter is how long a caller waits when nothing better is known.
const retryAfter = "1"

// fail answers a request with an error. It is the one place where an error
// becomes an envelope.
func (d *door) fail(w http.ResponseWriter, r *http.Request, err error) {
	out, ok := w.(*response)
	if !ok {
		out = &response{ResponseWriter: w}
	}
	if left(r, err) {
		// Nobody is there to receive an answer.
		panic(http.ErrAbortHandler)
	}
	f := faultOf(err)
	var refusal *auth.Refusal
	if errors.As(err, &refusal) {
		out.reason = refusal.Reason
		d.refusals.WithLabelValues(string(refusal.Reason)).Inc()
	}
	switch f.Code {
	case api.Internal:
		d.log.ErrorContext(r.Context(), "a request failed", "error", err.Error())
	case api.Unavailable:
		d.log.WarnContext(r.Context(), "a request could not be served", "error", err.Error())
	}
	d.answer(out, r, f)
}

// unfit answers a request that the generated code could not read. The check
// against the contract comes before and says more, so this is rare.
func (d *door) unfit(w http.ResponseWriter, r *http.Request, err error) {
	d.fail(w, r, fault.New(api.InvalidRequest, "the request does not fit the contract").Because(err))
}

// answer writes the envelope, or aborts the connection when another answer has
// begun: a client must not take a part of an answer for the whole.
func (d *door) answer(out *response, r *http.Request, f *fault.Error) {
	out.code = f.Code
	if out.status != 0 {
		panic(http.ErrAbortHandler)
	}
	details := f.Details
	if details == nil {
		details = map[string]any{}
	}
	body, err := json.Marshal(api.ErrorEnvelope{Error: api.Error{
		Code: f.Code, Message: f.Message, Details: details, RequestID: telemetry.TraceFrom(r.Context()).RequestID,
	}})
	if err != nil {
		d.log.ErrorContext(r.Context(), "an error could not be told", "error", err.Error())
		panic(http.ErrAbortHandler)
	}
	// A message may quote what was sent.
	body = redact.Strings(body)
	h := out.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch f.Code {
	case api.Unavailable, api.Overloaded, api.TooManyFrames, api.OwnerBusy:
		h.Set("Retry-After", retryAfter)
	case api.MethodNotAllowed:
		if allowed, ok := f.Details["allow"].([]string); ok {
			h.Set("Allow", strings.Join(allowed, ", "))
		}
	case api.StaleCursor:
		if cursor, ok := f.Details["restartCursor"].(int64); ok {
			h.Set("X-OA-Restart-Cursor", strconv.FormatInt(cursor, 10))
		}
	}
	out.timeout = max(out.timeout, d.config.WriteTimeout)
	out.WriteHeader(f.Code.Status())
	// A client that does not take the answer has left.
	_, _ = out.Write(body)
}

// left says whether the request failed because its client is gone.
func left(r *http.Request, err error) bool {
	return errors.Is(r.Context().Err(), context.Canceled) && (errors.Is(err, context.Canceled) || unavailable(err))
}

func internalFault() *fault.Error {
	return fault.New(api.Internal, "the service failed; its log names the cause under this request id")
}

// faultOf maps any error to one with a code of the contract.
func faultOf(err error) *fault.Error {
	var (
		coded   *fault.Error
		refusal *auth.Refusal
		text    *canon.Error
	)
	switch {
	case errors.As(err, &coded) && coded.Code.Valid():
		return coded
	case errors.As(err, &refusal):
		return fault.New(refusalCode(refusal), "%s", refusal.Message).With("reason", string(refusal.Reason))
	case errors.As(err, &text):
		return fault.New(api.InvalidJSON, "the request body is not JSON as the contract has it: %s, at byte %d", text.Reason, text.Offset).
			With("pointer", text.Pointer).With("offset", text.Offset)
	case unavailable(err):
		return fault.New(api.Unavailable, "the service cannot answer at the moment; send the request again")
	}
	return internalFault()
}

func refusalCode(r *auth.Refusal) api.ErrorCode {
	switch r.Status() {
	case http.StatusForbidden:
		return api.Forbidden
	case http.StatusServiceUnavailable:
		return api.Unavailable
	default:
		return api.Unauthorized
	}
}

// unavailable says whether the same request may succeed a moment later: the
// database is out, or too much waits.
func unavailable(err error) bool {
	for _, known := range []error{
		runlog.ErrBusy, runlog.ErrLocked, runlog.ErrStopped, runlog.ErrUnknown, stream.ErrTooManyReaders, context.DeadlineExceeded,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return pg.Outage(err)
}

// Package outbound turns what a guarded call came to into what a tool says of it.
package outbound

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// The classes of errors that are not the guard's.
const (
	Rejected      = "provider_rejected"  // the provider does not take the request
	NotFound      = "not_found"          //
	Unauthorized  = "unauthorized"       // the provider does not take the secret
	Forbidden     = "forbidden"          // the secret does not reach that far
	RateLimited   = "rate_limited"       // later
	Conflict      = "provider_conflict"  // the same key came with other content
	Broken        = "provider_error"     // the provider failed
	BadAnswer     = "answer_invalid"     // the provider's answer is not as agreed
	NoSecret      = "secret_unavailable" // there is no secret to call with
	Misconfigured = "misconfigured"      //
	Unsupported   = "content_unsupported"
	InvalidInput  = "tool_input_invalid"
	Suppressed    = "suppressed_recipient"
)

// maxRetryAfter bounds how long a provider may ask to wait.
const maxRetryAfter = time.Hour

// Error is the tool's error for an error of egress.Guard.Do. writes says that the
// call changes something, so that a lost answer leaves its outcome unknown.
func Error(err error, writes bool) *tool.Error {
	var refusal *egress.Refusal
	if errors.As(err, &refusal) {
		return &tool.Error{
			Class: refusal.ReasonCode, ReasonCode: refusal.ReasonCode, Message: refusal.Message,
			Retryable: refusal.ReasonCode == egress.DNSResolutionFailed,
			// A server that answers a write with a redirect has seen it.
			Unknown: writes && refusal.Hops > 0,
		}
	}
	var failure *egress.Failure
	if errors.As(err, &failure) {
		e := &tool.Error{Class: failure.Class, Message: failure.Message, Unknown: writes && failure.Sent}
		switch failure.Class {
		case egress.FailedCanceled:
		case egress.FailedTLS:
			e.ProviderFault = true
		default:
			e.Retryable, e.ProviderFault = true, true
		}
		return e
	}
	return &tool.Error{Class: Broken, Message: "the call failed", Unknown: writes}
}

// SecretError is the tool's error for an error of secret.Store.Get.
func SecretError(err error) *tool.Error {
	e := &tool.Error{Class: NoSecret, Message: "there is no secret to call with"}
	var why *secret.Error
	if errors.As(err, &why) {
		e.Message, e.Retryable = why.Message, why.Retryable()
		switch why.Code {
		case secret.NotFound, secret.InvalidScope, secret.Misconfigured:
			e.ReasonCode = "policy_denied.authorization_missing"
		case secret.Unauthorized, secret.TransportError, secret.UpstreamError, secret.InvalidResponse:
			// The control plane failed, not the provider.
		}
	}
	return e
}

// Status is the tool's error for an answer that is not 2xx, nil for one that
// is. says is the provider's own words, and is shown.
func Status(resp egress.Response, says string, now time.Time, writes bool) *tool.Error {
	if resp.Status/100 == 2 {
		return nil
	}
	wait, asked := RetryAfter(resp.Header, now)
	e := &tool.Error{Message: "the provider answered " + strconv.Itoa(resp.Status)}
	if says != "" {
		e.Message += ": " + says
	}
	switch s := resp.Status; {
	case s == http.StatusTooManyRequests, s == http.StatusForbidden && (asked || resp.Header.Get("X-Ratelimit-Remaining") == "0"):
		e.Class, e.Retryable, e.RetryAfter = RateLimited, true, wait
	case s == http.StatusUnauthorized:
		e.Class = Unauthorized
	case s == http.StatusForbidden:
		e.Class = Forbidden
	case s == http.StatusNotFound, s == http.StatusGone:
		e.Class = NotFound
	case s == http.StatusConflict:
		e.Class = Conflict
	case s == http.StatusRequestTimeout:
		e.Class, e.Retryable, e.ProviderFault, e.Unknown = Broken, true, true, writes
	case s >= 500:
		e.Class, e.Retryable, e.ProviderFault, e.RetryAfter, e.Unknown = Broken, true, true, wait, writes
	case s >= 400:
		e.Class = Rejected
	default:
		// A redirect that was not followed, or no status of an answer.
		e.Class, e.ProviderFault, e.Unknown = BadAnswer, true, writes
	}
	return e
}

// RetryAfter is how long an answer asks to wait: Retry-After in seconds or as a
// date, else the moment that X-RateLimit-Reset names when nothing remains. asked
// says whether Retry-After was there.
func RetryAfter(h http.Header, now time.Time) (wait time.Duration, asked bool) {
	bounded := func(d time.Duration) time.Duration { return min(max(d, 0), maxRetryAfter) }
	text := h.Get("Retry-After")
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return bounded(time.Duration(n) * time.Second), true
	}
	if at, err := http.ParseTime(text); err == nil {
		return bounded(at.Sub(now)), true
	}
	if n, err := strconv.ParseInt(h.Get("X-Ratelimit-Reset"), 10, 64); err == nil && h.Get("X-Ratelimit-Remaining") == "0" {
		return bounded(time.Unix(n, 0).Sub(now)), false
	}
	return 0, false
}

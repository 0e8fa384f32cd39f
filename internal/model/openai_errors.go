package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/ssestream"
)

// ended is the error of a call whose context is over: the caller's will, the
// caller's deadline, or one of our own timeouts.
func ended(ctx, caller context.Context) *Error {
	if err := caller.Err(); err != nil {
		e := NewCanceled(err)
		if errors.Is(err, context.DeadlineExceeded) {
			e.Class, e.Retryable, e.Message = Timeout, true, "the caller's deadline passed"
		}
		return e
	}
	var late *Error
	if errors.As(context.Cause(ctx), &late) {
		e := *late
		return &e
	}
	return &Error{Class: Timeout, Retryable: true, Message: "the call's time is over"}
}

// failure says why an answer did not come to its end, and whether another
// attempt makes sense.
func (a *attempt) failure(ctx context.Context, err error) *Error {
	var (
		api    *openai.Error
		inBand *ssestream.StreamError
		e      *Error
	)
	switch {
	case ctx.Err() != nil:
		e = ended(ctx, a.caller)
		a.again = !a.sent.Load()
	case errors.Is(err, errOversize):
		e = &Error{Class: Protocol, Message: "a line or the whole answer is larger than allowed"}
	case errors.Is(err, errNotStream):
		e = &Error{Class: Protocol, Message: "the endpoint answered with a document in place of an event stream"}
	case a.status >= 300:
		detail := upstream{}
		if errors.As(err, &api) {
			detail = upstream{Code: api.Code, Type: api.Type, Message: api.Message}
		}
		e = a.refusal(a.status, detail)
		e.RetryAfter = retryAfter(a.header, time.Now())
		a.again = true
	case errors.As(err, &inBand):
		detail, status := parseInBand(inBand.Event.Data)
		e = a.refusal(status, detail)
		e.Message = "in the middle of the stream, " + e.Message
		e.MaybeBilled, a.again = true, true
	case err == nil && a.finish == FinishError:
		e = &Error{Class: Unavailable, Retryable: true, Message: "the provider ended the answer with an error"}
		a.again = true
	case err == nil:
		e = &Error{Class: Protocol, Retryable: true, Message: "the stream ended without a finish reason"}
		a.again = true
	case isJSON(err):
		e = &Error{Class: Protocol, Retryable: true, Message: "a chunk of the stream is not valid JSON"}
	default:
		e = &Error{Class: Unavailable, Retryable: true, Message: "the connection failed"}
		if a.status != 0 {
			e.Message = "the connection broke before the answer was complete"
		}
		a.again = true
	}
	if e.Status == 0 {
		e.Status = a.status
	}
	// A request that was refused with a status is not charged; one that was sent
	// and then lost may be.
	if a.status < 300 && a.sent.Load() {
		e.MaybeBilled = true
	}
	return e
}

func isJSON(err error) bool {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	return errors.As(err, &syntax) || errors.As(err, &typ)
}

// upstream is a provider's own account of an error. Only Code and Type are ever
// shown; Message may quote the prompt or the key.
type upstream struct{ Code, Type, Message string }

// parseInBand reads an error object out of a chunk. Its code is a status at
// OpenRouter and a word elsewhere.
func parseInBand(data []byte) (upstream, int) {
	var body struct {
		Error json.RawMessage `json:"error"`
	}
	var object struct {
		Code    any    `json:"code"`
		Type    string `json:"type"`
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &body) != nil || json.Unmarshal(body.Error, &object) != nil {
		return upstream{}, 0
	}
	u := upstream{Type: object.Type, Message: object.Message}
	switch c := object.Code.(type) {
	case float64:
		return u, int(c)
	case string:
		u.Code = c
		if n, err := strconv.Atoi(c); err == nil {
			return u, n
		}
	}
	return u, 0
}

// refusal turns a status (0 when none was told) and the provider's account into
// an error.
func (a *attempt) refusal(status int, u upstream) *Error {
	e := &Error{Class: Unavailable, Retryable: true, Status: status}
	words := strings.ToLower(u.Code + " " + u.Type + " " + u.Message)
	has := func(any ...string) bool {
		for _, s := range any {
			if strings.Contains(words, s) {
				return true
			}
		}
		return false
	}
	clientError := status >= 400 && status < 500 || status == 0
	switch {
	case clientError && has("context_length", "context length", "context window", "context size", "exceed_context"):
		e.Class, e.Retryable = ContextWindow, false
	case status == http.StatusTooManyRequests && has("insufficient_quota"), status == http.StatusPaymentRequired:
		e.Class, e.Retryable = RateLimited, false
	case status == http.StatusTooManyRequests, status == 0 && has("rate_limit", "rate limit"):
		e.Class = RateLimited
	case clientError && has("content_filter", "content_policy", "moderation"):
		e.Class, e.Retryable = ContentFilter, false
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		e.Class, e.Retryable = Auth, false
	case status == http.StatusRequestTimeout:
		e.Class = Timeout
	case status == http.StatusConflict, status == http.StatusTooEarly:
	case status >= 400 && status < 500, status == http.StatusNotImplemented:
		e.Class, e.Retryable = InvalidRequest, false
	case status >= 300 && status < 400:
		e.Class, e.Retryable = Protocol, false
	}
	// A gateway may lose an answer that the model behind it has given.
	e.MaybeBilled = status == 500 || status == 502 || status == 504
	e.Message = "the provider reported an error"
	if status != 0 {
		e.Message = fmt.Sprintf("the provider answered %d", status)
	}
	for _, word := range []string{u.Code, u.Type} {
		if a.shown(word) {
			e.Message += " (" + word + ")"
			break
		}
	}
	return e
}

// shown says whether a provider's word is a mere identifier, fit for a message.
func (a *attempt) shown(word string) bool {
	if word == "" || len(word) > 48 || a.o.cfg.APIKey != "" && strings.Contains(word, a.o.cfg.APIKey) {
		return false
	}
	if _, err := strconv.Atoi(word); err == nil {
		return false
	}
	return strings.Trim(word, "abcdefghijklmnopqrstuvwxyz_.") == ""
}

// retryAfter reads how long a provider asks to wait.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		return seconds(ms / 1000)
	}
	v := h.Get("Retry-After")
	if s, err := strconv.ParseFloat(v, 64); err == nil && s > 0 {
		return seconds(s)
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

func seconds(s float64) time.Duration {
	const most = 24 * 60 * 60
	return time.Duration(min(s, most) * float64(time.Second))
}

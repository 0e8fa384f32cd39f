package model

import (
	"errors"
	"fmt"
	"time"
)

// Class is what went wrong, as far as a caller can act on it.
type Class string

// The classes of an Error.
const (
	// RateLimited: asked too often, or the account's quota is used up. Only the
	// first is retryable.
	RateLimited Class = "rate_limited"
	// Unavailable: not reached, or the provider failed.
	Unavailable Class = "unavailable"
	// Timeout: one of the timeouts passed.
	Timeout Class = "timeout"
	// ContextWindow: the request is longer than the model can be shown.
	ContextWindow Class = "context_window"
	// InvalidRequest: the request cannot be answered as it is.
	InvalidRequest Class = "invalid_request"
	// Auth: the key is missing, wrong or not allowed to do this.
	Auth Class = "auth"
	// ContentFilter: the provider refuses the content.
	ContentFilter Class = "content_filter"
	// Protocol: the answer is not what the protocol promises.
	Protocol Class = "protocol"
	// Canceled: the caller's context ended.
	Canceled Class = "canceled"
)

// Error says why a call failed. Its text holds neither the key nor anything of
// the prompt or the provider's own prose.
type Error struct {
	Class Class
	// Retryable is true when the same request may succeed later.
	Retryable bool
	// MaybeBilled is true when the provider may charge for the failed call.
	MaybeBilled bool
	// Status is the HTTP status, 0 when there was none.
	Status int
	// RetryAfter is how long the provider asked to wait, 0 when it did not.
	RetryAfter time.Duration
	Message    string

	cause error
}

func (e *Error) Error() string {
	return fmt.Sprintf("model call: %s: %s", e.Class, e.Message)
}

// Unwrap gives the context's error for a canceled call and for one that ran
// into the caller's own deadline.
func (e *Error) Unwrap() error { return e.cause }

// ClassOf gives the class of a call's error, "" when err is not a *Error.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

// NewCanceled is the error of a call whose context ended with cause.
func NewCanceled(cause error) *Error {
	return &Error{Class: Canceled, Message: "the caller stopped the call", cause: cause}
}

// Package fault carries errors that a caller can act on, each with a code of the contract.
package fault

import (
	"errors"
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

// Error is an error with a code of the contract. Its message is for the
// caller and names what to change; it never holds a secret or another
// caller's data.
type Error struct {
	Code    api.ErrorCode
	Message string
	// Details are facts for programs; the contract says which for which code.
	Details map[string]any
	cause   error
}

// New makes an error of a code.
func New(code api.ErrorCode, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// With adds a fact for programs.
func (e *Error) With(name string, value any) *Error {
	if e.Details == nil {
		e.Details = map[string]any{}
	}
	e.Details[name] = value
	return e
}

// Because keeps the cause for the log; the caller never sees it.
func (e *Error) Because(cause error) *Error {
	e.cause = cause
	return e
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.cause }

// Is says whether err carries the code.
func Is(err error, code api.ErrorCode) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

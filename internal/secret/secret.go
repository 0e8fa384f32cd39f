// Package secret answers what a tool needs to prove who it acts for.
//
// Nobody hands a secret in: a tool names a provider, and the control plane or
// the service's configuration gives the secret for that one call.
package secret

import (
	"fmt"
	"log/slog"
)

// Hidden stands where a secret would be printed.
const Hidden = "[secret]"

// Value is a secret. Printing, logging and encoding it show Hidden.
type Value struct{ text string }

// Reveal is the secret itself, for the header that carries it.
func (v Value) Reveal() string { return v.text }

func (v Value) String() string       { return Hidden }
func (v Value) LogValue() slog.Value { return slog.StringValue(Hidden) }

// Format keeps the secret out of every verb, %#v included.
func (v Value) Format(f fmt.State, _ rune) { fmt.Fprint(f, Hidden) }

// MarshalText keeps the secret out of encoders.
func (v Value) MarshalText() ([]byte, error) { return []byte(Hidden), nil }

// Scope is what a secret is for. A secret that was fetched for one scope is
// never given for another.
type Scope struct {
	Provider      string // github, email
	IntegrationID string // which of the user's integrations; may be empty
	UserID        int64  // 0 for a guest
	RunID         string
	ToolCallID    string
	OrgID         string // may be empty
}

// Code says for programs why there is no secret.
type Code string

// The codes of an Error.
const (
	InvalidScope    Code = "invalid_scope"    // the scope names too little
	Misconfigured   Code = "misconfigured"    // nobody is configured to be asked
	NotFound        Code = "secret_not_found" // there is none, or it was revoked
	Unauthorized    Code = "unauthorized"     // the control plane does not take our signature
	TransportError  Code = "transport_error"  // the control plane was not reached
	UpstreamError   Code = "upstream_error"   // the control plane failed
	InvalidResponse Code = "invalid_response" // the control plane answered something else
)

// Error says why there is no secret. It holds none.
type Error struct {
	Code    Code
	Message string
	Err     error
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }
func (e *Error) Unwrap() error { return e.Err }

// Retryable says that asking again may help.
func (e *Error) Retryable() bool { return e.Code == TransportError || e.Code == UpstreamError }

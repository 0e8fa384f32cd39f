// Package tool makes one call of a tool: task, deadline, receipt.
package tool

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Kind says who carries a tool out.
type Kind string

// The kinds of a tool.
const (
	Runtime Kind = "runtime" // this process
	MCP     Kind = "mcp"     // a server that speaks MCP, asked by this process
	Client  Kind = "client"  // the caller of the API; the result comes as a frame
)

// Boundary says what may happen when the outcome of a call is not known.
type Boundary string

// The settlement boundaries.
const (
	// SafeRetry lets the call be made again under the same idempotency key.
	SafeRetry Boundary = "safe_retry"
	// Reconcile forbids it until the provider was asked.
	Reconcile Boundary = "dedupe_reconcile_required"
)

// Spec is what a tool says of itself.
type Spec struct {
	Name        string // such as http.fetch
	Title       string // for people
	Description string // the model reads it
	Kind        Kind
	// Provider is whom the tool asks: limits and the circuit breaker are per
	// provider.
	Provider string
	// Groups are what lists of tools may name instead of the tool.
	Groups []string
	// Input and Output are JSON Schemas 2020-12; Input is one of an object.
	// Output may be nil.
	Input, Output json.RawMessage
	Boundary      Boundary
	// Writes says whether a call changes something outside.
	Writes bool
	// Price is what a call costs; nil is nothing.
	Price *Price
	// NeedsApproval says that a person must approve each call, whatever the
	// run's policy says.
	NeedsApproval bool
	// Timeout bounds one attempt.
	Timeout time.Duration
	// MaxOutput bounds the stored output, in bytes; 0 is the default.
	MaxOutput int
	// Parallel bounds how many calls this process makes at once; 0 has no bound
	// but the process's.
	Parallel int
	// Fallback names the tool that is asked when this one's provider fails.
	Fallback string
}

// Call is one call of a tool.
type Call struct {
	RunKey     uuid.UUID
	RunID      string
	ThreadID   string
	Owner      string // user:<id> or guest:<scope>
	UserID     int64  // 0 for a guest
	ToolCallID string
	Tool       string
	// Input satisfies the tool's schema.
	Input json.RawMessage
	// IdempotencyKey is the same for every attempt at the same call.
	IdempotencyKey string
	// Attempt counts from 1 over all processes that worked at the call.
	Attempt int
	// MayFallBack says that policy lets the tool's Fallback be asked in its stead.
	MayFallBack bool
	// Ask asks a person in the middle of the call and waits for the answer, which
	// does not count as the tool's time. Nil: nobody can be asked. Only tools whose
	// kind is MCP may ask.
	Ask func(context.Context, Question) (Answer, error)
	// Purse is where a tool with a quoted price gets money; nil for the others.
	Purse Purse
}

// Question is what a tool wants to know of a person.
type Question struct {
	Message string          // for people
	Schema  json.RawMessage // of what they fill in, an object; nil wants a yes or no
	// Number counts the questions of an attempt from 0; whoever makes the attempt
	// sets it.
	Number int
	// For is how long the person has at the most; 0 leaves it to policy.
	For time.Duration
}

// Answer is what came of a question.
type Answer struct {
	// Decided says that a person decided; without it nobody did in time, or the
	// question was taken back.
	Decided  bool
	Approved bool
	// Content is an object that satisfies the question's schema; nil when there was
	// none, or it is not approved.
	Content json.RawMessage
}

// Result is what a call came to.
type Result struct {
	// Output is JSON; nil is null.
	Output json.RawMessage
	// CorrelationID is the provider's name for the call.
	CorrelationID string
	// Paid says that it is known what the call has spent, and PaidSats how much that
	// was, fees included, rounded up; 0 is nothing. It holds beside an error too: a
	// call can fail after it has paid, and then the money is gone whatever the error
	// says. Without it a call with a hold that succeeds has spent the hold, one whose
	// error is Unknown may have spent it, and one with any other error has spent
	// nothing.
	Paid     bool
	PaidSats int64
	// Proof is a JSON object that proves the payment, such as its preimage. It is
	// stored with the reservation, and shown nowhere.
	Proof json.RawMessage
}

// Tool carries calls out.
type Tool interface {
	Spec() Spec
	// Run makes one attempt. progress, which is never nil, shows what there is so
	// far. It must return soon after ctx has ended. An error that is not a
	// *Error counts as failed, not retryable.
	Run(ctx context.Context, call Call, progress func(json.RawMessage) error) (Result, error)
}

// Reconciler is a tool that can find out what became of an earlier attempt.
type Reconciler interface {
	// Reconcile asks the provider. known is false when it cannot tell.
	Reconcile(ctx context.Context, call Call) (result Result, known bool, err error)
}

// Error says why a call failed. Message is for the model and for people and
// holds no secret.
type Error struct {
	// Class is for programs, such as provider_error or ssrf_block.private_address.
	Class string
	// ReasonCode is of the taxonomy; empty is tool_failed.provider_error.
	ReasonCode string
	Message    string
	// Retryable says that the same call may succeed later.
	Retryable bool
	// Unknown says that the call may have had its effect.
	Unknown bool
	// ProviderFault says that it counts against the provider's circuit breaker.
	ProviderFault bool
	// RetryAfter is how long the provider asked to wait.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Class + ": " + e.Message }

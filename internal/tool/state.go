package tool

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// The states of a task. The last four are terminal: nothing leaves them.
const (
	Queued          = "queued"
	Running         = "running"
	StreamingOutput = "streaming_output"
	Succeeded       = "succeeded"
	Failed          = "failed"
	Canceled        = "canceled"
	TimedOut        = "timed_out"
)

// Terminal says whether a task's state is final.
func Terminal(state string) bool {
	switch state {
	case Succeeded, Failed, Canceled, TimedOut:
		return true
	}
	return false
}

var (
	begun = []string{Running, StreamingOutput}
	open  = []string{Queued, Running, StreamingOutput}
)

// The classes of errors that this room makes. Those of the tools are their own.
const (
	ClassInput          = "tool_input_invalid"
	ClassNotFound       = "tool_not_found"
	ClassOutput         = "output_invalid"
	ClassTimeout        = "timeout"
	ClassCanceled       = "canceled"
	ClassPanic          = "panic"
	ClassFailed         = "failed"
	ClassCircuitOpen    = "circuit_open"
	ClassOutcomeUnknown = "outcome_unknown"
	ClassInputRedacted  = "input_redacted"
	ClassClient         = "client_error"
	ClassRunEnded       = "run_ended"
)

// The taxonomy's codes for calls that were let through and failed.
const (
	reasonProvider = "tool_failed.provider_error"
	reasonCircuit  = "tool_failed.provider_circuit_open"
	reasonUnknown  = "settlement.unknown_outcome"
)

// Outcome is how a call ended.
type Outcome struct {
	State string
	// Output is redacted and bounded; nil when there is none.
	Output json.RawMessage
	// OutputHash is the digest of the whole; empty when there is no output.
	OutputHash string
	Truncated  bool
	Err        *Error // nil exactly when State is Succeeded
	// CorrelationID is the provider's name for the call.
	CorrelationID string
	// Paid, PaidSats and Proof are those of the Result, whatever State is.
	Paid     bool
	PaidSats int64
	Proof    json.RawMessage
	// Provider is who carried it out, PrimaryProvider who should have when that
	// was another, and FallbackReason the class of the failure that led to it.
	Provider, PrimaryProvider, FallbackReason string
	// FrameID is the frame that brought a client tool's result.
	FrameID string
	Latency time.Duration
	// Attempts is how many were made here; 0 for an end without one.
	Attempts int
}

// Ended is the outcome of a task that ends without a result.
func Ended(t db.ToolTask, state string, err *Error) Outcome {
	return Outcome{State: state, Err: err, Provider: deref(t.Provider), Latency: age(t)}
}

// age is how long a task has been at work, by this process's clock.
func age(t db.ToolTask) time.Duration {
	if t.RunningAt == nil {
		return 0
	}
	return max(0, time.Since(*t.RunningAt))
}

// Cause is what to cancel the context of a call with, so that its outcome says
// why: context.WithCancelCause.
func Cause(class, message string) error { return &Error{Class: class, Message: message} }

// ended says why a context has ended, as the state and the error of a call.
func ended(ctx context.Context) (string, *Error) {
	cause := context.Cause(ctx)
	var told *Error
	if errors.As(cause, &told) {
		e := *told
		if e.Class == ClassTimeout {
			return TimedOut, &e
		}
		return Canceled, &e
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return TimedOut, &Error{Class: ClassTimeout, Message: "The call was not over at its deadline."}
	}
	return Canceled, &Error{Class: ClassCanceled, Message: "The call was canceled."}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

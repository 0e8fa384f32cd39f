// Package model makes one call of a language model.
package model

import (
	"context"
	"encoding/json"
)

// Role says who speaks in a message.
type Role string

// The roles of a message.
const (
	RoleSystem    Role = "system"
	RoleUser      Role = "user"
	RoleAssistant Role = "assistant"
	RoleTool      Role = "tool"
)

// Message is one turn of the conversation that a model is shown.
type Message struct {
	Role    Role
	Content string
	// ToolCalls are the calls that an assistant message asked for.
	ToolCalls []ToolCall
	// ToolCallID names the call that a tool message answers.
	ToolCallID string
}

// Tool is something that the model may ask for.
type Tool struct {
	Name        string
	Description string
	// Parameters is a JSON Schema of an object; nil takes no arguments.
	Parameters json.RawMessage
}

// ToolCall is a complete request for a tool. Arguments is always one valid JSON
// object; whether it satisfies the tool's schema is for the caller to check.
type ToolCall struct {
	ID        string
	Name      string
	Arguments json.RawMessage
}

// Request is what a model is asked.
type Request struct {
	Messages []Message
	Tools    []Tool
	// Schema is the JSON Schema of the wanted output; nil asks for text.
	Schema json.RawMessage
	// MaxOutputTokens bounds the answer; 0 leaves it to the model.
	MaxOutputTokens int
	// Temperature is left to the model when nil.
	Temperature *float64
	// IdempotencyKey is the same for every attempt at the same call.
	IdempotencyKey string
}

// EventKind says which field of an Event is set.
type EventKind string

// The kinds of an Event.
const (
	TextDelta      EventKind = "text"
	ReasoningDelta EventKind = "reasoning"
	CallsTool      EventKind = "tool_call"
)

// Event is one thing a model said, in the order it was said.
type Event struct {
	Kind EventKind
	// Delta is set for text and reasoning, and never empty then.
	Delta string
	// ToolCall is set for a tool call; calls arrive whole.
	ToolCall *ToolCall
}

// FinishReason says why a model stopped; the values are those of the stream.
type FinishReason string

// The reasons to stop.
const (
	FinishStop          FinishReason = "stop"
	FinishLength        FinishReason = "length"
	FinishToolCalls     FinishReason = "tool-calls"
	FinishContentFilter FinishReason = "content-filter"
	FinishError         FinishReason = "error"
	FinishOther         FinishReason = "other"
)

// Usage counts tokens. The counts are zero when Told is false.
type Usage struct {
	Told         bool
	InputTokens  int64
	OutputTokens int64
	TotalTokens  int64
	// ReasoningTokens and CachedTokens are parts of output and input; nil when
	// the provider does not tell them.
	ReasoningTokens *int64
	CachedTokens    *int64
}

// Result is what a call came to. A call that failed has one too: what was said
// until then, and what it may have cost.
type Result struct {
	Text         string
	Reasoning    string
	ToolCalls    []ToolCall
	FinishReason FinishReason
	Usage        Usage

	Provider       string
	RequestedModel string
	// ServedModel is the model that the provider says it used, empty when it
	// does not say.
	ServedModel string
	// ProviderRequestID is the provider's name for the call, for its support
	// and for finding out what was charged.
	ProviderRequestID string

	// MaybeBilled is true when the provider may charge for more than Usage
	// shows: an attempt was lost after it was sent, or usage was not told.
	MaybeBilled bool
	// Attempts counts requests sent, the successful one included.
	Attempts int
}

// Info says what a model is.
type Info struct {
	Provider string
	Model    string
	// ContextTokens is how much the model can be shown; 0 when not known.
	ContextTokens int
}

// Model answers requests.
type Model interface {
	// Stream asks once and hands what is said to emit, in order, from the
	// calling goroutine. An error of emit ends the call and is returned wrapped;
	// every other error is a *Error.
	Stream(ctx context.Context, req Request, emit func(Event) error) (Result, error)
	Info() Info
}

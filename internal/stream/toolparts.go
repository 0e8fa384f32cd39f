package stream

import (
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// A call that the model asked for is a tool part of the message. One that the
// caller of the API asked for is none of the message's: it comes at any moment,
// also within a step that is taken back, and clients refuse an output whose
// input they no longer have. It is told in data-tool parts under its id.

func toolInput(b []byte, ev event.Event) ([]byte, error) {
	e, ok := ev.(event.ToolRequestedV1)
	if !ok {
		return b, noPart(ev)
	}
	input, err := canon.Marshal(e.Input)
	if err != nil {
		return b, err
	}
	if e.RequestedBy == event.ToolRequestedV1RequestedByAPI {
		return dataTool(b, e.ToolCallID, field{"toolName", e.ToolName}, field{"state", "input-available"}, field{"input", raw(input)}), nil
	}
	fields := []field{{"toolCallId", e.ToolCallID}, {"toolName", e.ToolName}, {"input", raw(input)}, {"dynamic", true}}
	if e.Kind != event.ToolRequestedV1KindClient {
		// A client calls what nobody else executes.
		fields = append(fields, field{"providerExecuted", true})
	}
	return appendFields(b, "tool-input-available", fields...), nil
}

func toolProgress(b []byte, ev event.Event) ([]byte, error) {
	e, ok := ev.(event.ToolProgressedV1)
	if !ok {
		return b, noPart(ev)
	}
	output, err := canon.Marshal(e.Output)
	if err != nil {
		return b, err
	}
	if is(e.RequestedBy, event.ToolProgressedV1RequestedByAPI) {
		return dataTool(b, e.ToolCallID, field{"state", "output-available"}, field{"output", raw(output)}, field{"preliminary", true}), nil
	}
	return appendFields(b, "tool-output-available", field{"toolCallId", e.ToolCallID}, field{"output", raw(output)},
		field{"dynamic", true}, field{"preliminary", true}), nil
}

// toolOutput tells how a call ended; denied says whether a person's no has a
// part of its own.
func toolOutput(denied bool) render {
	return func(b []byte, ev event.Event) ([]byte, error) {
		e, ok := ev.(event.ToolFinishedV1)
		if !ok {
			return b, noPart(ev)
		}
		output, err := canon.Marshal(e.Output)
		if err != nil {
			return b, err
		}
		rejected := e.ErrorClass != nil && *e.ErrorClass == approvalRejected
		if is(e.RequestedBy, event.ToolFinishedV1RequestedByAPI) {
			return apiToolOutput(b, e, output, rejected), nil
		}
		id := field{"toolCallId", e.ToolCallID}
		switch {
		case e.State == event.ToolFinishedV1StateSucceeded:
			return appendFields(b, "tool-output-available", id, field{"output", raw(output)}, field{"dynamic", true}), nil
		case denied && rejected:
			return appendFields(b, "tool-output-denied", id), nil
		default:
			return appendFields(b, "tool-output-error", id, field{"errorText", toolErrorText(e)}, field{"dynamic", true}), nil
		}
	}
}

// approvalRejected is the error class of a call that a person refused.
const approvalRejected = "approval_rejected"

func apiToolOutput(b []byte, e event.ToolFinishedV1, output []byte, rejected bool) []byte {
	name := field{"toolName", e.ToolName}
	switch {
	case e.State == event.ToolFinishedV1StateSucceeded:
		return dataTool(b, e.ToolCallID, name, field{"state", "output-available"}, field{"output", raw(output)})
	case rejected:
		return dataTool(b, e.ToolCallID, name, field{"state", "output-denied"})
	default:
		return dataTool(b, e.ToolCallID, name, field{"state", "output-error"}, field{"errorText", toolErrorText(e)})
	}
}

func toolErrorText(e event.ToolFinishedV1) string {
	switch {
	case e.ErrorMessage != nil && *e.ErrorMessage != "":
		return *e.ErrorMessage
	case e.State == event.ToolFinishedV1StateCanceled:
		return "The tool call was canceled."
	case e.State == event.ToolFinishedV1StateTimedOut:
		return "The tool call took too long."
	case e.ErrorClass != nil:
		return fmt.Sprintf("The tool call failed: %s.", *e.ErrorClass)
	default:
		return "The tool call failed."
	}
}

// approvalRequest asks about a tool part where there is one.
func approvalRequest(b []byte, e event.ApprovalRequestedV1) []byte {
	if e.ToolCallID == nil || is(e.RequestedBy, event.ApprovalRequestedV1RequestedByAPI) {
		return dataApprovalRequest(b, e)
	}
	return appendFields(b, "tool-approval-request", field{"approvalId", e.ApprovalID}, field{"toolCallId", *e.ToolCallID})
}

func dataApprovalRequest(b []byte, e event.ApprovalRequestedV1) []byte {
	fields := []field{{"approvalId", e.ApprovalID}, {"kind", string(e.Kind)}}
	if e.ToolCallID != nil {
		fields = append(fields, field{"toolCallId", *e.ToolCallID})
	}
	return dataPart(b, "data-approval", e.ApprovalID, append(fields,
		field{"title", e.Title}, field{"decider", string(e.Decider)}, field{"argsHash", e.ArgsHash}, field{"policyHash", e.PolicyHash},
		field{"expiresAt", e.ExpiresAt.UTC().Format(time.RFC3339Nano)}, field{"state", "pending"})...)
}

// approvalResponse tells a person's answer to the tool part that asked. That
// nobody answered is no answer.
func approvalResponse(b []byte, e event.ApprovalDecidedV1) []byte {
	answered := e.State == event.ApprovalDecidedV1StateApproved || e.State == event.ApprovalDecidedV1StateRejected
	if e.ToolCallID == nil || !answered || is(e.RequestedBy, event.ApprovalDecidedV1RequestedByAPI) {
		return dataApprovalDecision(b, e)
	}
	fields := []field{{"approvalId", e.ApprovalID}, {"approved", e.State == event.ApprovalDecidedV1StateApproved}}
	if e.Reason != nil {
		fields = append(fields, field{"reason", *e.Reason})
	}
	return appendFields(b, "tool-approval-response", fields...)
}

func dataApprovalDecision(b []byte, e event.ApprovalDecidedV1) []byte {
	fields := []field{{"approvalId", e.ApprovalID}}
	if e.ToolCallID != nil {
		fields = append(fields, field{"toolCallId", *e.ToolCallID})
	}
	fields = append(fields, field{"state", string(e.State)})
	if e.Reason != nil {
		fields = append(fields, field{"reason", *e.Reason})
	}
	return dataPart(b, "data-approval", e.ApprovalID, fields...)
}

func dataTool(b []byte, callID string, fields ...field) []byte {
	return dataPart(b, "data-tool", callID, append([]field{{"toolCallId", callID}}, fields...)...)
}

// is says whether p points to v.
func is[T comparable](p *T, v T) bool { return p != nil && *p == v }

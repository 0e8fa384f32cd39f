package stream

import (
	"fmt"
	"strconv"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

func appendPart(b []byte, row db.RunLog, d Dialect) ([]byte, error) {
	b, err := appendData(b, row, d)
	if err != nil {
		return b, fmt.Errorf("event %d: %w", row.Seq, err)
	}
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, row.Seq, 10)
	return append(b, "\n\n"...), nil
}

func appendData(b []byte, row db.RunLog, d Dialect) ([]byte, error) {
	if row.EventType == event.TypeMessageDelta && row.EventVersion == 1 {
		if text, id, ok := runlog.DeltaLiterals(row.Payload); ok {
			return appendDelta(b, "text-delta", id, text), nil
		}
	}
	e, err := runlog.Decode(row)
	if err != nil {
		return b, err
	}
	part := renderOf(row.EventType, d)
	if part == nil {
		return b, noPart(e)
	}
	return part(b, e)
}

func hidden[E event.Event](b []byte, _ E) []byte { return b }

func start(b []byte, e event.RunStartedV1) []byte {
	return appendMembers(b, "start", member{"messageId", e.MessageID})
}

func startStep(b []byte, _ event.RunStepStartedV1) []byte { return appendMembers(b, "start-step") }

// startStepOnce leaves out the start of a further attempt: reset-step has
// emptied the step and left it open.
func startStepOnce(b []byte, e event.RunStepStartedV1) []byte {
	if e.Attempt > 1 {
		return b
	}
	return startStep(b, e)
}

func finishStep(b []byte, _ event.RunStepFinishedV1) []byte { return appendMembers(b, "finish-step") }

func textStart(b []byte, e event.MessageStartedV1) []byte {
	return appendMembers(b, "text-start", member{"id", e.PartID})
}

func textDelta(b []byte, e event.MessageDeltaV1) []byte {
	return appendMembers(b, "text-delta", member{"id", e.PartID}, member{"delta", e.Delta})
}

func textEnd(b []byte, e event.MessageFinishedV1) []byte {
	return appendMembers(b, "text-end", member{"id", e.PartID})
}

func textCut(b []byte, e event.MessageDiscardedV1) []byte {
	return appendMembers(b, "text-end", member{"id", e.PartID})
}

func reasoningStart(b []byte, e event.ReasoningStartedV1) []byte {
	return appendMembers(b, "reasoning-start", member{"id", e.PartID})
}

func reasoningDelta(b []byte, e event.ReasoningDeltaV1) []byte {
	return appendMembers(b, "reasoning-delta", member{"id", e.PartID}, member{"delta", e.Delta})
}

func reasoningEnd(b []byte, e event.ReasoningFinishedV1) []byte {
	return appendMembers(b, "reasoning-end", member{"id", e.PartID})
}

// dataDiscard tells what is taken back to clients that take nothing back.
func dataDiscard(b []byte, e event.StepDiscardedV1) []byte {
	b = append(b, `data: {"type":"data-discard","data":{`...)
	return append(appendRange(b, e), "}}\n"...)
}

// resetStep makes the client take the step's parts back. The range stands in
// the part itself: an event has one part, and every release that knows
// reset-step lets further members pass.
func resetStep(b []byte, e event.StepDiscardedV1) []byte {
	b = append(b, `data: {"type":"reset-step",`...)
	return append(appendRange(b, e), "}\n"...)
}

func appendRange(b []byte, e event.StepDiscardedV1) []byte {
	b = append(b, `"fromSeq":`...)
	b = strconv.AppendInt(b, e.FromSeq, 10)
	b = append(b, `,"toSeq":`...)
	return strconv.AppendInt(b, e.ToSeq, 10)
}

// finish says how the run ended in the client's words; its finishReason has no
// value for a failure or a cancel.
func finish(b []byte, ended event.Event) ([]byte, error) {
	e, ok := ended.(event.RunFinishedV1)
	if !ok {
		return b, noPart(ended)
	}
	switch e.Status {
	case event.RunFinishedV1StatusCompleted:
		if e.FinishReason == nil {
			return appendMembers(b, "finish"), nil
		}
		return appendMembers(b, "finish", member{"finishReason", string(*e.FinishReason)}), nil
	case event.RunFinishedV1StatusFailed:
		text := e.Reason
		if text == "" {
			text = "The run failed: " + e.ReasonClass + "."
		}
		return appendMembers(b, "error", member{"errorText", text}), nil
	case event.RunFinishedV1StatusCanceled:
		return appendMembers(b, "abort"), nil
	default:
		return b, fmt.Errorf("a run does not end %q", e.Status)
	}
}

func theEnd(b []byte, _ event.StreamClosedV1) []byte { return append(b, "data: [DONE]\n"...) }

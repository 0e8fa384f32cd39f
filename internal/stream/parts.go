package stream

import (
	"fmt"
	"strconv"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Part is the block of one event: a data line with the part that clients of the
// AI SDK 5, 6 and 7 accept, then the id line with the event's seq. An event that
// clients do not show gives the id line alone, which moves their cursor. The
// bytes depend on the event only. An event that this program does not know is
// an error, because a client that was sent past it would never get it.
func Part(row db.RunLog) ([]byte, error) { return appendPart(nil, row) }

func appendPart(b []byte, row db.RunLog) ([]byte, error) {
	b, err := appendData(b, row)
	if err != nil {
		return b, err
	}
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, row.Seq, 10)
	return append(b, "\n\n"...), nil
}

func appendData(b []byte, row db.RunLog) ([]byte, error) {
	if row.EventType == event.TypeMessageDelta && row.EventVersion == 1 {
		if text, id, ok := runlog.DeltaLiterals(row.Payload); ok {
			return appendDelta(b, "text-delta", id, text), nil
		}
	}
	e, err := runlog.Decode(row)
	if err != nil {
		return b, err
	}
	switch e := e.(type) {
	case event.RunStartedV1:
		return appendMembers(b, "start", member{"messageId", e.MessageID}), nil
	case event.RunStepStartedV1:
		return appendMembers(b, "start-step"), nil
	case event.MessageStartedV1:
		return appendMembers(b, "text-start", member{"id", e.PartID}), nil
	case event.MessageDeltaV1:
		return appendMembers(b, "text-delta", member{"id", e.PartID}, member{"delta", e.Delta}), nil
	case event.MessageFinishedV1:
		return appendMembers(b, "text-end", member{"id", e.PartID}), nil
	case event.MessageDiscardedV1:
		return appendMembers(b, "text-end", member{"id", e.PartID}), nil
	case event.ReasoningStartedV1:
		return appendMembers(b, "reasoning-start", member{"id", e.PartID}), nil
	case event.ReasoningDeltaV1:
		return appendMembers(b, "reasoning-delta", member{"id", e.PartID}, member{"delta", e.Delta}), nil
	case event.ReasoningFinishedV1:
		return appendMembers(b, "reasoning-end", member{"id", e.PartID}), nil
	case event.RunStepFinishedV1:
		return appendMembers(b, "finish-step"), nil
	case event.StepDiscardedV1:
		return appendDiscard(b, e), nil
	case event.RunFinishedV1:
		return appendFinish(b, e)
	case event.StreamClosedV1:
		return append(b, "data: [DONE]\n"...), nil
	case event.RunAcceptedV1, event.FrameAppendedV1, event.FrameFinishedV1, event.PredictFinishedV1,
		event.RunWaitingV1, event.RunWokenV1, event.RunLoopDetectedV1, event.RunCancelRequestedV1, event.RunExecutorLostV1, event.RunRecoveredV1:
		return b, nil
	default:
		return b, fmt.Errorf("event %d: no part is known for %s version %d", row.Seq, row.EventType, row.EventVersion)
	}
}

// appendFinish says how the run ended in the client's words; its finishReason
// has no value for a failure or a cancel.
func appendFinish(b []byte, e event.RunFinishedV1) ([]byte, error) {
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

func appendDiscard(b []byte, e event.StepDiscardedV1) []byte {
	b = append(b, `data: {"type":"data-discard","data":{"fromSeq":`...)
	b = strconv.AppendInt(b, e.FromSeq, 10)
	b = append(b, `,"toSeq":`...)
	b = strconv.AppendInt(b, e.ToSeq, 10)
	return append(b, "}}\n"...)
}

// member is one string member of a part.
type member struct{ name, value string }

// appendMembers writes a part whose members are strings, in the order given.
func appendMembers(b []byte, partType string, members ...member) []byte {
	b = append(b, `data: {"type":"`...)
	b = append(b, partType...)
	for _, m := range members {
		b = append(b, `","`...)
		b = append(b, m.name...)
		b = append(b, `":"`...)
		b = appendEscaped(b, m.value)
	}
	return append(b, "\"}\n"...)
}

// appendDelta is appendMembers for values that are JSON already.
func appendDelta(b []byte, partType string, id, delta []byte) []byte {
	b = append(b, `data: {"type":"`...)
	b = append(b, partType...)
	b = append(b, `","id":"`...)
	b = appendLiteral(b, id)
	b = append(b, `","delta":"`...)
	b = appendLiteral(b, delta)
	return append(b, "\"}\n"...)
}

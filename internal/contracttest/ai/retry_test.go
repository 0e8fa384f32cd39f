package ai_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest/ai"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// attempt is a step's attempt up to its text.
func attempt(n int64, thought, partID, text string) []event.Event {
	return []event.Event{
		event.RunStepStartedV1{Step: 2, FrameID: "frame-1", Attempt: n},
		event.ReasoningStartedV1{PartID: "think-" + partID},
		event.ReasoningDeltaV1{PartID: "think-" + partID, Delta: thought},
		event.ReasoningFinishedV1{PartID: "think-" + partID},
		event.MessageStartedV1{PartID: partID},
		event.MessageDeltaV1{PartID: partID, Delta: text},
	}
}

// twoSteps is a run whose second step succeeds after so many broken attempts.
// The first event has seq 2.
func twoSteps(broken int64) []event.Event {
	reply := runtest.Reply("First.")
	log := append([]event.Event{}, reply[:len(reply)-2]...) // to the end of its step
	for n := int64(1); n <= broken; n++ {
		from := int64(len(log)) + 2
		log = append(log, attempt(n, "lost", "broken", "lost")...)
		log = append(log, event.MessageDiscardedV1{PartID: "broken"})
		log = append(log, event.StepDiscardedV1{Step: 2, FromSeq: from, ToSeq: int64(len(log)) + 1, Reason: event.StepDiscardedV1ReasonExecutorLost})
	}
	log = append(log, attempt(broken+1, "hm", "text-2", "Second.")...)
	log = append(log, event.MessageFinishedV1{PartID: "text-2", Text: "Second."}, event.RunStepFinishedV1{Step: 2, FinishReason: "stop"})
	return append(log, reply[len(reply)-2:]...)
}

// What a release that takes ai7 has assembled in the end is what it assembles
// from a run that nothing happened to.
func TestAStepThatIsTakenBackLeavesNothingInAnAI7Message(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	smooth, retried := runtest.Run(t, s.Pool), runtest.Run(t, s.Pool)
	s.Append(t, smooth, twoSteps(0)...)
	log := twoSteps(2)
	s.Append(t, retried, log...)

	want := ai.ReadRuns(t, s.url+"/runs", "ai7", smooth.RunID)
	require.Len(t, want, releases["ai7"])
	require.Equal(t, "First.Second.", want[0].Message.Text())
	target := s.target(retried)
	target.Parts = "ai7"
	for i, got := range ai.Read(t, target, cuts(t, 2)...) {
		require.Empty(t, got.Errors, got.Release)
		require.Equal(t, want[i].Message.Parts, got.Message.Parts, got.Release)
		require.Equal(t, ranges(log, "reset-step"), taken(got.Parts, "reset-step"), got.Release)
	}

	chat := ai.Replay(t, target, 300, 700)
	require.Empty(t, chat.Error)
	require.Len(t, chat.Messages, 1)
	require.Equal(t, want[0].Message.Parts, chat.Messages[0].Parts)
}

// A client that was not told to take anything back shows it, and beside it what
// it would have to take back.
func TestAStepThatIsTakenBackStaysInOtherMessages(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	log := twoSteps(1)
	s.Append(t, r, log...)
	for _, parts := range []string{"", "ai5", "ai6"} {
		readings := ai.ReadRuns(t, s.url+"/runs", parts, r.RunID)
		require.Len(t, readings, releases[parts])
		for _, got := range readings {
			require.Empty(t, got.Errors, got.Release)
			require.Equal(t, "First.lostSecond.", got.Message.Text(), got.Release)
			require.Equal(t, ranges(log, "data-discard"), taken(got.Message.Parts, "data-discard"), got.Release)
		}
	}
}

// ranges is how a log's discards are told.
func ranges(log []event.Event, partType string) []ai.Part {
	var out []ai.Part
	for _, e := range log {
		if e, ok := e.(event.StepDiscardedV1); ok {
			r := ai.Part{"fromSeq": float64(e.FromSeq), "toSeq": float64(e.ToSeq)}
			if partType == "data-discard" {
				r = ai.Part{"data": map[string]any(r)}
			}
			r["type"] = partType
			out = append(out, r)
		}
	}
	return out
}

func taken(parts []ai.Part, partType string) []ai.Part {
	var out []ai.Part
	for _, p := range parts {
		if p["type"] == partType {
			out = append(out, p)
		}
	}
	return out
}

package server

import (
	"slices"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// tale is what a run's log says to people: who said what, and what it took.
type tale struct {
	runID     string
	messageID string // of the assistant's one message
	started   bool   // whether the run has started, so that there is a message
	waitsFor  string // while the run waits
	closed    bool
	ended     bool // run.finished has told the whole usage
	usage     ds.UsageV1
	frameID   string // that the step at work answers
	parts     []*textPart
	users     []api.ThreadMessage
}

// textPart is one text part of the assistant's message.
type textPart struct {
	partID, frameID string
	startedSeq      int64
	text            string
	seq             int64 // of the newest event that gave it text
	at              time.Time
	finished        bool
}

// taleTypes are the events that a tale is made of, deltas aside: a finished
// part's text is in its message.finished.
var taleTypes = []string{
	event.TypeFrameAppended, event.TypeRunStarted, event.TypeRunStepStarted, event.TypeStepDiscarded,
	event.TypeMessageStarted, event.TypeMessageFinished, event.TypeMessageDiscarded,
	event.TypePredictFinished, event.TypeRunWaiting, event.TypeRunWoken, event.TypeRunFinished, event.TypeStreamClosed,
}

func (t *tale) add(row db.RunLog, e event.Event) {
	switch e := e.(type) {
	case event.FrameAppendedV1:
		if text, ok := e.Payload["text"].(string); ok && e.FrameType == "user_message" {
			t.users = append(t.users, api.ThreadMessage{
				Role: api.ThreadMessageRoleUser, Text: text, RunID: t.runID, Seq: row.Seq, At: row.InsertedAt.UTC(),
			})
		}
	case event.RunStartedV1:
		t.messageID, t.started = e.MessageID, true
	case event.RunStepStartedV1:
		t.frameID, t.started = e.FrameID, true
	case event.MessageStartedV1:
		t.parts = append(t.parts, &textPart{partID: e.PartID, frameID: t.frameID, startedSeq: row.Seq})
	case event.MessageDeltaV1:
		if p := t.part(e.PartID); p != nil && !p.finished {
			p.text, p.seq, p.at = p.text+e.Delta, row.Seq, row.InsertedAt
		}
	case event.MessageFinishedV1:
		p := t.part(e.PartID)
		if p == nil {
			// The part's beginning is no longer kept; its whole text is here.
			p = &textPart{partID: e.PartID, frameID: t.frameID, startedSeq: row.Seq}
			t.parts = append(t.parts, p)
		}
		p.text, p.seq, p.at, p.finished = e.Text, row.Seq, row.InsertedAt, true
	case event.MessageDiscardedV1:
		t.discard(func(p *textPart) bool { return p.partID == e.PartID })
	case event.StepDiscardedV1:
		t.discard(func(p *textPart) bool { return p.startedSeq >= e.FromSeq && p.startedSeq <= e.ToSeq })
	case event.PredictFinishedV1:
		if !t.ended {
			t.usage.InputTokens += e.Usage.InputTokens
			t.usage.OutputTokens += e.Usage.OutputTokens
			t.usage.TotalTokens += e.Usage.TotalTokens
			t.usage.ModelCalls += e.Usage.ModelCalls
		}
	case event.RunWaitingV1:
		t.waitsFor = string(e.WaitsFor)
	case event.RunWokenV1:
		t.waitsFor = ""
	case event.RunFinishedV1:
		t.usage, t.ended = e.Usage, true
	case event.StreamClosedV1:
		t.closed = true
	}
}

func (t *tale) part(id string) *textPart {
	for _, p := range slices.Backward(t.parts) {
		if p.partID == id {
			return p
		}
	}
	return nil
}

func (t *tale) discard(which func(*textPart) bool) { t.parts = slices.DeleteFunc(t.parts, which) }

func (t *tale) hasOpenPart() bool {
	return slices.ContainsFunc(t.parts, func(p *textPart) bool { return !p.finished })
}

// assistantMessage is the one message of a run that has started.
func (t *tale) assistantMessage() *api.AssistantMessage {
	if !t.started && len(t.parts) == 0 {
		return nil
	}
	var text strings.Builder
	for _, p := range t.parts {
		text.WriteString(p.text)
	}
	return &api.AssistantMessage{MessageID: t.messageID, Text: text.String(), Finished: t.ended}
}

// messages are what the user and the assistant said, in the log's order. What
// the assistant said to one frame is one message, however many parts it has.
func (t *tale) messages() []api.ThreadMessage {
	all := slices.Clone(t.users)
	said := map[string]int{} // frame to its message in all
	for _, p := range t.parts {
		if p.text == "" {
			continue
		}
		i, begun := said[p.frameID]
		if !begun {
			i = len(all)
			said[p.frameID] = i
			all = append(all, api.ThreadMessage{Role: api.ThreadMessageRoleAssistant, RunID: t.runID})
		}
		all[i].Text += p.text
		all[i].Seq, all[i].At = p.seq, p.at.UTC()
	}
	slices.SortFunc(all, func(a, b api.ThreadMessage) int { return int(a.Seq - b.Seq) })
	return all
}

package executor

import (
	"context"
	"fmt"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

const (
	voiceQueue = 256 // deltas that may wait before the model is slowed down
	voiceBatch = 64  // deltas that share one unit at the most
)

// voice puts what a model says into the log, in batches: while one is being
// committed the next gathers, so that the first delta is seen at once and a
// fast model costs few commits.
type voice struct {
	s           *session
	ctx         context.Context // for its trace
	text, think string          // part ids
	queue       chan model.Event
	done        chan struct{}
	stop        context.CancelCauseFunc
	said        strings.Builder // text that is in the log
	// What a model says may hold what it was not meant to be told.
	texts, thoughts redact.Filter
	err             error
}

func newVoice(ctx context.Context, s *session, step, attempt int64, stop context.CancelCauseFunc) *voice {
	v := &voice{
		s: s, ctx: ctx, stop: stop, queue: make(chan model.Event, voiceQueue), done: make(chan struct{}),
		text:  fmt.Sprintf("text-%d-%d", step, attempt),
		think: fmt.Sprintf("reasoning-%d-%d", step, attempt),
	}
	go v.write()
	return v
}

// say takes one thing from the model. It waits when the log cannot keep up.
func (v *voice) say(e model.Event) error {
	crash.At("predict.called")
	select {
	case v.queue <- e:
		return nil
	case <-v.done:
		return v.err
	}
}

// close waits until everything said is in the log.
func (v *voice) close() error {
	close(v.queue)
	<-v.done
	return v.err
}

func (v *voice) write() {
	defer close(v.done)
	for first := range v.queue {
		batch := v.sayable(nil, first)
		for n := 1; n < voiceBatch && len(v.queue) > 0; n++ {
			batch = v.sayable(batch, <-v.queue)
		}
		if v.err = v.commit(batch); v.err != nil {
			v.stop(v.err)
			return
		}
	}
	if v.err = v.commit(v.rest(v.rest(nil, model.ReasoningDelta), model.TextDelta)); v.err != nil {
		v.stop(v.err)
	}
}

// sayable adds to a batch what can be said once a model has said more.
func (v *voice) sayable(batch []model.Event, e model.Event) []model.Event {
	switch e.Kind {
	case model.TextDelta:
		batch = v.rest(batch, model.ReasoningDelta)
		e.Delta = v.texts.Write(e.Delta)
	case model.ReasoningDelta:
		e.Delta = v.thoughts.Write(e.Delta)
	default:
		return batch
	}
	if e.Delta == "" {
		return batch
	}
	return append(batch, e)
}

// rest adds what was held back, when no more of its kind comes.
func (v *voice) rest(batch []model.Event, kind model.EventKind) []model.Event {
	held := &v.texts
	if kind == model.ReasoningDelta {
		held = &v.thoughts
	}
	if delta := held.Flush(); delta != "" {
		batch = append(batch, model.Event{Kind: kind, Delta: delta})
	}
	return batch
}

// commit writes a batch. It does not depend on the step's context: what the
// model said before that ended was said. What it says after a cancel is in the
// log changes nothing.
func (v *voice) commit(batch []model.Event) error {
	open := v.s.past.open
	events, text := v.words(batch, open.texts[v.text], open.reasonings[v.think])
	if len(events) == 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(v.ctx), handBack)
	defer stop()
	canceled, err := v.s.commitUncanceled(ctx, func(runlog.Head) runlog.Change { return runlog.Change{Events: events} })
	switch {
	case err != nil:
		return err
	case canceled:
		v.stop(errCanceled)
		return nil
	}
	crash.At("delta.committed")
	for _, e := range events {
		open.add(e)
	}
	v.said.WriteString(text)
	return nil
}

// words are a batch as events, and the text among them. A part begins with its
// first delta; reasoning ends when the text begins.
func (v *voice) words(batch []model.Event, textOpen, thinkOpen bool) (events []event.Event, text string) {
	for _, e := range batch {
		switch e.Kind {
		case model.ReasoningDelta:
			if !thinkOpen {
				thinkOpen = true
				events = append(events, event.ReasoningStartedV1{PartID: v.think})
			}
			events = append(events, event.ReasoningDeltaV1{PartID: v.think, Delta: e.Delta})
		case model.TextDelta:
			if thinkOpen {
				thinkOpen = false
				events = append(events, event.ReasoningFinishedV1{PartID: v.think})
			}
			if !textOpen {
				textOpen = true
				events = append(events, event.MessageStartedV1{PartID: v.text})
			}
			events = append(events, event.MessageDeltaV1{PartID: v.text, Delta: e.Delta})
			text += e.Delta
		}
	}
	return events, text
}

// lastWords are the events that close the parts. The whole text is what the log
// already has.
func (v *voice) lastWords(receiptID string) []event.Event {
	var events []event.Event
	open := v.s.past.open
	if open.reasonings[v.think] {
		events = append(events, event.ReasoningFinishedV1{PartID: v.think})
	}
	if open.texts[v.text] {
		events = append(events, event.MessageFinishedV1{PartID: v.text, Text: v.said.String(), ReceiptID: &receiptID})
	}
	return events
}

package executor

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// past is what a run's log says has been done.
type past struct {
	started bool
	steps   int64
	usage   ds.UsageV1
	// open is the step that was begun and neither finished nor discarded.
	open *openStep
}

// openStep is a step whose executor may be gone.
type openStep struct {
	step, attempt int64
	frameID       string
	fromSeq       int64
	texts         map[string]bool // open text parts
	reasonings    map[string]bool // open reasoning parts
}

// pastTypes are the events that past is made of; deltas are not among them.
var pastTypes = []string{
	event.TypeRunStarted, event.TypeRunStepStarted, event.TypeRunStepFinished, event.TypeStepDiscarded,
	event.TypePredictFinished, event.TypeMessageStarted, event.TypeMessageFinished, event.TypeMessageDiscarded,
	event.TypeReasoningStarted, event.TypeReasoningFinished,
}

// readPast knows a run's past from its checkpoint and the log after it, or from
// the log alone. head is the seq at which the log ends.
func (e *Executor) readPast(ctx context.Context, key uuid.UUID, head int64) (past, saved, error) {
	p, at, err := e.readCheckpoint(ctx, key, head)
	if err != nil {
		return past{}, saved{}, err
	}
	err = runlog.EachOfTypes(ctx, e.Pool, key, at.seq, pastTypes, func(row db.RunLog) error {
		happened, err := runlog.Decode(row)
		if err != nil {
			return fmt.Errorf("read a run's past: %w", err)
		}
		p.add(row.Seq, happened)
		return nil
	})
	return p, at, err
}

func (p *past) add(seq int64, e event.Event) {
	if p.open != nil {
		p.open.add(e)
	}
	switch e := e.(type) {
	case event.RunStartedV1:
		p.started = true
	case event.RunStepStartedV1:
		p.steps = e.Step
		p.open = &openStep{step: e.Step, attempt: e.Attempt, frameID: e.FrameID, fromSeq: seq,
			texts: map[string]bool{}, reasonings: map[string]bool{}}
	case event.RunStepFinishedV1, event.StepDiscardedV1:
		p.open = nil
	case event.PredictFinishedV1:
		p.addUsage(e.Usage)
	}
}

// add follows which parts of the step are open.
func (o *openStep) add(e event.Event) {
	switch e := e.(type) {
	case event.MessageStartedV1:
		o.texts[e.PartID] = true
	case event.MessageFinishedV1:
		delete(o.texts, e.PartID)
	case event.MessageDiscardedV1:
		delete(o.texts, e.PartID)
	case event.ReasoningStartedV1:
		o.reasonings[e.PartID] = true
	case event.ReasoningFinishedV1:
		delete(o.reasonings, e.PartID)
	}
}

func (p *past) addUsage(u ds.UsageV1) {
	p.usage.InputTokens += u.InputTokens
	p.usage.OutputTokens += u.OutputTokens
	p.usage.TotalTokens += u.TotalTokens
	p.usage.ModelCalls += u.ModelCalls
}

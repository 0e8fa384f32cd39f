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

func readPast(ctx context.Context, q db.DBTX, key uuid.UUID) (past, error) {
	rows, err := runlog.OfTypes(ctx, q, []uuid.UUID{key}, pastTypes...)
	if err != nil {
		return past{}, err
	}
	var p past
	for _, row := range rows {
		e, err := runlog.Decode(row)
		if err != nil {
			return past{}, fmt.Errorf("read a run's past: %w", err)
		}
		p.add(row.Seq, e)
	}
	return p, nil
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

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
	// toolCalls counts the calls that models asked for.
	toolCalls int64
	// rounds are the steps that ended with tool calls since a frame was answered:
	// they belong to the frames that are open. Nil without any.
	rounds *rounds
	// open is the step that was begun and neither finished nor discarded.
	open *openStep
}

// rounds are steps one after another that asked for tools.
type rounds struct {
	First   int64  `json:"first"`
	Last    int64  `json:"last"`
	FrameID string `json:"frame_id"` // the last frame that the last of them answers
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
	event.TypeReasoningStarted, event.TypeReasoningFinished, event.TypeToolRequested,
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
	case event.RunStepFinishedV1:
		p.finishStep(e.FinishReason)
	case event.StepDiscardedV1:
		p.open = nil
	case event.ToolRequestedV1:
		if e.RequestedBy == event.ToolRequestedV1RequestedByModel {
			p.toolCalls++
		}
	case event.PredictFinishedV1:
		p.addUsage(e.Usage)
	}
}

// finishStep ends the open step. One that asks for tools leaves its frames open.
func (p *past) finishStep(reason event.RunStepFinishedV1FinishReason) {
	open := p.open
	p.open = nil
	if reason != event.RunStepFinishedV1FinishReasonToolCalls || open == nil {
		p.rounds = nil
		return
	}
	first := open.step
	if p.rounds != nil {
		first = p.rounds.First
	}
	p.rounds = &rounds{First: first, Last: open.step, FrameID: open.frameID}
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

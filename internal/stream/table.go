package stream

import (
	"fmt"

	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// render appends an event's data line, or nothing when clients do not show the
// event.
type render func(b []byte, e event.Event) ([]byte, error)

// table is the part of each event, by dialect. A dialect that an event leaves
// out has the part of the one before it.
var table = map[string][dialects]render{
	event.TypeRunStarted:      {AI5: of(start)},
	event.TypeRunStepStarted:  {AI5: of(startStep), AI7: of(startStepOnce)},
	event.TypeRunStepFinished: {AI5: of(finishStep)},
	event.TypeStepDiscarded:   {AI5: of(dataDiscard), AI7: of(resetStep)},
	event.TypeRunFinished:     {AI5: finish},
	event.TypeStreamClosed:    {AI5: of(theEnd)},

	event.TypeMessageStarted:   {AI5: of(textStart)},
	event.TypeMessageDelta:     {AI5: of(textDelta)},
	event.TypeMessageFinished:  {AI5: of(textEnd)},
	event.TypeMessageDiscarded: {AI5: of(textCut)},

	event.TypeReasoningStarted:  {AI5: of(reasoningStart)},
	event.TypeReasoningDelta:    {AI5: of(reasoningDelta)},
	event.TypeReasoningFinished: {AI5: of(reasoningEnd)},

	event.TypeToolRequested:     {AI5: toolInput},
	event.TypeToolProgressed:    {AI5: toolProgress},
	event.TypeToolFinished:      {AI5: toolOutput(false), AI6: toolOutput(true)},
	event.TypeApprovalRequested: {AI5: of(dataApprovalRequest), AI6: of(approvalRequest)},
	event.TypeApprovalDecided:   {AI5: of(dataApprovalDecision), AI7: of(approvalResponse)},

	event.TypeRunAccepted:           {AI5: of(hidden[event.RunAcceptedV1])},
	event.TypeFrameAppended:         {AI5: of(hidden[event.FrameAppendedV1])},
	event.TypeFrameFinished:         {AI5: of(hidden[event.FrameFinishedV1])},
	event.TypePredictFinished:       {AI5: of(hidden[event.PredictFinishedV1])},
	event.TypeRunWaiting:            {AI5: of(hidden[event.RunWaitingV1])},
	event.TypeRunWoken:              {AI5: of(hidden[event.RunWokenV1])},
	event.TypeRunLoopDetected:       {AI5: of(hidden[event.RunLoopDetectedV1])},
	event.TypeRunCancelRequested:    {AI5: of(hidden[event.RunCancelRequestedV1])},
	event.TypeRunExecutorLost:       {AI5: of(hidden[event.RunExecutorLostV1])},
	event.TypeRunRecovered:          {AI5: of(hidden[event.RunRecoveredV1])},
	event.TypeRunHookApplied:        {AI5: of(hidden[event.RunHookAppliedV1])},
	event.TypeRunHookError:          {AI5: of(hidden[event.RunHookErrorV1])},
	event.TypePolicyDecision:        {AI5: of(hidden[event.PolicyDecisionV1])},
	event.TypePolicyBudgetExhausted: {AI5: of(hidden[event.PolicyBudgetExhaustedV1])},
	event.TypePredictReserved:       {AI5: of(hidden[event.PredictReservedV1])},
	event.TypePredictSettled:        {AI5: of(hidden[event.PredictSettledV1])},
	event.TypeToolReserved:          {AI5: of(hidden[event.ToolReservedV1])},
	event.TypeToolSettled:           {AI5: of(hidden[event.ToolSettledV1])},
	event.TypeToolStarted:           {AI5: of(hidden[event.ToolStartedV1])},
	event.TypeToolCancelRequested:   {AI5: of(hidden[event.ToolCancelRequestedV1])},
	event.TypeToolLate:              {AI5: of(hidden[event.ToolLateV1])},
	event.TypeToolReplayed:          {AI5: of(hidden[event.ToolReplayedV1])},
}

// of makes a render of the part of one version of an event.
func of[E event.Event](part func(b []byte, e E) []byte) render {
	return func(b []byte, e event.Event) ([]byte, error) {
		known, ok := e.(E)
		if !ok {
			return b, noPart(e)
		}
		return part(b, known), nil
	}
}

func noPart(e event.Event) error {
	return fmt.Errorf("no part is known for %s as %T", e.EventType(), e)
}

// variants are the events that some dialect tells by a part of its own.
var variants = func() (types []string) {
	for name, by := range table {
		for _, r := range by[AI5+1:] {
			if r != nil {
				types = append(types, name)
				break
			}
		}
	}
	return types
}()

// renderOf is how a dialect tells an event; nil for an event without a part.
func renderOf(eventType string, d Dialect) render {
	by := table[eventType]
	for ; d > AI5 && by[d] == nil; d-- {
	}
	return by[d]
}

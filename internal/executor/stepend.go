package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// endStep commits the end of a step: what was said, the receipt, and the calls
// that are asked for, or the frames that are answered; when nothing is left to do
// or end says so, the end of the run as well.
func (s *session) endStep(ctx context.Context, frames []db.Frame, v *voice, o predict.Outcome, end run.End) error {
	proof, err := o.Change(s.held.Epoch)
	if err != nil {
		return err
	}
	step, last := s.past.open.step, frames[len(frames)-1]
	after := s.past
	var late runlog.Change
	var a asked
	reason := finishReason(o)
	calls := int64(len(o.ToolCalls))
	switch {
	case end.Status != "" || o.Err != nil:
	case calls > 0 && s.limits.MaxToolCalls > 0 && after.toolCalls+calls > int64(s.limits.MaxToolCalls):
		end = s.end("failed", "max_tool_calls_exceeded", fmt.Sprintf("the run has had its %d tool calls", s.limits.MaxToolCalls))
	case calls > 0:
		if a, err = s.askFor(ctx, o, step, last); err != nil {
			return err
		}
		reason, after.toolCalls = event.RunStepFinishedV1FinishReasonToolCalls, after.toolCalls+calls
	}
	after.finishStep(reason)
	answered := after.rounds == nil
	if answered {
		if late, err = s.lateAmong(ctx, frames); err != nil {
			return err
		}
	}
	build := func(h runlog.Head) (runlog.Change, error) {
		change := runlog.Change{Events: v.lastWords(o.Receipt.ReceiptID)}
		change = merge(merge(change, proof), a.change)
		change.Events = append(change.Events, event.RunStepFinishedV1{Step: step, FinishReason: reason})
		if answered {
			change = merge(change, late)
			for _, f := range frames {
				change.Events = append(change.Events, event.FrameFinishedV1{FrameID: f.FrameID, FrameSeq: f.FrameSeq})
			}
			change.FramePosition = int64(len(frames))
		}
		change.Rows = append(change.Rows, s.held.Progress())
		checkpoint, err := s.checkpoint(h, len(change.Events), after)
		change.Rows = append(change.Rows, checkpoint...)
		return change, err
	}
	ended, err := s.commitStep(ctx, build, o, end, answered && !s.mayGoOn(frames))
	if err != nil {
		return err
	}
	s.past, s.advanced = after, true
	s.progressed.Store(true)
	if s.e.suspects.clear(s.run.RunKey) {
		s.e.Watch.Wake(nil, []uuid.UUID{s.run.RunKey}) // the next suspect may begin
	}
	s.saved = s.saving
	for id, input := range a.whole {
		s.crew.keep(id, input)
	}
	s.loops.answered(v.said.String())
	s.e.steps.WithLabelValues(string(o.Receipt.Status)).Inc()
	switch {
	case ended:
	case answered:
		crash.At("frame.finished")
	default:
		crash.At("tool.requested")
		if a.people > 0 {
			crash.At("approval.requested")
		}
	}
	s.afterStep(ctx, last, step, string(o.Receipt.Status))
	return nil
}

// commitStep commits the end of a step, and of the run when end says so, or when
// mayComplete allows and no frame waits.
func (s *session) commitStep(ctx context.Context, build func(runlog.Head) (runlog.Change, error), o predict.Outcome, end run.End, mayComplete bool) (ended bool, err error) {
	if end.Status != "" || o.Err != nil {
		return true, s.finish(ctx, end, build)
	}
	end = s.end("completed", "completed", "every frame was answered")
	end.FinishReason = o.FinishReason
	final := end
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		final, ended = end, true
		if h.CancelRequested {
			final = s.canceled()
		}
		change, err := build(h)
		unseen := final.Status == "canceled" && !s.crew.idle(h)
		if err != nil || unseen || !mayComplete || s.run.KeepOpen && final.Status == "completed" {
			ended = false
			return change, err
		}
		released := change
		released.Rows = append(released.Rows[:len(released.Rows):len(released.Rows)], s.held.Release())
		finished, err := run.Finish(s.run, h, released, final)
		if errors.Is(err, run.ErrFramesWait) {
			ended = false
			return change, nil
		}
		return finished, err
	})
	if err == nil && ended {
		s.ended(final)
	}
	return ended, err
}

// mayGoOn says whether tool calls may be open when the frames are answered.
func (s *session) mayGoOn(frames []db.Frame) bool {
	return s.crew.hasOpen() || slices.ContainsFunc(frames, func(f db.Frame) bool { return namesCall(f.FrameType, f.Payload) != "" })
}

func finishReason(o predict.Outcome) event.RunStepFinishedV1FinishReason {
	r := event.RunStepFinishedV1FinishReason(o.FinishReason)
	if o.Err != nil || !r.Valid() || r == event.RunStepFinishedV1FinishReasonToolCalls {
		return event.RunStepFinishedV1FinishReasonOther
	}
	return r
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

var (
	errCanceled    = errors.New("the run is to be canceled")
	errInterrupted = errors.New("a frame interrupts the step")
	errCap         = errors.New("the run's time is up")
)

// handBack bounds the commit that puts the pen down when the process stops.
const handBack = 10 * time.Second

// answer answers frames with one step, trying again when the model call breaks.
// A frame that interrupts ends the step; the next one answers it too.
func (s *session) answer(ctx context.Context, frames []db.Frame) error {
	step, attempt := s.past.steps+1, int64(1)
	if open := s.past.open; open != nil {
		// The recovery has taken this attempt back.
		step, attempt, s.past.open = open.step, open.attempt+1, nil
	}
	if ended, err := s.watchLoops(ctx, frames); ended || err != nil {
		return err
	}
	ctx = frameContext(ctx, frames[len(frames)-1])
	s.trace = telemetry.TraceFrom(ctx)
	for ; ; attempt++ {
		again, err := s.try(ctx, frames, step, attempt)
		if err != nil || !again {
			return err
		}
	}
}

// mayCall refuses a call to a holder whose trust window is over: it may have
// stood still on the way to the wire.
func (s *session) mayCall() error {
	if !s.held.Trusted() {
		return lease.ErrLost
	}
	return nil
}

// prepare makes the step's call. The same step and attempt of the same frame
// is the same call.
func (s *session) prepare(ctx context.Context, frame db.Frame, step, attempt int64) (*predict.Call, error) {
	if open := s.past.open; open != nil && open.frameID != frame.FrameID {
		// The open step answers more than the first frame that waits.
		last, err := run.FrameByID(ctx, s.e.Pool, s.run.RunKey, open.frameID)
		if err != nil {
			return nil, err
		}
		frame = last
	}
	messages, err := s.conversation(ctx, frame)
	if err != nil {
		return nil, err
	}
	id := predict.ID{RunKey: s.run.RunKey, RunID: s.run.RunID,
		CallID: fmt.Sprintf("frame:%d/step:%d/attempt:%d", frame.FrameSeq, step, attempt)}
	return predict.Prepare(id, ds.RespondV1, ds.RespondV1Input{Messages: messages})
}

// try makes one attempt at a step. again says that another is worth it.
func (s *session) try(ctx context.Context, frames []db.Frame, step, attempt int64) (again bool, err error) {
	frame := frames[len(frames)-1]
	call, err := s.prepare(ctx, frame, step, attempt)
	if err != nil {
		return false, err
	}
	if err := s.beginStep(ctx, frame, step, attempt); err != nil {
		return false, err
	}
	if s.head.CancelRequested {
		return false, s.finish(ctx, s.end("canceled", "cancel_requested", "the run was canceled"))
	}
	if !s.held.Trusted() {
		// The process stood still since the commit: the step may be another's, and
		// a call is not fenced.
		return false, lease.ErrLost
	}
	working, stop := s.working(ctx, frame.FrameSeq)
	defer stop(nil)
	voice := newVoice(ctx, s, step, attempt, stop)
	outcome, lost, err := s.ask(model.WithGuard(working, s.mayCall), call, voice)
	if err != nil {
		return false, err
	}
	s.past.addUsage(outcome.Receipt.Usage)
	cause := context.Cause(working)
	stop(nil)
	switch {
	case errors.Is(lost, lease.ErrLost) || errors.Is(cause, lease.ErrLost):
		return false, lease.ErrLost
	case lost != nil:
		return false, lost
	case ctx.Err() != nil && outcome.Err != nil:
		return false, s.putDown(ctx, outcome)
	case errors.Is(cause, errCanceled):
		return false, s.endStep(ctx, frames, voice, outcome.Canceled(), s.end("canceled", "cancel_requested", "the run was canceled"))
	case errors.Is(cause, errInterrupted) && outcome.Err != nil:
		return false, s.interruptStep(ctx, outcome)
	case errors.Is(cause, errCap):
		return false, s.endStep(ctx, frames, voice, outcome, s.end("failed", "max_wall_clock_exceeded", "the run's time is up"))
	case outcome.Err != nil:
		return s.failStep(ctx, outcome, attempt)
	}
	crash.At("predict.returned")
	if ctx.Err() != nil {
		// The process stops, and the whole answer is there: it is kept, or the
		// next executor would ask for it again.
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(context.WithoutCancel(ctx), handBack)
		defer stop()
	}
	return false, s.endStep(ctx, frames, voice, outcome, run.End{})
}

// beginStep commits the start of a step, and of the run when it is the first.
func (s *session) beginStep(ctx context.Context, frame db.Frame, step, attempt int64) error {
	var first int64
	err := s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		var change runlog.Change
		if h.CancelRequested {
			return change, nil
		}
		if !s.past.started {
			change.Events = append(change.Events, event.RunStartedV1{MessageID: run.MessageID(s.run)})
		} else if h.Status == "waiting" {
			change.Events = append(change.Events, event.RunWokenV1{Cause: event.RunWokenV1CauseFrame})
		}
		if h.Status != "running" {
			change.Status = "running"
			change.Rows = append(change.Rows, run.SetStatus(s.run, "running"))
		}
		change.Events = append(change.Events, s.loops.warnings...)
		first = h.Seq + int64(len(change.Events)) + 1
		change.Events = append(change.Events, event.RunStepStartedV1{Step: step, FrameID: frame.FrameID, Attempt: attempt})
		return change, nil
	})
	if err != nil || s.head.CancelRequested {
		return err
	}
	crash.At("step.started")
	s.past.started, s.past.steps, s.loops.warnings = true, step, nil
	s.past.open = &openStep{step: step, attempt: attempt, frameID: frame.FrameID, fromSeq: first,
		texts: map[string]bool{}, reasonings: map[string]bool{}}
	return nil
}

// working is the context of a model call: it ends when the run is canceled, when
// its time is up, or when a frame after the last that the call answers interrupts.
func (s *session) working(ctx context.Context, last int64) (context.Context, context.CancelCauseFunc) {
	working, stop := context.WithCancelCause(ctx)
	if s.limits.MaxWallClockMs > 0 {
		left := time.Duration(s.limits.MaxWallClockMs)*time.Millisecond - s.before - time.Since(s.begun)
		timer := time.AfterFunc(left, func() { stop(errCap) })
		context.AfterFunc(working, func() { timer.Stop() })
	}
	go func() {
		for {
			select {
			case <-working.Done():
				return
			case <-s.bell:
				s.lookUp(working, last, stop)
			}
		}
	}()
	return working, stop
}

// lookUp stops the call at work when something has come that asks for it. When
// the database does not answer, the next bell or tick asks again.
func (s *session) lookUp(ctx context.Context, last int64, stop context.CancelCauseFunc) {
	h, err := runlog.GetHead(ctx, s.e.Pool, s.run.RunKey)
	if err != nil {
		return
	}
	if h.CancelRequested {
		stop(errCanceled)
		return
	}
	if h.FrameCount > last {
		interrupted, err := run.Interrupted(ctx, s.e.Pool, s.run.RunKey, last)
		if err != nil {
			return
		}
		if interrupted {
			stop(errInterrupted)
		}
	}
	s.seen.Store(h.FrameCount)
}

// endStep commits the end of a step: what was said, the receipt, the frames that
// are answered and, when nothing is left to do or end says so, the end of the run.
func (s *session) endStep(ctx context.Context, frames []db.Frame, v *voice, o predict.Outcome, end run.End) error {
	if end.Status == "" && o.Err == nil {
		end = s.end("completed", "completed", "every frame was answered")
		end.FinishReason = o.FinishReason
	}
	proof, err := o.Change(s.held.Epoch)
	if err != nil {
		return err
	}
	final := end
	ended := false
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		final, ended = end, true
		if h.CancelRequested && final.Status == "completed" {
			final = s.end("canceled", "cancel_requested", "the run was canceled")
		}
		change := runlog.Change{Events: v.lastWords(o.Receipt.ReceiptID)}
		change = merge(change, proof)
		change.Events = append(change.Events, event.RunStepFinishedV1{Step: s.past.open.step, FinishReason: finishReason(o)})
		for _, f := range frames {
			change.Events = append(change.Events, event.FrameFinishedV1{FrameID: f.FrameID, FrameSeq: f.FrameSeq})
		}
		change.FramePosition = int64(len(frames))
		change.Rows = append(change.Rows, s.held.Progress())
		checkpoint, err := s.checkpoint(h, len(change.Events))
		if err != nil {
			return change, err
		}
		change.Rows = append(change.Rows, checkpoint...)
		released := change
		released.Rows = append(released.Rows[:len(released.Rows):len(released.Rows)], s.held.Release())
		if s.run.KeepOpen && final.Status == "completed" {
			ended = false
			return change, nil
		}
		finished, err := run.Finish(s.run, h, released, final)
		if errors.Is(err, run.ErrFramesWait) {
			ended = false
			return change, nil
		}
		return finished, err
	})
	if err != nil {
		return err
	}
	s.past.open, s.advanced = nil, true
	if s.e.suspects.clear(s.run.RunKey) {
		s.e.Watch.Wake(nil, []uuid.UUID{s.run.RunKey}) // the next suspect may begin
	}
	s.saved = s.saving
	s.loops.answered(v.said.String())
	s.e.steps.WithLabelValues(string(o.Receipt.Status)).Inc()
	if ended {
		s.ended(final)
		return nil
	}
	crash.At("frame.finished")
	return nil
}

func finishReason(o predict.Outcome) event.RunStepFinishedV1FinishReason {
	r := event.RunStepFinishedV1FinishReason(o.FinishReason)
	if o.Err != nil || !r.Valid() {
		return event.RunStepFinishedV1FinishReasonOther
	}
	return r
}

// interruptStep takes the step back that a frame interrupts. What was asked is
// answered by the next step, together with that frame.
func (s *session) interruptStep(ctx context.Context, o predict.Outcome) error {
	o.Receipt.MaybeBilled = true
	proof, err := o.Canceled().Change(s.held.Epoch)
	if err != nil {
		return err
	}
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		return s.discard(h, proof, event.StepDiscardedV1ReasonInterrupted), nil
	})
	if err != nil {
		return err
	}
	s.past.open = nil
	s.e.steps.WithLabelValues("interrupted").Inc()
	return nil
}

// failStep takes a broken step back, and ends the run when no further attempt
// is worth it.
func (s *session) failStep(ctx context.Context, o predict.Outcome, attempt int64) (again bool, err error) {
	var m *model.Error
	retryable := errors.As(o.Err, &m) && m.Retryable
	again = retryable && attempt < s.e.Config.MaxAttempts
	proof, err := o.Change(s.held.Epoch)
	if err != nil {
		return false, err
	}
	end := s.end("failed", "model_failed", "the model did not answer: "+reasonOf(o.Err))
	if m != nil && m.Class == model.ContextWindow {
		end.ReasonClass, end.Reason = "context_window_exceeded", "the conversation is longer than the model can be shown"
	}
	canceled := false
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		canceled = h.CancelRequested
		change := s.discard(h, proof, event.StepDiscardedV1ReasonModelFailed)
		if again && !canceled {
			return change, nil
		}
		if canceled {
			end = s.end("canceled", "cancel_requested", "the run was canceled")
		}
		change.Rows = append(change.Rows[:len(change.Rows):len(change.Rows)], s.held.Release())
		return run.Finish(s.run, h, change, end)
	})
	if err != nil {
		return false, err
	}
	s.past.open = nil
	s.e.steps.WithLabelValues(string(o.Receipt.Status)).Inc()
	if again && !canceled {
		return true, nil
	}
	s.ended(end)
	return false, nil
}

func reasonOf(err error) string {
	var m *model.Error
	if errors.As(err, &m) {
		return m.Message
	}
	return "it failed"
}

// putDown takes the open step back when the process stops and gives the lease
// back in the same commit, so that the next executor begins it anew, at once.
func (s *session) putDown(ctx context.Context, o predict.Outcome) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), handBack)
	defer stop()
	o.Receipt.MaybeBilled = true
	proof, err := o.Change(s.held.Epoch)
	if err != nil {
		return err
	}
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		change := s.discard(h, proof, event.StepDiscardedV1ReasonExecutorDrained)
		change.Rows = append(change.Rows[:len(change.Rows):len(change.Rows)], s.held.Release())
		change.Work = run.AtWork(h)
		return change, nil
	})
	if err != nil {
		return err
	}
	s.past.open = nil
	s.gone()
	s.e.steps.WithLabelValues("drained").Inc()
	return nil
}

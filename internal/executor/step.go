package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
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
	s.first = firstCalls{}
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

// prepared is a step's call, and what the step's start tells of it.
type prepared struct {
	call   *predict.Call
	replay []event.Event
	hooks  []event.Event
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
// is the same call, unless hooks change it.
func (s *session) prepare(ctx context.Context, frame db.Frame, step, attempt int64, hooks *hook.Result) (prepared, error) {
	var p prepared
	if open := s.past.open; open != nil && open.frameID != frame.FrameID {
		// The open step answers more than the first frame that waits.
		last, err := run.FrameByID(ctx, s.e.Pool, s.run.RunKey, open.frameID)
		if err != nil {
			return p, err
		}
		frame = last
	}
	in, err := s.input(ctx, frame)
	if err != nil {
		return p, err
	}
	if p.replay, err = replayedEvent(in.ToolReplay, s.replay.omitted, step); err != nil {
		return p, err
	}
	var options []predict.Option
	if hooks != nil {
		options = withHooks(&in, *hooks)
	}
	id := predict.ID{RunKey: s.run.RunKey, RunID: s.run.RunID,
		CallID: fmt.Sprintf("frame:%d/step:%d/attempt:%d", frame.FrameSeq, step, attempt)}
	p.call, err = predict.Prepare(id, ds.RespondV1, in, options...)
	return p, err
}

// input is what the model is shown.
func (s *session) input(ctx context.Context, frame db.Frame) (in ds.RespondV1Input, err error) {
	if in.Tools, err = s.offered(); err != nil {
		return in, err
	}
	tools, err := json.Marshal(in.Tools)
	if err != nil {
		return in, err
	}
	rounds, err := s.readRounds(ctx)
	if err != nil {
		return in, err
	}
	if in.Messages, err = s.conversation(ctx, frame, rounds, len(tools)); err != nil {
		return in, err
	}
	in.ToolReplay, err = s.replayLines(ctx, rounds)
	return in, err
}

// try makes one attempt at a step. again says that another is worth it.
func (s *session) try(ctx context.Context, frames []db.Frame, step, attempt int64) (again bool, err error) {
	frame := frames[len(frames)-1]
	answer, told := s.beforeStep(ctx, frame, step)
	p, err := s.prepare(ctx, frame, step, attempt, &answer)
	if err != nil {
		return false, err
	}
	p.hooks = told
	canceled, err := s.beginStep(ctx, frame, step, attempt, p)
	if err != nil {
		return false, err
	}
	if canceled {
		return false, s.finish(ctx, s.canceled(), nil)
	}
	if !s.held.Trusted() {
		// The process stood still since the commit: the step may be another's, and
		// a call is not fenced.
		return false, lease.ErrLost
	}
	working, stop, join := s.working(ctx, frame.FrameSeq)
	defer join()
	defer stop(nil)
	voice := newVoice(ctx, s, step, attempt, stop)
	outcome, lost, err := s.ask(model.WithGuard(working, s.mayCall), p.call, voice)
	if err != nil {
		return false, err
	}
	s.past.addUsage(outcome.Receipt.Usage)
	cause := context.Cause(working)
	stop(nil)
	join()
	switch {
	case errors.Is(lost, lease.ErrLost) || errors.Is(cause, lease.ErrLost):
		return false, lease.ErrLost
	case lost != nil:
		return false, lost
	case ctx.Err() != nil && outcome.Err != nil:
		return false, s.putDown(ctx, outcome)
	case errors.Is(cause, errCanceled):
		return false, s.endStep(ctx, frames, voice, outcome.Canceled(), s.canceled())
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
// canceled says that the run is to be canceled and that no step was started.
func (s *session) beginStep(ctx context.Context, frame db.Frame, step, attempt int64, p prepared) (canceled bool, err error) {
	var first int64
	canceled, err = s.commitUncanceled(ctx, func(h runlog.Head) runlog.Change {
		change := s.woken(h, runlog.Change{}, event.RunWokenV1CauseFrame)
		change.Events = append(change.Events, s.loops.warnings...)
		change.Events = append(change.Events, p.hooks...)
		first = h.Seq + int64(len(change.Events)) + 1
		change.Events = append(change.Events, event.RunStepStartedV1{Step: step, FrameID: frame.FrameID, Attempt: attempt})
		change.Events = append(change.Events, p.replay...)
		return change
	})
	if err != nil || canceled {
		return canceled, err
	}
	crash.At("step.started")
	s.past.started, s.past.steps, s.loops.warnings = true, step, nil
	s.past.open = &openStep{step: step, attempt: attempt, frameID: frame.FrameID, fromSeq: first,
		texts: map[string]bool{}, reasonings: map[string]bool{}}
	return false, nil
}

// working is the context of a model call: it ends when the run is canceled, when
// its time is up, or when a frame after the last that the call answers interrupts.
func (s *session) working(ctx context.Context, last int64) (_ context.Context, stop context.CancelCauseFunc, join func()) {
	working, stop := context.WithCancelCause(ctx)
	if left, bounded := s.timeLeft(); bounded {
		timer := time.AfterFunc(left, func() { stop(errCap) })
		context.AfterFunc(working, func() { timer.Stop() })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-working.Done():
				return
			case <-s.bell:
				s.lookUp(working, last, stop)
			case <-s.crew.room():
				s.lookUp(working, last, stop)
			}
		}
	}()
	return working, stop, func() { <-done }
}

// lookUp stops the call at work when something has come that asks for it. When
// the database does not answer, the next bell or tick asks again.
func (s *session) lookUp(ctx context.Context, last int64, stop context.CancelCauseFunc) {
	h, err := runlog.GetHead(ctx, s.e.Pool, s.run.RunKey)
	if err != nil {
		return
	}
	s.follow(h)
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
			return
		}
	}
	s.seen.Store(h.FrameCount)
	s.crew.suspect()
	if _, err := s.tend(ctx); errors.Is(err, lease.ErrLost) {
		stop(err)
	}
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
	discard := func(h runlog.Head) (runlog.Change, error) {
		return s.discard(h, proof, event.StepDiscardedV1ReasonModelFailed), nil
	}
	if again {
		if err := s.commit(ctx, discard); err != nil {
			return false, err
		}
		again = !s.now().CancelRequested
	} else if err := s.finish(ctx, s.failure(o.Err), discard); err != nil {
		return false, err
	}
	s.past.open = nil
	s.e.steps.WithLabelValues(string(o.Receipt.Status)).Inc()
	return again, nil
}

// failure is the end of a run whose model does not answer.
func (s *session) failure(err error) run.End {
	var m *model.Error
	if errors.As(err, &m) && m.Class == model.ContextWindow {
		return s.end("failed", "context_window_exceeded", "the conversation is longer than the model can be shown")
	}
	return s.end("failed", "model_failed", "the model did not answer: "+reasonOf(err))
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
	toolsWork := s.crew.any()
	proof, err := o.Change(s.held.Epoch)
	if err != nil {
		return err
	}
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		change := s.discard(h, proof, event.StepDiscardedV1ReasonExecutorDrained)
		if toolsWork {
			return change, nil // the lease is needed to say how they end
		}
		change.Rows = append(change.Rows[:len(change.Rows):len(change.Rows)], s.held.Release())
		change.Work = s.atWork(h)
		return change, nil
	})
	if err != nil {
		return err
	}
	s.past.open = nil
	if !toolsWork {
		s.gone()
	}
	s.e.steps.WithLabelValues("drained").Inc()
	return nil
}

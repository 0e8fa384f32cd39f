package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// session is one holding of one run.
type session struct {
	e    *Executor
	bell chan struct{} // rings when the run got a frame or a cancel
	seen atomic.Int64  // how many of the run's frames were looked at for interrupts

	run    db.Run
	held   *lease.Held
	head   runlog.Head
	past   past
	saved  saved // what the stored checkpoint covers
	saving saved // what the one that is being written will cover
	limits run.Limits
	begun  time.Time     // when elapsed was asked
	before time.Duration // work before this session
	loops  loops

	trace    telemetry.Trace // of what is being done: the run's, then each frame's
	released bool            // a commit has released the lease
	advanced bool            // a step was finished
}

func (s *session) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// drive works until the run waits or ends.
func (s *session) drive(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	for {
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case runlog.Terminal(s.head.Status):
			return nil
		case s.head.CancelRequested:
			return s.finish(ctx, s.end("canceled", "cancel_requested", "the run was canceled"))
		}
		if end, reached := s.capReached(); reached {
			return s.finish(ctx, end)
		}
		frames, err := run.ToAnswer(ctx, s.e.Pool, s.run.RunKey, s.head.FramePosition)
		if err != nil {
			return err
		}
		if len(frames) == 0 {
			done, err := s.rest(ctx)
			if err != nil || done {
				return err
			}
			continue
		}
		if err := s.answer(ctx, frames); err != nil {
			return err
		}
	}
}

// handOver gives the lease back and tells executors everywhere, so that the run
// goes on elsewhere at once.
func (s *session) handOver(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), handBack)
	defer stop()
	err := s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		return runlog.Change{Rows: []runlog.Row{s.held.Release()}, Work: run.AtWork(h)}, nil
	})
	if err == nil {
		s.gone()
	}
	return err
}

// outagePause is between two tries to hand a run over while the database does
// not answer.
const outagePause = 200 * time.Millisecond

// outlast hands the run over as soon as an outage of the database is over, if
// that is before the trust window ends: otherwise nobody could go on with it
// until its lease has expired.
func (s *session) outlast(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(outagePause):
		}
		if err := s.handOver(ctx); err == nil || errors.Is(err, lease.ErrLost) {
			return
		}
	}
}

// gone notes that a commit has released the lease.
func (s *session) gone() {
	s.released = true
	s.held.Released()
}

// frameContext restores the trace under which a frame came.
func frameContext(ctx context.Context, f db.Frame) context.Context {
	return telemetry.WithTrace(ctx, traceOf(f.Traceparent, f.Tracestate, f.RequestID))
}

func traceOf(parent, state, requestID *string) telemetry.Trace {
	return telemetry.Trace{Parent: value(parent), State: value(state), RequestID: value(requestID)}
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// open reads what the session must know.
func (s *session) open(ctx context.Context) error {
	var err error
	if s.past, s.saved, err = s.e.readPast(ctx, s.run.RunKey, s.head.Seq); err != nil {
		return err
	}
	s.limits = s.e.Config.Limits
	if len(s.run.Limits) > 0 {
		if err := json.Unmarshal(s.run.Limits, &s.limits); err != nil {
			return fmt.Errorf("the run's limits: %w", err)
		}
	}
	elapsed, err := run.Elapsed(ctx, s.e.Pool, s.run.RunKey)
	s.begun, s.before = time.Now(), elapsed
	return err
}

// commit writes a change under the lease and follows the head.
func (s *session) commit(ctx context.Context, decide func(runlog.Head) (runlog.Change, error)) error {
	ack, err := s.held.Commit(ctx, decide)
	if err != nil {
		return err
	}
	s.head = ack.Head
	if s.head.FrameCount > s.seen.Load() {
		s.ring() // perhaps one that interrupts, and its notification was lost
	}
	return nil
}

// rest ends the run when every frame is answered, or lets it wait for more.
// done is false when a frame came meanwhile.
func (s *session) rest(ctx context.Context) (done bool, err error) {
	if !s.run.KeepOpen {
		err := s.finish(ctx, s.end("completed", "completed", "every frame was answered"))
		return err == nil, ignoring(err, run.ErrFramesWait)
	}
	waits := false
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		waits = h.FrameCount == h.FramePosition && !h.CancelRequested
		if !waits {
			return runlog.Change{}, nil
		}
		change := runlog.Change{Rows: []runlog.Row{s.held.Release()}}
		if h.Status != "waiting" {
			change.Events = []event.Event{event.RunWaitingV1{WaitsFor: event.RunWaitingV1WaitsForFrame}}
			change.Status = "waiting"
			change.Rows = append(change.Rows, run.SetStatus(s.run, "waiting"))
		}
		return change, nil
	})
	if err == nil && waits {
		s.gone()
	}
	return waits, err
}

// finish ends the run, releasing the lease in the same commit.
func (s *session) finish(ctx context.Context, end run.End) error {
	err := s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		return run.Finish(s.run, h, runlog.Change{Rows: []runlog.Row{s.held.Release()}}, end)
	})
	if err == nil {
		s.ended(end)
	}
	return err
}

func (s *session) ended(end run.End) {
	crash.At("run.finished")
	s.gone()
	s.e.finished.WithLabelValues(end.Status, end.ReasonClass).Inc()
}

func (s *session) end(status, class, reason string) run.End {
	return run.End{Status: status, ReasonClass: class, Reason: reason, Usage: s.past.usage}
}

// capReached says whether one of the run's caps is reached.
func (s *session) capReached() (run.End, bool) {
	l, u := s.limits, s.past.usage
	elapsed := s.before + time.Since(s.begun)
	switch {
	case s.head.FrameCount == s.head.FramePosition:
		return run.End{}, false // nothing more is wanted
	case l.MaxSteps > 0 && s.past.steps >= int64(l.MaxSteps) && s.past.open == nil:
		return s.end("failed", "max_steps_exceeded", fmt.Sprintf("the run has had its %d steps", l.MaxSteps)), true
	case l.MaxModelCalls > 0 && u.ModelCalls >= int64(l.MaxModelCalls):
		return s.end("failed", "max_model_calls_exceeded", fmt.Sprintf("the run has had its %d model calls", l.MaxModelCalls)), true
	case l.MaxTokens > 0 && u.TotalTokens >= l.MaxTokens:
		return s.end("failed", "max_tokens_exceeded", fmt.Sprintf("the run has used its %d tokens", l.MaxTokens)), true
	case l.MaxWallClockMs > 0 && elapsed.Milliseconds() >= l.MaxWallClockMs:
		return s.end("failed", "max_wall_clock_exceeded", "the run has had its "+strconv.FormatInt(l.MaxWallClockMs, 10)+" ms"), true
	}
	return run.End{}, false
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// work carries a call out beside the session. What it came to is committed here;
// when the session ends before, the next one goes on with the call.
func (s *session) work(ctx context.Context, t db.ToolTask, release func(), carry func(context.Context) tool.Outcome) {
	working, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	j := &job{boundary: tool.Boundary(t.SettlementBoundary), ofStep: t.Step != nil, stop: stop}
	s.crew.add(t.ToolCallID, j)
	go func() {
		heard := false
		defer func() {
			s.crew.done(t.ToolCallID)
			if !heard {
				s.ring() // the call has lost its job and is looked at again
			}
		}()
		defer release()
		defer stop(nil)
		defer func() {
			if p := recover(); p != nil {
				s.e.panics.Inc()
				slog.ErrorContext(ctx, "what carries a tool out panicked; the next look goes on with the call",
					"run_id", s.run.RunID, "tool_call_id", t.ToolCallID, "panic", fmt.Sprint(p))
			}
		}()
		o := carry(working)
		crash.At("tool.returned")
		if s.crew.handedOver(j) && (o.State == tool.Canceled || o.Err != nil && o.Err.Unknown) {
			return
		}
		heard = s.conclude(ctx, t, o)
	}()
}

// leaveCalls ends the session's calls at work. Those that may be made again are
// stopped and go on in another session; those that must not be are given time,
// unless the run is another's already.
func (s *session) leaveCalls(ctx context.Context) {
	cause, lost := handedCause(ctx), errors.Is(context.Cause(ctx), lease.ErrLost)
	s.crew.hand(func(j *job) bool { return lost || j.boundary == tool.SafeRetry }, cause)
	if s.crew.any() {
		timer := time.AfterFunc(s.e.Config.ToolDrain, func() { s.crew.hand(func(*job) bool { return true }, cause) })
		defer timer.Stop()
	}
	s.crew.wait()
}

// conclude commits what a call came to. While the database does not answer it
// tries again, as long as the run is this session's: the outcome is known here
// alone. ended says that the call has its terminal state.
func (s *session) conclude(ctx context.Context, t db.ToolTask, o tool.Outcome) (ended bool) {
	ctx = context.WithoutCancel(ctx)
	for {
		err := s.tryConclude(ctx, t, o)
		switch {
		case err == nil:
			crash.At("tool.finished")
			s.crew.forget(t.ToolCallID)
			s.afterCall(ctx, t, o)
			return true
		case tool.Moved(err):
			// The call was ended meanwhile, and this changes nothing any more.
			late := tool.Late(t, o, "")
			if err = s.commit(ctx, func(runlog.Head) (runlog.Change, error) { return late, nil }); err == nil {
				s.e.Tools.Runner.CountLate()
				return true
			}
			s.unheard(ctx, t, o, err)
			return true
		case errors.Is(err, runlog.ErrFinished), errors.Is(err, lease.ErrLost), !s.held.Trusted():
			s.unheard(ctx, t, o, err)
			return false
		}
		time.Sleep(outagePause)
	}
}

// unheard tells of an outcome that could not become a fact of the run.
func (s *session) unheard(ctx context.Context, t db.ToolTask, o tool.Outcome, err error) {
	s.e.Tools.Runner.CountLate()
	slog.WarnContext(ctx, "the outcome of a tool call came too late", "run_id", s.run.RunID, "tool_call_id", t.ToolCallID, "state", o.State, "error", err.Error())
}

func (s *session) tryConclude(ctx context.Context, t db.ToolTask, o tool.Outcome) error {
	ctx, stop := context.WithTimeout(ctx, handBack)
	defer stop()
	return s.endCallWith(ctx, t, o, runlog.Change{})
}

// endCall ends an open call that nothing works on.
func (s *session) endCall(ctx context.Context, t db.ToolTask, state string, why *tool.Error) error {
	return s.endCallWith(ctx, t, tool.Ended(t, state, why), runlog.Change{})
}

// endCallWith commits the end of a call after what beside has. It is progress: the
// first that a session makes is noted, so that a loss of the executor counts from
// there; the ends of steps note how far it has come.
func (s *session) endCallWith(ctx context.Context, t db.ToolTask, o tool.Outcome, beside runlog.Change) error {
	finished, err := tool.Finished(t, o, s.held.Epoch)
	if err != nil {
		return err
	}
	err = s.endAsking(ctx, t, func(back runlog.Change) error {
		change := merge(merge(beside, back), finished)
		if !s.progressed.Load() {
			change.Rows = append(change.Rows, s.held.Progress())
		}
		return s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
			return s.woken(h, change, causeOfStart(t)), nil
		})
	})
	if err == nil {
		s.progressed.Store(true)
	}
	return err
}

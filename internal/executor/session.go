package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// session is one holding of one run.
type session struct {
	e    *Executor
	bell chan struct{} // rings when the run got a frame, a cancel or a tool's end
	seen atomic.Int64  // how many of the run's frames were looked at for interrupts

	run    db.Run
	held   *lease.Held
	mu     sync.Mutex
	head   runlog.Head // the newest that is known; see now
	past   past
	saved  saved // what the stored checkpoint covers
	saving saved // what the one that is being written will cover
	limits run.Limits
	begun  time.Time     // when elapsed was asked
	before time.Duration // work before this session
	loops  loops
	view   tool.View  // the tools of the run
	policy policy.Run // what the run says of its tools
	crew   crew
	replay replayed
	first  firstCalls // that the step at hand has read

	trace    telemetry.Trace // of what is being done: the run's, then each frame's
	released bool            // a commit has released the lease
	advanced bool            // a step was finished
	// progressed says that a commit has noted the session's progress.
	progressed atomic.Bool
	over       *run.End // how the run ended here
}

func newSession(e *Executor) *session {
	return &session{e: e, bell: make(chan struct{}, 1), crew: newCrew()}
}

// now is the newest head that is known. Tool calls at work write to the log
// beside the session.
func (s *session) now() runlog.Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

// follow takes a head, unless a later one is known.
func (s *session) follow(h runlog.Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Seq >= s.head.Seq {
		s.head = h
	}
}

// refresh reads the head, while no model is at work: whoever is next looks at the
// frames that there are.
func (s *session) refresh(ctx context.Context) error {
	h, err := runlog.GetHead(ctx, s.e.Pool, s.run.RunKey)
	if err == nil {
		s.follow(h)
		s.seen.Store(h.FrameCount)
	}
	return err
}

func (s *session) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// driveSafely drives, and lets no tool call outlive the session, whatever ends it.
func (s *session) driveSafely(ctx context.Context) (err error) {
	defer s.leaveCalls(ctx)
	defer context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), lease.ErrLost) {
			s.crew.hand(func(*job) bool { return true }, handedCause(ctx))
		}
	})()
	defer s.e.contain(&err)
	return s.drive(ctx)
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
		done, err := s.advance(ctx)
		if err != nil || done {
			return err
		}
	}
}

// advance does the next thing that the run wants. done says that the session has
// nothing more to do.
func (s *session) advance(ctx context.Context) (done bool, err error) {
	switch h := s.now(); {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case runlog.Terminal(h.Status):
		return true, nil
	case h.CancelRequested:
		return false, s.finish(ctx, s.canceled(), nil)
	}
	open, err := s.tend(ctx)
	if err != nil || s.now().CancelRequested {
		return false, err
	}
	if end, reached := s.timeReached(open); reached {
		return false, s.finish(ctx, end, nil)
	}
	if open.ofStep > 0 {
		return s.waitForCalls(ctx, open)
	}
	frames, err := run.ToAnswer(ctx, s.e.Pool, s.run.RunKey, s.now().FramePosition)
	switch {
	case err != nil:
		return false, err
	case len(frames) == 0 && open.others > 0:
		return s.wait(ctx, open)
	case len(frames) == 0:
		return s.rest(ctx)
	}
	if passed, err := s.pass(ctx, frames[0]); passed || err != nil {
		return false, err
	}
	if end, reached := s.capReached(); reached {
		return false, s.finish(ctx, end, nil)
	}
	return false, s.answer(ctx, frames)
}

// handOver gives the lease back and tells executors everywhere, so that the run
// goes on elsewhere at once.
func (s *session) handOver(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), handBack)
	defer stop()
	err := s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		return runlog.Change{Rows: []runlog.Row{s.held.Release()}, Work: s.atWork(h)}, nil
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

// atWork says whether an executor has something to do for the run.
func (s *session) atWork(h runlog.Head) bool {
	return run.AtWork(h) || h.Status != "waiting" && !runlog.Terminal(h.Status) && s.crew.hasOpen()
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
	if s.past, s.saved, err = s.e.readPast(ctx, s.run.RunKey, s.now().Seq); err != nil {
		return err
	}
	s.limits = s.e.Config.Limits
	if len(s.run.Limits) > 0 {
		if err := json.Unmarshal(s.run.Limits, &s.limits); err != nil {
			return fmt.Errorf("the run's limits: %w", err)
		}
	}
	if err := s.openTools(ctx); err != nil {
		return err
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
	s.follow(ack.Head)
	if ack.Head.FrameCount > s.seen.Load() {
		s.ring() // perhaps one that interrupts, and its notification was lost
	}
	return nil
}

// commitUncanceled commits a change unless the run is to be canceled. The answer is
// what the commit saw: the newest head that is known may have a cancel that came
// after it.
func (s *session) commitUncanceled(ctx context.Context, change func(runlog.Head) runlog.Change) (canceled bool, err error) {
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		if canceled = h.CancelRequested; canceled {
			return runlog.Change{}, nil
		}
		return change(h), nil
	})
	return canceled, err
}

// rest ends the run when every frame is answered, or lets it wait for more.
// done is false when a frame came meanwhile.
func (s *session) rest(ctx context.Context) (done bool, err error) {
	if !s.run.KeepOpen {
		err := s.finish(ctx, s.end("completed", "completed", "every frame was answered"), nil)
		return err == nil, ignoring(err, run.ErrFramesWait)
	}
	return s.letGo(ctx, event.RunWaitingV1WaitsForFrame)
}

func (s *session) ended(end run.End) {
	crash.At("run.finished")
	s.gone()
	s.over = &end
	s.e.finished.WithLabelValues(end.Status, end.ReasonClass).Inc()
}

func (s *session) end(status, class, reason string) run.End {
	return run.End{Status: status, ReasonClass: class, Reason: reason, Usage: s.past.usage}
}

func (s *session) canceled() run.End {
	return s.end("canceled", "cancel_requested", "the run was canceled")
}

// timeLeft is how long the run may still be worked on; false without a bound.
func (s *session) timeLeft() (time.Duration, bool) {
	return time.Duration(s.limits.MaxWallClockMs)*time.Millisecond - s.before - time.Since(s.begun), s.limits.MaxWallClockMs > 0
}

// timeReached says whether the run's time is up while something is wanted of it.
func (s *session) timeReached(open openCalls) (run.End, bool) {
	h := s.now()
	if left, bounded := s.timeLeft(); !bounded || left > 0 || h.FrameCount == h.FramePosition && open == (openCalls{}) {
		return run.End{}, false
	}
	return s.end("failed", "max_wall_clock_exceeded", "the run has had its "+strconv.FormatInt(s.limits.MaxWallClockMs, 10)+" ms"), true
}

// capReached says whether one of the run's caps on steps is reached.
func (s *session) capReached() (run.End, bool) {
	l, u := s.limits, s.past.usage
	switch {
	case l.MaxSteps > 0 && s.past.steps >= int64(l.MaxSteps) && s.past.open == nil:
		return s.end("failed", "max_steps_exceeded", fmt.Sprintf("the run has had its %d steps", l.MaxSteps)), true
	case l.MaxModelCalls > 0 && u.ModelCalls >= int64(l.MaxModelCalls):
		return s.end("failed", "max_model_calls_exceeded", fmt.Sprintf("the run has had its %d model calls", l.MaxModelCalls)), true
	case l.MaxTokens > 0 && u.TotalTokens >= l.MaxTokens:
		return s.end("failed", "max_tokens_exceeded", fmt.Sprintf("the run has used its %d tokens", l.MaxTokens)), true
	}
	return run.End{}, false
}

package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

var errStopping = errors.New("the run is to be canceled; no tool is started")

// providerClient stands for the caller of the API in tool.started.
const providerClient = "client"

// look is one look at a run's open calls.
type look struct {
	open      openCalls
	starved   bool
	again     bool // something changed under it
	approvals map[string]db.Approval
	now       time.Time // by the database's clock
}

// tend looks at the run's open calls and does what can be done without waiting:
// it takes what clients brought, starts what may start, and ends what is over.
func (s *session) tend(ctx context.Context) (openCalls, error) {
	for try := 1; ; try++ {
		h := s.now()
		if s.crew.idle(h) {
			return openCalls{}, nil
		}
		freed := s.e.Tools.Runner.Freed() // before any place is asked for
		l, err := s.lookOnce(ctx)
		if errors.Is(err, errStopping) {
			return l.open, s.refresh(ctx)
		}
		if err != nil {
			return l.open, err
		}
		delivered, err := s.takeResults(ctx)
		if err != nil {
			return l.open, err
		}
		if !delivered && !l.again {
			if !l.starved {
				freed = nil
			}
			s.crew.note(l.open, h, freed)
			return l.open, nil
		}
		if try == moves {
			return l.open, fmt.Errorf("the run's tool calls change faster than they are read")
		}
	}
}

func (s *session) lookOnce(ctx context.Context) (*look, error) {
	l := &look{}
	tasks, err := tool.OpenTasks(ctx, s.e.Pool, s.run.RunKey)
	if err != nil || len(tasks) == 0 {
		return l, err
	}
	if err := s.lookAround(ctx, l, tasks); err != nil {
		return l, err
	}
	for _, t := range tasks {
		ended, err := s.tendCall(ctx, t, l)
		switch {
		case moved(err):
			l.again = true
			continue
		case err != nil:
			return l, err
		case ended:
			continue
		case t.Step != nil:
			l.open.ofStep++
		default:
			l.open.others++
		}
	}
	return l, nil
}

// lookAround reads what the calls depend on.
func (s *session) lookAround(ctx context.Context, l *look, tasks []db.ToolTask) error {
	asked, timed := false, false
	for _, t := range tasks {
		asked = asked || t.ApprovalID != nil && t.State == tool.Queued
		timed = timed || tool.Kind(t.Kind) == tool.Client && t.DeadlineAt != nil
	}
	if asked {
		all, err := approval.OfRun(ctx, s.e.Pool, s.run.RunKey)
		if err != nil {
			return err
		}
		l.approvals = map[string]db.Approval{}
		for _, a := range all {
			l.approvals[a.ApprovalID] = a
		}
	}
	if timed {
		now, err := run.Now(ctx, s.e.Pool)
		if err != nil {
			return err
		}
		l.now = now
	}
	return nil
}

// tendCall does what can be done for one open call. ended says that it has its
// terminal state.
func (s *session) tendCall(ctx context.Context, t db.ToolTask, l *look) (ended bool, err error) {
	if j := s.crew.job(t.ToolCallID); j != nil {
		if t.CancelRequested {
			j.stop(tool.Cause(tool.ClassCanceled, "The call was canceled."))
		}
		l.open.atWork = true
		return false, nil
	}
	client := tool.Kind(t.Kind) == tool.Client
	switch {
	case t.CancelRequested:
		return true, s.cancelCall(ctx, t)
	case t.State == tool.Queued:
		return s.startCall(ctx, t, l)
	case client && t.DeadlineAt != nil && !t.DeadlineAt.After(l.now):
		return true, s.endCall(ctx, t, tool.TimedOut, &tool.Error{Class: tool.ClassTimeout, Message: "The client brought no result in time."})
	case client:
		return false, nil
	default:
		return s.resumeCall(ctx, t, l)
	}
}

// startCall starts a queued call when its approval is settled.
func (s *session) startCall(ctx context.Context, t db.ToolTask, l *look) (ended bool, err error) {
	spec, known := s.view.Spec(t.ToolName)
	if !known {
		return true, s.endCall(ctx, t, tool.Failed, &tool.Error{Class: tool.ClassNotFound, Message: "This process has no such tool."})
	}
	var beside runlog.Change
	if t.ApprovalID != nil {
		a := l.approvals[*t.ApprovalID]
		switch a.State {
		case approval.Pending:
			l.open.asked = true
			return false, nil
		case approval.Approved:
			var refused *tool.Error
			if t, beside, refused, err = s.approved(t, spec, a); err != nil {
				return false, err
			}
			if refused != nil {
				return true, s.endCallWith(ctx, t, tool.Ended(t, tool.Failed, refused), beside)
			}
		default:
			return true, s.endUndecided(ctx, t, a)
		}
	}
	if spec.Kind == tool.Client {
		err := s.commitStart(ctx, tool.Started(t, providerClient, s.held.Epoch), beside, causeOfStart(t))
		if err == nil {
			crash.At("tool.started")
		}
		return false, err
	}
	return s.begin(ctx, t, spec, beside, l)
}

// cancelCall ends a call that nothing works on, with what people are asked about it.
func (s *session) cancelCall(ctx context.Context, t db.ToolTask) error {
	change, err := s.stopped(ctx, []db.ToolTask{t}, &tool.Error{Class: tool.ClassCanceled, Message: "The call was canceled."})
	if err != nil {
		return err
	}
	return s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		return s.woken(h, change, event.RunWokenV1CauseTool), nil
	})
}

// endUndecided ends a call that nobody approved.
func (s *session) endUndecided(ctx context.Context, t db.ToolTask, a db.Approval) error {
	switch a.State {
	case approval.Rejected:
		message := "A person did not approve the call."
		if a.DecisionReason != nil {
			message += " They said: " + *a.DecisionReason
		}
		return s.endCall(ctx, t, tool.Failed, &tool.Error{Class: "approval_rejected", Message: message})
	case approval.Expired:
		return s.endCall(ctx, t, tool.Failed, &tool.Error{Class: "approval_expired",
			Message: "Nobody decided on the call in time. That is no refusal; it may be asked for again."})
	default:
		return s.endCall(ctx, t, tool.Canceled, &tool.Error{Class: tool.ClassCanceled, Message: "The question whether the call may be made was taken back."})
	}
}

// resumeCall goes on with a call whose executor is gone. One that may be made
// again is made again under the same key; of another its provider is asked.
func (s *session) resumeCall(ctx context.Context, t db.ToolTask, l *look) (ended bool, err error) {
	spec, known := s.view.Spec(t.ToolName)
	switch {
	case !known:
		return true, s.endCall(ctx, t, tool.Failed, unknownOutcome("this process has no such tool"))
	case tool.Boundary(t.SettlementBoundary) == tool.SafeRetry:
		return s.begin(ctx, t, spec, runlog.Change{}, l)
	}
	release, ok := s.place(spec, l)
	if !ok {
		return false, nil
	}
	s.work(ctx, t, release, func(ctx context.Context) tool.Outcome {
		input, refused := s.inputOf(t)
		if refused != nil {
			return tool.Ended(t, tool.Failed, unknownOutcome("its whole input is gone"))
		}
		o, known := s.e.Tools.Runner.Reconcile(ctx, tool.CallOf(s.run, t, input), spec)
		switch {
		case known:
			return o
		case ctx.Err() != nil: // it was stopped before the provider could tell
			return tool.Ended(t, tool.Canceled, unknownOutcome("its provider was not asked to the end"))
		}
		return tool.Ended(t, tool.Failed, unknownOutcome("its provider cannot tell"))
	})
	return false, nil
}

func unknownOutcome(why string) *tool.Error {
	return &tool.Error{Class: tool.ClassOutcomeUnknown, Unknown: true,
		Message: "The process that made the call was lost, and it is not known whether the call had its effect: " + why + "."}
}

// place takes room for a call. Without any the session looks again when some is
// freed.
func (s *session) place(spec tool.Spec, l *look) (release func(), ok bool) {
	l.open.atWork = true
	if release, ok = s.e.Tools.Runner.Acquire(s.run.RunKey, s.run.Owner, spec, int(s.limits.MaxParallelTools)); !ok {
		l.starved = true
	}
	return release, ok
}

// begin starts a call in a goroutine, when there is room.
func (s *session) begin(ctx context.Context, t db.ToolTask, spec tool.Spec, beside runlog.Change, l *look) (ended bool, err error) {
	input, refused := s.inputOf(t)
	if refused != nil {
		return true, s.endCallWith(ctx, t, tool.Ended(t, tool.Failed, refused), beside)
	}
	fallBack, err := s.mayFallBack(spec, t.ParamsHash, input)
	if err != nil {
		return false, err
	}
	release, ok := s.place(spec, l)
	if !ok {
		return false, nil
	}
	if err := s.commitStart(ctx, tool.Started(t, spec.Provider, s.held.Epoch), beside, causeOfStart(t)); err != nil {
		release()
		return false, err
	}
	crash.At("tool.started")
	if !s.held.Trusted() {
		// The process stood still since the commit, and a call is not fenced.
		release()
		return false, lease.ErrLost
	}
	t = tool.AfterStart(t, spec.Provider, s.held.Epoch)
	call := tool.CallOf(s.run, t, input)
	call.MayFallBack, call.Ask = fallBack, s.asker(t, spec, input)
	s.work(ctx, t, release, func(ctx context.Context) tool.Outcome {
		return s.e.Tools.Runner.Do(ctx, call, spec, func(output json.RawMessage) error {
			return s.commit(ctx, func(runlog.Head) (runlog.Change, error) { return tool.Progressed(t, output, s.held.Epoch), nil })
		})
	})
	return false, nil
}

// inputOf is what a call is made with: what the model gave when this session
// heard it, otherwise what is stored.
func (s *session) inputOf(t db.ToolTask) (json.RawMessage, *tool.Error) {
	if input, ok := s.crew.wholeInput(t.ToolCallID); ok {
		return input, nil
	}
	return tool.StoredInput(t)
}

// causeOfStart is what moves a waiting run when a call of it starts.
func causeOfStart(t db.ToolTask) event.RunWokenV1Cause {
	if t.ApprovalID != nil {
		return event.RunWokenV1CauseApproval
	}
	return event.RunWokenV1CauseTool
}

// commitStart commits that a call was begun, unless the run is to be canceled.
func (s *session) commitStart(ctx context.Context, started, beside runlog.Change, cause event.RunWokenV1Cause) error {
	return s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		if h.CancelRequested {
			return runlog.Change{}, errStopping
		}
		return s.woken(h, merge(beside, started), cause), nil
	})
}

// woken puts before a change that the run has begun, or goes on.
func (s *session) woken(h runlog.Head, c runlog.Change, cause event.RunWokenV1Cause) runlog.Change {
	var before []event.Event
	switch h.Status {
	case "running", "canceling":
		return c
	case "waiting":
		before = append(before, event.RunWokenV1{Cause: cause})
	default:
		before = append(before, event.RunStartedV1{MessageID: run.MessageID(s.run)})
	}
	c.Events = append(before, c.Events...)
	c.Status = "running"
	c.Rows = append(c.Rows[:len(c.Rows):len(c.Rows)], run.SetStatus(s.run, "running"))
	return c
}

package executor

import (
	"context"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// secondLook is how long a session waits for its calls before it looks again
// without having been told of anything.
const secondLook = 5 * time.Second

// waitForCalls waits for the calls of the open steps. A frame that interrupts
// ends them; the next step answers it too.
func (s *session) waitForCalls(ctx context.Context, open openCalls) (done bool, err error) {
	interrupted, err := s.interrupted(ctx)
	if err != nil {
		return false, err
	}
	if interrupted {
		return false, s.interruptCalls(ctx)
	}
	return s.wait(ctx, open)
}

// interrupted says whether a frame after those that the open steps answer wants
// their calls to end.
func (s *session) interrupted(ctx context.Context) (bool, error) {
	if s.past.rounds == nil {
		return false, nil
	}
	f, err := run.FrameByID(ctx, s.e.Pool, s.run.RunKey, s.past.rounds.FrameID)
	if err != nil || s.now().FrameCount == f.FrameSeq {
		return false, err
	}
	return run.Interrupted(ctx, s.e.Pool, s.run.RunKey, f.FrameSeq)
}

// interruptCalls ends the calls that the open steps asked for.
func (s *session) interruptCalls(ctx context.Context) error {
	why := &tool.Error{Class: "interrupted", Message: "A newer message interrupted the call."}
	for try := 1; ; try++ {
		tasks, err := tool.OpenTasks(ctx, s.e.Pool, s.run.RunKey)
		if err != nil {
			return err
		}
		ofStep := map[string]bool{}
		for _, t := range tasks {
			ofStep[t.ToolCallID] = t.Step != nil
		}
		s.crew.stop(func(id string) bool { return ofStep[id] }, tool.Cause(why.Class, why.Message))
		// What is at work tells its own end.
		var rest []db.ToolTask
		for _, t := range tasks {
			if t.Step != nil && s.crew.job(t.ToolCallID) == nil {
				rest = append(rest, t)
			}
		}
		if len(rest) == 0 {
			break
		}
		change, err := s.stopped(ctx, rest, why)
		if err != nil {
			return err
		}
		err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
			return s.woken(h, change, event.RunWokenV1CauseFrame), nil
		})
		if err == nil {
			break
		}
		if !moved(err) || try == moves {
			return err
		}
	}
	s.crew.suspect()
	if s.crew.any() {
		return s.await(ctx)
	}
	return nil
}

// wait waits for open calls: here while one is at work, and without the lease
// when all that is left is for others to bring.
func (s *session) wait(ctx context.Context, open openCalls) (done bool, err error) {
	switch {
	case open.atWork:
		return false, s.await(ctx)
	case open.asked:
		return s.letGo(ctx, event.RunWaitingV1WaitsForApproval)
	}
	return s.letGo(ctx, event.RunWaitingV1WaitsForTool)
}

// await returns when something has happened, or the run's time is up.
func (s *session) await(ctx context.Context) error {
	pause := secondLook
	if left, bounded := s.timeLeft(); bounded {
		pause = min(pause, max(left, 0))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for waits := true; waits; {
		waits = false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.bell:
		case <-s.crew.room():
		case <-timer.C:
		case <-s.crew.ended:
			waits = s.crew.quiet()
		}
	}
	s.crew.suspect()
	return s.refresh(ctx)
}

// letGo lets the run wait and releases the lease. done is false when something
// has happened that was not looked at.
func (s *session) letGo(ctx context.Context, waitsFor event.RunWaitingV1WaitsFor) (done bool, err error) {
	looked, waits := s.crew.lookedAt(), false
	var most time.Duration // without a bound: for a frame a run may wait for ever
	if waitsFor != event.RunWaitingV1WaitsForFrame {
		most = time.Duration(s.limits.MaxWallClockMs) * time.Millisecond
	}
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		switch waits = !h.CancelRequested; {
		case waitsFor == event.RunWaitingV1WaitsForFrame:
			waits = waits && h.FrameCount == h.FramePosition
		default:
			// Whatever moves the run on is an event: there is none since the look.
			waits = waits && h.Seq == looked
		}
		if !waits {
			return runlog.Change{}, nil
		}
		change := runlog.Change{Rows: []runlog.Row{s.held.Release()}}
		if h.Status != "waiting" {
			change.Events = []event.Event{event.RunWaitingV1{WaitsFor: waitsFor}}
			change.Status = "waiting"
		}
		change.Rows = append(change.Rows, run.SetWaiting(s.run, most))
		return change, nil
	})
	if err != nil || !waits {
		s.crew.suspect()
		return false, err
	}
	s.gone()
	return true, nil
}

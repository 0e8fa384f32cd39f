package executor

import (
	"context"
	"encoding/json"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// start is a call that is to begin.
type start struct {
	call     db.ToolTask
	spec     tool.Spec
	input    json.RawMessage
	fallBack bool
	release  func()        // its place
	beside   runlog.Change // comes before it
}

// provider is who is asked to carry the call out.
func (one start) provider() string {
	if one.spec.Kind == tool.Client {
		return providerClient
	}
	return one.spec.Provider
}

// startsAtOnce bounds how many calls begin in one commit: what others append
// waits for all of it.
const startsAtOnce = 16

// startAll begins the calls that a look found, some in one commit.
func (s *session) startAll(ctx context.Context, l *look) error {
	for len(l.starts) > 0 {
		some := l.starts[:min(len(l.starts), startsAtOnce)]
		err := s.commitStart(ctx, some)
		switch {
		case moved(err) && len(some) > 1:
			// One of them is not where it was; the others begin alone.
			err = s.startEach(ctx, l, len(some))
		case moved(err):
			l.starts[0].release()
			l.starts, l.again, err = l.starts[1:], true, nil
		case err == nil:
			l.starts = l.starts[len(some):]
			err = s.set(ctx, some)
		}
		if err != nil {
			l.letGo()
			return err
		}
	}
	return nil
}

// startEach begins the first calls one by one.
func (s *session) startEach(ctx context.Context, l *look, n int) error {
	for range n {
		alone := &look{starts: l.starts[:1:1]}
		l.starts = l.starts[1:]
		if err := s.startAll(ctx, alone); err != nil {
			return err
		}
		l.again = l.again || alone.again
	}
	return nil
}

// letGo gives back the places of calls that do not begin.
func (l *look) letGo() {
	for _, one := range l.starts {
		one.release()
	}
	l.starts = nil
}

// set has the calls made whose beginning is in the log.
func (s *session) set(ctx context.Context, some []start) error {
	crash.At("tool.started")
	if !s.held.Trusted() {
		// The process stood still since the commit, and a call is not fenced.
		for _, one := range some {
			one.release()
		}
		return lease.ErrLost
	}
	for _, one := range some {
		if one.spec.Kind == tool.Client {
			continue
		}
		t := tool.AfterStart(one.call, one.provider(), s.held.Epoch)
		call, spec := tool.CallOf(s.run, t, one.input), one.spec
		call.MayFallBack, call.Ask = one.fallBack, s.asker(t, spec, one.input)
		s.work(ctx, t, one.release, func(ctx context.Context) tool.Outcome {
			return s.e.Tools.Runner.Do(ctx, call, spec, func(output json.RawMessage) error {
				return s.commit(ctx, func(runlog.Head) (runlog.Change, error) { return tool.Progressed(t, output, s.held.Epoch), nil })
			})
		})
	}
	return nil
}

// causeOfStart is what moves a waiting run when a call of it starts.
func causeOfStart(t db.ToolTask) event.RunWokenV1Cause {
	if t.ApprovalID != nil {
		return event.RunWokenV1CauseApproval
	}
	return event.RunWokenV1CauseTool
}

// commitStart commits that calls were begun, unless the run is to be canceled.
func (s *session) commitStart(ctx context.Context, some []start) error {
	var all runlog.Change
	var tasks []db.ToolTask
	var providers []string
	for _, one := range some {
		all = merge(all, one.beside)
		tasks, providers = append(tasks, one.call), append(providers, one.provider())
	}
	all = merge(all, tool.StartedTogether(tasks, providers, s.held.Epoch))
	canceled, err := s.commitUncanceled(ctx, func(h runlog.Head) runlog.Change {
		return s.woken(h, all, causeOfStart(some[0].call))
	})
	if err == nil && canceled {
		return errStopping
	}
	return err
}

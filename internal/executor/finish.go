package executor

import (
	"context"
	"errors"
	"slices"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// moves bounds how often a change of tool calls is made anew because one of them
// was changed meanwhile by somebody else: the API, or a sweep.
const moves = 8

// errNews says that a frame came that was not looked at: it may have a call
// beside it.
var errNews = errors.New("a frame came meanwhile")

// moved says that a call or a question is not as a change expected it.
func moved(err error) bool { return tool.Moved(err) || approval.Moved(err) }

// finish ends the run: what first still has to say, the end of every open tool
// call and of what people are asked, the run's end and the lease's release are
// one commit.
func (s *session) finish(ctx context.Context, end run.End, first func(runlog.Head) (runlog.Change, error)) error {
	if first == nil {
		first = func(runlog.Head) (runlog.Change, error) { return runlog.Change{}, nil }
	}
	for try := 1; ; try++ {
		looked := s.now()
		closing, err := s.closing(ctx, end)
		if err != nil {
			return err
		}
		final := end
		err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
			if h.FrameCount != looked.FrameCount && try < moves {
				return runlog.Change{}, errNews
			}
			if final = end; h.CancelRequested {
				final = s.canceled()
			}
			change, err := first(h)
			if err != nil {
				return change, err
			}
			change = merge(change, closing)
			change.Rows = append(change.Rows, s.held.Release())
			return run.Finish(s.run, h, change, final)
		})
		if err == nil {
			s.ended(final)
			return nil
		}
		if !moved(err) && !errors.Is(err, errNews) || try == moves {
			return err
		}
		s.crew.suspect()
		if err := s.refresh(ctx); err != nil {
			return err
		}
	}
}

// closing stops the calls at work and makes the change that ends every open one.
func (s *session) closing(ctx context.Context, end run.End) (runlog.Change, error) {
	class, message := tool.ClassRunEnded, "The run has ended: "+end.ReasonClass+"."
	s.crew.stop(func(string) bool { return true }, tool.Cause(class, message))
	s.crew.wait()
	if !s.crew.mayHaveOpen(s.now()) {
		return runlog.Change{}, nil
	}
	tasks, err := tool.OpenTasks(ctx, s.e.Pool, s.run.RunKey)
	if err != nil {
		return runlog.Change{}, err
	}
	return s.stopped(ctx, tasks, &tool.Error{Class: class, Message: message})
}

// stopped is the change that ends open calls canceled, with what people are
// asked about them.
func (s *session) stopped(ctx context.Context, tasks []db.ToolTask, why *tool.Error) (change runlog.Change, err error) {
	var asked []string
	for _, t := range tasks {
		finished, err := tool.Finished(t, tool.Ended(t, tool.Canceled, why), s.held.Epoch)
		if err != nil {
			return change, err
		}
		change = merge(change, finished)
		if t.ApprovalID != nil || mayAsk(t) {
			asked = append(asked, t.ToolCallID)
		}
	}
	if len(asked) == 0 {
		return change, nil
	}
	all, err := approval.OfRun(ctx, s.e.Pool, s.run.RunKey)
	if err != nil {
		return change, err
	}
	for _, a := range all {
		if a.State == approval.Pending && slices.Contains(asked, value(a.ToolCallID)) {
			change = merge(change, approval.Cancel(a, why.Message))
		}
	}
	return change, nil
}

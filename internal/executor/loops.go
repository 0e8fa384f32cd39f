package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/loop"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// loops watches a run's frames for loops. It reads them once, when the session
// begins with one, and then keeps the window.
type loops struct {
	window   *loop.Window
	last     int64 // the frame_seq of the newest in the window
	warnings []event.Event
}

// watchLoops looks at the frames that are to be answered. ended says that the
// run went round and has been ended. A warning goes into the log with the step.
func (s *session) watchLoops(ctx context.Context, frames []db.Frame) (ended bool, err error) {
	if err := s.rebuildWindow(ctx); err != nil {
		return false, err
	}
	for _, f := range frames {
		if f.FrameSeq <= s.loops.last {
			continue
		}
		found, err := s.loops.add(db.FrameListRecentRow{FrameSeq: f.FrameSeq, FrameID: f.FrameID, FrameType: f.FrameType, Payload: f.Payload})
		if err != nil {
			return false, err
		}
		if found == nil {
			continue
		}
		told := event.RunLoopDetectedV1{
			Level: event.RunLoopDetectedV1Level(found.Level), Detector: event.RunLoopDetectedV1Detector(found.Detector),
			Count: int64(found.Count), FrameID: f.FrameID, ReasonCode: loop.ReasonCode, Reason: found.Reason,
		}
		s.e.loopsSeen.WithLabelValues(string(found.Level)).Inc()
		if found.Level == loop.Critical {
			return true, s.endLoop(frameContext(ctx, f), told)
		}
		slog.WarnContext(frameContext(ctx, f), "a run goes round", "run_id", s.run.RunID, "detector", string(found.Detector), "count", found.Count)
		s.loops.warnings = append(s.loops.warnings, told)
	}
	return false, nil
}

// endLoop ends the run that goes round.
func (s *session) endLoop(ctx context.Context, told event.RunLoopDetectedV1) error {
	end := s.end("failed", "loop_detected", told.Reason)
	err := s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		if h.CancelRequested {
			end = s.end("canceled", "cancel_requested", "the run was canceled")
		}
		return run.Finish(s.run, h, runlog.Change{
			Events: append(slices.Clone(s.loops.warnings), told), Rows: []runlog.Row{s.held.Release()},
		}, end)
	})
	if err == nil {
		s.ended(end)
	}
	return err
}

// rebuildWindow reads the newest frames before the ones that wait. What they
// were answered counts as progress: it is not compared with what comes.
func (s *session) rebuildWindow(ctx context.Context) error {
	if s.loops.window != nil {
		return nil
	}
	config := s.e.Config.Loops
	s.loops.window = loop.New(config)
	if s.head.FramePosition == 0 {
		return nil
	}
	frames, err := run.Newest(ctx, s.e.Pool, s.run.RunKey, s.head.FramePosition, config.Window)
	if err != nil {
		return err
	}
	for _, f := range slices.Backward(frames) {
		if _, err := s.loops.add(f); err != nil {
			return err
		}
		s.loops.answered(f.FrameID)
	}
	return nil
}

func (l *loops) add(f db.FrameListRecentRow) (*loop.Finding, error) {
	var payload map[string]any
	if err := json.Unmarshal(f.Payload, &payload); err != nil {
		return nil, fmt.Errorf("the payload of frame %s: %w", f.FrameID, err)
	}
	l.last = f.FrameSeq
	return l.window.Add(f.FrameType, payload)
}

func (l *loops) answered(text string) { l.window.Answered(text) }

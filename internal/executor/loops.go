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
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// loops watches a run's frames for loops. It reads them once, when the session
// begins with one, and then keeps the window.
type loops struct {
	window   *loop.Window
	last     int64 // the frame_seq of the newest in the window
	step     int64 // whose tool calls were the last that were added
	warnings []event.Event
}

// watchLoops looks at the frames that are to be answered. ended says that the
// run went round and has been ended. A warning goes into the log with the step.
func (s *session) watchLoops(ctx context.Context, frames []db.Frame) (ended bool, err error) {
	if err := s.rebuildWindow(ctx); err != nil {
		return false, err
	}
	for _, f := range frames {
		if f.FrameSeq <= s.loops.last || namesCall(f.FrameType, f.Payload) != "" {
			continue
		}
		found, err := s.loops.add(db.FrameListRecentRow{FrameSeq: f.FrameSeq, FrameID: f.FrameID, FrameType: f.FrameType, Payload: f.Payload})
		if err != nil {
			return false, err
		}
		if ended, err := s.goesRound(frameContext(ctx, f), f.FrameID, found); ended || err != nil {
			return ended, err
		}
	}
	return s.watchCalls(ctx, frames[len(frames)-1])
}

// goesRound tells of a loop that was found, if any, and ends the run when it is
// critical.
func (s *session) goesRound(ctx context.Context, frameID string, found *loop.Finding) (ended bool, err error) {
	if found == nil {
		return false, nil
	}
	told := event.RunLoopDetectedV1{
		Level: event.RunLoopDetectedV1Level(found.Level), Detector: event.RunLoopDetectedV1Detector(found.Detector),
		Count: int64(found.Count), FrameID: frameID, ReasonCode: loop.ReasonCode, Reason: found.Reason,
	}
	s.e.loopsSeen.WithLabelValues(string(found.Level)).Inc()
	if found.Level == loop.Critical {
		return true, s.endLoop(ctx, told)
	}
	slog.WarnContext(ctx, "a run goes round", "run_id", s.run.RunID, "detector", string(found.Detector), "count", found.Count)
	s.loops.warnings = append(s.loops.warnings, told)
	return false, nil
}

// endLoop ends the run that goes round.
func (s *session) endLoop(ctx context.Context, told event.RunLoopDetectedV1) error {
	return s.finish(ctx, s.end("failed", "loop_detected", told.Reason), func(runlog.Head) (runlog.Change, error) {
		return runlog.Change{Events: append(slices.Clone(s.loops.warnings), told)}, nil
	})
}

// rebuildWindow reads the newest frames before the ones that wait. What they
// were answered counts as progress: it is not compared with what comes.
func (s *session) rebuildWindow(ctx context.Context) error {
	if s.loops.window != nil {
		return nil
	}
	config := s.e.Config.Loops
	s.loops.window = loop.New(config)
	if position := s.now().FramePosition; position > 0 {
		if err := s.rebuildFrames(ctx, position, config.Window); err != nil {
			return err
		}
	}
	return s.rebuildCalls(ctx, config.Window)
}

func (s *session) rebuildFrames(ctx context.Context, position int64, window int) error {
	frames, err := run.Newest(ctx, s.e.Pool, s.run.RunKey, position, window)
	if err != nil {
		return err
	}
	for _, f := range slices.Backward(frames) {
		if namesCall(f.FrameType, f.Payload) != "" {
			continue // what a tool brought is looked at with its call
		}
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

// watchCalls looks at what the last step's tool calls came to.
func (s *session) watchCalls(ctx context.Context, last db.Frame) (ended bool, err error) {
	rounds := s.past.rounds
	if rounds == nil || s.loops.step >= rounds.Last {
		return false, nil
	}
	calls, err := s.callsAfter(ctx, s.loops.step)
	if err != nil {
		return false, err
	}
	for _, t := range calls {
		found, err := s.loops.addCall(t)
		if err != nil {
			return false, err
		}
		if ended, err := s.goesRound(ctx, last.FrameID, found); ended || err != nil {
			return ended, err
		}
	}
	s.loops.step = rounds.Last
	return false, nil
}

// rebuildCalls reads the calls of the steps before the last one.
func (s *session) rebuildCalls(ctx context.Context, window int) error {
	rounds := s.past.rounds
	if rounds == nil {
		return nil
	}
	calls, err := s.newestCalls(ctx, window)
	if err != nil {
		return err
	}
	for _, t := range calls {
		if t.Step == nil || *t.Step >= rounds.Last {
			continue
		}
		if _, err := s.loops.addCall(t); err != nil {
			return err
		}
		s.loops.step = max(s.loops.step, *t.Step)
	}
	return nil
}

// callsAfter are the calls of the steps after one, the oldest first: at most the
// newest of them.
func (s *session) callsAfter(ctx context.Context, step int64) (calls []db.ToolTask, err error) {
	var page *tool.Page
	for read := 0; read < maxRoundTasks; {
		tasks, next, err := s.listCalls(ctx, page)
		if err != nil {
			return nil, err
		}
		older := false
		for _, t := range tasks {
			if older = t.Step != nil && *t.Step <= step; older {
				break
			}
			if t.Step != nil {
				calls = append(calls, t)
			}
		}
		if read, page = read+len(tasks), next; older || next == nil {
			break
		}
	}
	slices.Reverse(calls)
	return calls, nil
}

// newestCalls are the run's newest calls, the oldest first.
func (s *session) newestCalls(ctx context.Context, most int) ([]db.ToolTask, error) {
	calls, _, err := tool.List(ctx, s.e.Pool, s.run.RunKey, nil, most)
	slices.Reverse(calls)
	return calls, err
}

// addCall adds what a call was and what it came to: a call that is repeated is
// progress when it comes to something else.
func (l *loops) addCall(t db.ToolTask) (*loop.Finding, error) {
	payload := map[string]any{"tool_name": t.ToolName, "state": t.State, "error": value(t.ErrorClass)}
	var input, output any
	if err := json.Unmarshal(t.Input, &input); err != nil {
		return nil, fmt.Errorf("the input of call %s: %w", t.ToolCallID, err)
	}
	if err := json.Unmarshal(outputOf(t), &output); err != nil {
		return nil, fmt.Errorf("the output of call %s: %w", t.ToolCallID, err)
	}
	payload["input"], payload["output"] = input, output
	// What a poll is compared by stands at the top.
	for _, from := range []any{input, output} {
		members, _ := from.(map[string]any)
		for _, name := range []string{"action", "status", "exit_code", "total_lines", "text"} {
			if v, there := members[name]; there {
				payload[name] = v
			}
		}
	}
	return l.window.Add("tool_result", payload)
}

package executor

import (
	"context"
	"encoding/json"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// The types of frames that belong to tool calls.
const (
	frameResult  = "tool_result"  // {toolCallId, output | errorText}
	frameRequest = "tool_request" // {toolCallId, tool, input}
)

// result is the payload of a frame that brings a client tool's result.
type result struct {
	ToolCallID string          `json:"toolCallId"`
	Output     json.RawMessage `json:"output"`
	ErrorText  string          `json:"errorText"`
}

// namesCall gives the tool call that a frame names; "" when it is a frame of
// another kind.
func namesCall(frameType string, payload json.RawMessage) string {
	if frameType != frameResult && frameType != frameRequest {
		return ""
	}
	var named struct {
		ToolCallID string `json:"toolCallId"`
	}
	if json.Unmarshal(payload, &named) != nil {
		return "" // a toolCallId that is no text names no call
	}
	return named.ToolCallID
}

// belongs says whether a frame is of a call: it asked for it, or brings the result
// of a client tool. Every other frame is for the model.
func belongs(frameID, frameType string, t db.ToolTask) bool {
	if frameType == frameRequest {
		return value(t.FrameID) == frameID && t.RequestedBy == "api"
	}
	return tool.Kind(t.Kind) == tool.Client
}

// callOf finds the call that a frame belongs to.
func (s *session) callOf(ctx context.Context, f db.Frame) (t db.ToolTask, found bool, err error) {
	id := namesCall(f.FrameType, f.Payload)
	if id == "" {
		return t, false, nil
	}
	tasks, err := tool.ByIDs(ctx, s.e.Pool, s.run.RunKey, []string{id})
	if err != nil || len(tasks) == 0 {
		return t, false, err
	}
	return tasks[0], belongs(f.FrameID, f.FrameType, tasks[0]), nil
}

const resultFrames = 256 // that are read at once

// takeResults ends the client calls whose results have come, in whatever order;
// the frames are finished in theirs. taken says that one was ended.
func (s *session) takeResults(ctx context.Context) (taken bool, err error) {
	h := s.now()
	after := max(s.crew.resultsUntil, h.FramePosition)
	for after < h.FrameCount {
		frames, err := run.OfTools(ctx, s.e.Pool, s.run.RunKey, after, resultFrames)
		if err != nil {
			return taken, err
		}
		for _, f := range frames {
			took, waits, err := s.takeResult(ctx, f)
			switch {
			case moved(err), waits:
				return true, nil // look again, from this frame on
			case err != nil:
				return taken, err
			}
			taken, after = taken || took, f.FrameSeq
			s.crew.resultsUntil = after
		}
		if len(frames) < resultFrames {
			break
		}
	}
	s.crew.resultsUntil = max(s.crew.resultsUntil, h.FrameCount)
	return taken, nil
}

// takeResult ends the call whose result a frame brings, when it is open. waits
// says that the call is about to be started.
func (s *session) takeResult(ctx context.Context, f db.Frame) (took, waits bool, err error) {
	if f.FrameType != frameResult {
		return false, false, nil
	}
	t, found, err := s.callOf(ctx, f)
	if err != nil || !found || tool.Terminal(t.State) {
		return false, false, err
	}
	if t.State == tool.Queued {
		return false, t.ApprovalID == nil, nil
	}
	r, err := resultOf(f)
	if err != nil {
		return false, false, err
	}
	o := s.e.Tools.Runner.Delivered(s.view, t, f.FrameID, r.Output, r.ErrorText)
	if err := s.endCallWith(frameContext(ctx, f), t, o, runlog.Change{}); err != nil {
		return false, false, err
	}
	crash.At("tool.finished")
	s.afterCall(ctx, t, o)
	return true, false, nil
}

func resultOf(f db.Frame) (r result, err error) {
	if err = json.Unmarshal(f.Payload, &r); err != nil {
		// errorText that is no text is shown as it is.
		var loose struct {
			ToolCallID string          `json:"toolCallId"`
			Output     json.RawMessage `json:"output"`
			ErrorText  json.RawMessage `json:"errorText"`
		}
		if err = json.Unmarshal(f.Payload, &loose); err == nil {
			r = result{loose.ToolCallID, loose.Output, string(loose.ErrorText)}
		}
	}
	return r, err
}

// pass finishes a frame that belongs to a tool call, without a model step, when
// its turn has come.
func (s *session) pass(ctx context.Context, f db.Frame) (passed bool, err error) {
	late, found, err := s.lateOf(ctx, f)
	if err != nil || !found {
		return false, err
	}
	ctx = frameContext(ctx, f)
	return true, s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		if h.FramePosition != f.FrameSeq-1 {
			return runlog.Change{}, nil
		}
		change := late
		change.Events = append(change.Events[:len(change.Events):len(change.Events)], event.FrameFinishedV1{FrameID: f.FrameID, FrameSeq: f.FrameSeq})
		change.FramePosition = 1
		return change, nil
	})
}

// lateOf finds whether a frame belongs to a call. When it brings a result that
// its call did not take, the change says so.
func (s *session) lateOf(ctx context.Context, f db.Frame) (late runlog.Change, found bool, err error) {
	t, found, err := s.callOf(ctx, f)
	if err != nil || !found || f.FrameType != frameResult || value(t.ResultFrameID) == f.FrameID {
		return late, found, err
	}
	r, err := resultOf(f)
	if err != nil {
		return late, found, err
	}
	return tool.Late(t, s.e.Tools.Runner.Delivered(s.view, t, f.FrameID, r.Output, r.ErrorText), f.FrameID), true, nil
}

// lateAmong is lateOf for the frames that a step answers.
func (s *session) lateAmong(ctx context.Context, frames []db.Frame) (late runlog.Change, err error) {
	for _, f := range frames {
		one, _, err := s.lateOf(ctx, f)
		if err != nil {
			return late, err
		}
		late = merge(late, one)
	}
	return late, nil
}

package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// Replay bounds the lines of earlier tool calls that a model is shown.
type Replay struct {
	// Items is how many calls are told of at the most.
	Items int
	// Preview bounds what is shown of an input and of an output, in bytes.
	Preview int
	// Bytes bounds all lines with their ends.
	Bytes int
	// Runs is how many earlier runs of the thread are looked at.
	Runs int
}

// replayed is what a session knows of its run's and its thread's earlier calls.
type replayed struct {
	own     bool          // the run's calls were looked for
	any     bool          // and there were some
	read    bool          // the thread's earlier runs were read
	earlier []db.ToolTask // their calls, newest first
	omitted int64         // of the last lines
}

// replayLines tells of the calls that are not shown as messages: this run's and
// then those of the thread's earlier runs, the newest that fit and the last
// failure of each tool, in the order in which they were asked for.
func (s *session) replayLines(ctx context.Context, rounds openRounds) ([]string, error) {
	tasks, err := s.replayTasks(ctx)
	if err != nil {
		return nil, err
	}
	tasks = slices.DeleteFunc(tasks, func(t db.ToolTask) bool { return rounds.shown[t.ToolCallID] || !tool.Terminal(t.State) })
	lines, omitted := Lines(tasks, s.e.Config.Replay)
	s.replay.omitted = omitted
	return lines, nil
}

// replayTasks are candidates, newest first.
func (s *session) replayTasks(ctx context.Context) ([]db.ToolTask, error) {
	var tasks []db.ToolTask
	if !s.replay.own || s.replay.any || s.crew.wasTouched() {
		own, _, err := s.listCalls(ctx, nil)
		if err != nil {
			return nil, err
		}
		own = own[:min(len(own), 2*s.e.Config.Replay.Items)]
		s.replay.own, s.replay.any = true, s.replay.any || len(own) > 0
		tasks = own
	}
	if !s.replay.read {
		runs, err := run.OfThread(ctx, s.e.Pool, run.Owner(s.run.Owner), s.run.ThreadID, &s.run.RunKey, s.e.Config.Replay.Runs)
		if err != nil {
			return nil, err
		}
		for _, r := range runs {
			earlier, _, err := tool.List(ctx, s.e.Pool, r.RunKey, nil, s.e.Config.Replay.Items)
			if err != nil {
				return nil, err
			}
			s.replay.earlier = append(s.replay.earlier, earlier...)
		}
		s.replay.read = true
	}
	return append(tasks, s.replay.earlier...), nil
}

// Lines renders calls, given newest first, a line of JSON each, oldest first.
// What is left out is counted by a line of its own at the beginning. The same
// calls give the same lines, and all lines with their ends never have more bytes
// than the bound.
func Lines(tasks []db.ToolTask, c Replay) (lines []string, omitted int64) {
	if len(tasks) == 0 {
		return nil, 0
	}
	left := c.Bytes - len(omittedLine(int64(len(tasks)))) - 1
	chosen := map[int]string{}
	take := func(i int) bool {
		line := replayLine(tasks[i], c.Preview)
		if len(chosen) == c.Items || len(line)+1 > left {
			return false
		}
		chosen[i], left = line, left-len(line)-1
		return true
	}
	failed := map[string]bool{}
	for i, t := range tasks {
		if t.State != tool.Succeeded && t.State != tool.Canceled && !failed[t.ToolName] {
			failed[t.ToolName] = true
			take(i)
		}
	}
	for i := range tasks {
		if _, there := chosen[i]; !there && !take(i) {
			break
		}
	}
	if omitted = int64(len(tasks) - len(chosen)); omitted > 0 {
		lines = append(lines, omittedLine(omitted))
	}
	for i := len(tasks) - 1; i >= 0; i-- {
		if line, there := chosen[i]; there {
			lines = append(lines, line)
		}
	}
	return lines, omitted
}

func omittedLine(n int64) string { return fmt.Sprintf(`{"omitted":%d}`, n) }

// replayLine is one call.
func replayLine(t db.ToolTask, preview int) string {
	said := map[string]any{
		"at": t.QueuedAt.UTC().Format(time.RFC3339), "call": t.ToolCallID, "tool": t.ToolName, "state": t.State,
		"input": cutBytes(string(redact.JSON(t.Input)), preview),
	}
	if t.State == tool.Succeeded {
		said["output"] = cutBytes(string(redact.JSON(outputOf(t))), preview)
	} else {
		said["error"], said["message"] = value(t.ErrorClass), cutBytes(redact.Text(value(t.ErrorMessage)), preview)
	}
	line, err := canon.Marshal(said)
	if err != nil {
		return `{"call":"` + t.ToolCallID + `"}` // texts that are no Unicode are not stored
	}
	return strings.ReplaceAll(string(line), "\n", " ")
}

// replayedEvent is what the log tells of the lines that a step was shown.
func replayedEvent(lines []string, omitted, step int64) ([]event.Event, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	hash, err := canon.HashJSON(lines)
	if err != nil {
		return nil, err
	}
	return []event.Event{event.ToolReplayedV1{Step: step, Lines: lines, Omitted: omitted, ReplayHash: hash}}, nil
}

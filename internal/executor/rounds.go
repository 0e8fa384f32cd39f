package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

const (
	// maxToolMessage bounds what a model is shown of one call's outcome, in bytes.
	maxToolMessage = 8 << 10
	// maxRoundTasks bounds how many calls of the open frames are read.
	maxRoundTasks = 256
	// roundShare is the part of the window that the open frames' rounds may fill.
	roundShare = 4 // of 5
)

// openRounds are the calls of the steps that belong to the open frames, by step,
// in their order. Those that are shown are told as messages.
type openRounds struct {
	calls map[int64][]db.ToolTask
	shown map[string]bool // by tool_call_id
}

// readRounds reads the calls of the open frames, the newest ones.
func (s *session) readRounds(ctx context.Context) (openRounds, error) {
	r := openRounds{calls: map[int64][]db.ToolTask{}, shown: map[string]bool{}}
	rounds := s.past.rounds
	if rounds == nil {
		return r, nil
	}
	var after *tool.Page
	for read := 0; read < maxRoundTasks; {
		tasks, next, err := s.listCalls(ctx, after)
		if err != nil {
			return r, err
		}
		for _, t := range tasks {
			if t.Step != nil && *t.Step < rounds.First {
				return r.sorted(), nil
			}
			if t.Step != nil {
				r.calls[*t.Step] = append(r.calls[*t.Step], t)
			}
		}
		if read, after = read+len(tasks), next; next == nil {
			return r.sorted(), nil
		}
	}
	r.sorted()
	// The oldest may be there in part.
	oldest := rounds.Last
	for step := range r.calls {
		oldest = min(oldest, step)
	}
	if len(r.calls) > 1 {
		delete(r.calls, oldest)
	}
	return r, nil
}

const firstTasks = 64 // that are read at once

// firstCalls is the first page of a run's calls. A step reads it once: the calls
// that it is made of have ended before it begins.
type firstCalls struct {
	read  bool
	tasks []db.ToolTask
	next  *tool.Page
}

// listCalls is a page of the run's calls, newest first.
func (s *session) listCalls(ctx context.Context, after *tool.Page) ([]db.ToolTask, *tool.Page, error) {
	if after != nil {
		return tool.List(ctx, s.e.Pool, s.run.RunKey, after, firstTasks)
	}
	f := &s.first
	if !f.read {
		var err error
		if f.tasks, f.next, err = tool.List(ctx, s.e.Pool, s.run.RunKey, nil, firstTasks); err != nil {
			return nil, nil, err
		}
		f.read = true
	}
	return slices.Clone(f.tasks), f.next, nil
}

func (r openRounds) sorted() openRounds {
	for _, calls := range r.calls {
		slices.SortFunc(calls, func(a, b db.ToolTask) int { return int(a.CallIndex - b.CallIndex) })
	}
	return r
}

// messages are a step as the model is shown it: what it said with the calls that
// it asked for, then what each came to.
func (s *session) roundMessages(text string, calls []db.ToolTask, bound int) []message {
	bound = max(256, min(maxToolMessage, bound/max(1, 2*len(calls))))
	said := message{Role: ds.MessageV1RoleAssistant, Content: text}
	out := []message{said}
	for _, t := range calls {
		out[0].ToolCalls = append(out[0].ToolCalls, ds.MessageV1ToolCall{
			ToolCallID: t.ToolCallID, ToolName: s.toldAs(t.ToolName), Arguments: shownArguments(t.Input, bound),
		})
		id := t.ToolCallID
		out = append(out, message{Role: ds.MessageV1RoleTool, ToolCallID: &id, Content: cutBytes(outcomeOf(t), bound)})
	}
	return out
}

// toldAs is a tool's name as models know it, also of one that is not there any more.
func (s *session) toldAs(name string) string {
	if told := s.view.ModelName(name); told != "" {
		return told
	}
	told := notInNames.ReplaceAllString(name, "_")
	return told[:min(len(told), 64)]
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9_-]`)

// shownArguments are a call's arguments; those that are too long are shown by
// their beginning.
func shownArguments(input json.RawMessage, bound int) map[string]any {
	arguments := map[string]any{}
	d := json.NewDecoder(bytes.NewReader(input))
	d.UseNumber()
	if len(input) > bound || d.Decode(&arguments) != nil {
		return map[string]any{"shortened": cutBytes(string(input), bound)}
	}
	return arguments
}

// outcomeOf is what a model is shown of a call that has ended, as JSON.
func outcomeOf(t db.ToolTask) string {
	if t.State == tool.Succeeded {
		return string(outputOf(t))
	}
	content, err := json.Marshal(map[string]any{"error": value(t.ErrorClass), "message": value(t.ErrorMessage), "state": t.State})
	if err != nil {
		return `{"state":"` + t.State + `"}` // strings always encode
	}
	return string(content)
}

func outputOf(t db.ToolTask) json.RawMessage {
	if len(t.Output) == 0 {
		return json.RawMessage("null")
	}
	return t.Output
}

// cutBytes shortens a text to at most so many bytes, at a character's end.
func cutBytes(text string, most int) string {
	const mark = "…"
	if len(text) <= most {
		return text
	}
	end := max(0, most-len(mark))
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.ToValidUTF8(text[:end], "") + mark
}

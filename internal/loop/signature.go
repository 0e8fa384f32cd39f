package loop

import (
	"fmt"
	"slices"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// toolTypes are the types of frames that tell of a tool.
var toolTypes = []string{"tool_result", "tool_status", "tool_call", "tool_output", "agent_action"}

// pollFields are what a known poll is compared by, each with the names that it
// may have.
var pollFields = [][]string{
	{"tool_name", "toolName"}, {"action"}, {"status"}, {"exit_code", "exitCode"}, {"total_lines", "totalLines"},
	{"text", "output", "message"},
}

// entryOf makes an entry of a frame: its signature is the digest of its type and
// payload in canonical form, without what is volatile.
func (w *Window) entryOf(frameType string, payload map[string]any) (entry, error) {
	e := entry{tool: slices.Contains(toolTypes, frameType), spoken: slices.Contains(w.config.Spoken, frameType)}
	var err error
	if e.signature, err = digest(map[string]any{"type": frameType, "payload": w.steady(payload)}); err != nil {
		return e, fmt.Errorf("a frame's signature: %w", err)
	}
	if !isPoll(frameType, payload) {
		return e, nil
	}
	fields := map[string]any{"type": frameType}
	for _, names := range pollFields {
		if v, ok := first(payload, names); ok {
			fields[names[0]] = v
		}
	}
	if e.poll, err = digest(fields); err != nil {
		return e, fmt.Errorf("a poll's signature: %w", err)
	}
	return e, nil
}

func digest(v any) (canon.Digest, error) {
	b, err := canon.Marshal(v)
	if err != nil {
		return canon.Digest{}, err
	}
	return canon.Sum(b), nil
}

// isPoll says whether a frame asks or tells how a command is getting on.
func isPoll(frameType string, payload map[string]any) bool {
	if !slices.Contains([]string{"tool_result", "tool_status", "tool_call"}, frameType) {
		return false
	}
	tool, _ := first(payload, pollFields[0])
	action := payload["action"]
	return tool == "command_status" || tool == "process" && (action == "poll" || action == "log")
}

func first(payload map[string]any, names []string) (any, bool) {
	for _, name := range names {
		if v, ok := payload[name]; ok {
			return v, true
		}
	}
	return nil, false
}

// steady is a value without its volatile members.
func (w *Window) steady(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			if !slices.Contains(w.config.Volatile, name) {
				out[name] = w.steady(member)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = w.steady(item)
		}
		return out
	default:
		return v
	}
}

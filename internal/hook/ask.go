package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
)

// maxReason bounds what is told of a hook's error, in bytes.
const maxReason = 300

// Ask asks the hooks of a phase one after another, the highest priority first,
// and merges what they answer: for each key and each member of an input the
// highest priority wins, and contexts follow one another. The events say what
// every hook did; those of the phases that change nothing say that they were asked.
func (r *Registry) Ask(ctx context.Context, e Event) (Result, []event.Event) {
	if !r.Any(e.Phase) {
		return nil, nil
	}
	merged := Result{}
	var told []event.Event
	for _, h := range r.phases[e.Phase] {
		answer, err := h.ask(ctx, e)
		if err != nil {
			told = append(told, h.failed(e, err))
			continue
		}
		if len(answer) == 0 && len(keys[e.Phase]) > 0 {
			continue
		}
		// What a hook says is shown to the model, which may repeat it.
		merged.take(clean(answer))
		applied := event.RunHookAppliedV1{HookID: h.ID, Phase: string(h.Phase), Priority: h.Priority,
			ResultKeys: slices.Sorted(maps.Keys(answer))}
		if applied.ResultKeys == nil {
			applied.ResultKeys = []string{}
		}
		if e.ToolCallID != "" {
			applied.ToolCallID = &e.ToolCallID
		}
		told = append(told, applied)
	}
	return merged, told
}

var (
	errInvalid = errors.New("its answer is not one that the phase takes")
	errPanic   = errors.New("it panicked")
)

// ask calls the handler in a goroutine of its own. One that does not return in
// time is left behind and heard no more.
func (h Hook) ask(ctx context.Context, e Event) (Result, error) {
	ctx, stop := context.WithTimeout(ctx, h.Timeout)
	defer stop()
	type said struct {
		answer Result
		err    error
	}
	done := make(chan said, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- said{err: fmt.Errorf("%w: %v", errPanic, p)}
			}
		}()
		answer, err := h.Handle(ctx, e)
		done <- said{answer, err}
	}()
	select {
	case s := <-done:
		if s.err != nil {
			return nil, s.err
		}
		return s.answer, h.check(s.answer)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// check refuses an answer as a whole.
func (h Hook) check(answer Result) error {
	for key, value := range answer {
		if !slices.Contains(keys[h.Phase], key) {
			return fmt.Errorf("%w: it has %q", errInvalid, key)
		}
		switch key {
		case KeyInput:
			object, ok := value.(map[string]any)
			raw, err := json.Marshal(object)
			if !ok || err != nil || len(raw) > MaxText {
				return fmt.Errorf("%w: %s is an object of at most %d bytes", errInvalid, key, MaxText)
			}
		default:
			text, ok := value.(string)
			if !ok || len(text) > MaxText || strings.ToValidUTF8(text, "") != text {
				return fmt.Errorf("%w: %s is a text of at most %d bytes", errInvalid, key, MaxText)
			}
		}
	}
	return nil
}

// clean takes secrets out of an answer's texts. An input is the call's, and is
// redacted as such.
func clean(answer Result) Result {
	answer = maps.Clone(answer)
	for key, value := range answer {
		if text, ok := value.(string); ok {
			answer[key] = redact.Text(text)
		}
	}
	return answer
}

func (h Hook) failed(e Event, err error) event.RunHookErrorV1 {
	class := event.RunHookErrorV1ErrorClassFailed
	switch {
	case errors.Is(err, errInvalid):
		class = event.RunHookErrorV1ErrorClassInvalidResult
	case errors.Is(err, errPanic):
		class = event.RunHookErrorV1ErrorClassPanic
	case errors.Is(err, context.DeadlineExceeded):
		class = event.RunHookErrorV1ErrorClassTimeout
	}
	reason := redact.Text(strings.ToValidUTF8(err.Error(), "�"))
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	told := event.RunHookErrorV1{HookID: h.ID, Phase: string(h.Phase), Priority: h.Priority, ErrorClass: class, Reason: &reason}
	if e.ToolCallID != "" {
		told.ToolCallID = &e.ToolCallID
	}
	return told
}

// take merges an answer of a lower priority.
func (r Result) take(answer Result) {
	for key, value := range answer {
		before, there := r[key]
		switch {
		case !there && key == KeyInput:
			r[key] = maps.Clone(value.(map[string]any))
		case !there:
			r[key] = value
		case key == KeyPrependContext:
			r[key] = before.(string) + "\n\n" + value.(string)
		case key == KeyInput:
			input := before.(map[string]any)
			for member, v := range value.(map[string]any) {
				if _, taken := input[member]; !taken {
					input[member] = v
				}
			}
		}
	}
}

// Text gives a key that is a string, "" when nobody answered it.
func (r Result) Text(key string) string {
	text, _ := r[key].(string)
	return text
}

// Input gives the members that hooks want in the call's input.
func (r Result) Input() map[string]any {
	input, _ := r[KeyInput].(map[string]any)
	return input
}

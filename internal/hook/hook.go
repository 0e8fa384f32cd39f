package hook

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Phase says when a hook is asked.
type Phase string

// The phases.
const (
	// BeforeRun is before the first step of a run.
	BeforeRun Phase = "before_run"
	// BeforeStep is before a model call; a hook may answer with KeyPrependContext
	// and KeySystemPrompt.
	BeforeStep Phase = "before_step"
	// AfterStep is after a step's end was committed.
	AfterStep Phase = "after_step"
	// BeforeToolCall is after the model asked for a tool and before policy
	// decides; a hook may answer with KeyInput.
	BeforeToolCall Phase = "before_tool_call"
	// AfterToolCall is after a call's outcome was committed.
	AfterToolCall Phase = "after_tool_call"
	// AfterRun is after the run's end. No event can follow that: what a hook does
	// wrong then is in the process's log alone.
	AfterRun Phase = "after_run"
)

// What hooks may answer with.
const (
	// KeyPrependContext is a string that is put before the newest message of the
	// user; those of several hooks follow one another.
	KeyPrependContext = "prepend_context"
	// KeySystemPrompt is a string that takes the place of the signature's prompt.
	KeySystemPrompt = "system_prompt"
	// KeyInput is an object whose members take the place of the call's.
	KeyInput = "input"
)

// keys are what may be answered in each phase.
var keys = map[Phase][]string{
	BeforeRun: nil, AfterRun: nil, AfterStep: nil, AfterToolCall: nil,
	BeforeStep:     {KeyPrependContext, KeySystemPrompt},
	BeforeToolCall: {KeyInput},
}

// DefaultTimeout bounds a hook that names no time.
const DefaultTimeout = 2 * time.Second

// MaxText bounds the strings and objects that hooks answer with, in bytes.
const MaxText = 16 << 10

// Event is what a hook is told.
type Event struct {
	Phase      Phase           `json:"phase"`
	RunID      string          `json:"run_id"`
	ThreadID   string          `json:"thread_id"`
	Owner      string          `json:"owner"`
	Step       int64           `json:"step,omitempty"`
	FrameID    string          `json:"frame_id,omitempty"`
	FrameType  string          `json:"frame_type,omitempty"`
	ToolCallID string          `json:"tool_call_id,omitempty"`
	ToolName   string          `json:"tool_name,omitempty"`
	Input      json.RawMessage `json:"input,omitempty"`  // of the tool call, redacted
	Output     json.RawMessage `json:"output,omitempty"` // of the tool call, redacted
	Status     string          `json:"status,omitempty"` // of the step, the tool call or the run
}

// Result is what a hook answers, by key; nil changes nothing.
type Result map[string]any

// Handler is a hook's function. It must return soon after ctx has ended.
type Handler func(ctx context.Context, e Event) (Result, error)

// Hook is one hook. The same ID may be registered for several phases.
type Hook struct {
	ID       string
	Phase    Phase
	Priority int64 // higher goes first, and wins
	Timeout  time.Duration
	Handle   Handler
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (h Hook) validate() error {
	switch _, known := keys[h.Phase]; {
	case !idPattern.MatchString(h.ID):
		return fmt.Errorf("hook %q: an id is 1 to 64 letters, digits, dots, _ and -", h.ID)
	case !known:
		return fmt.Errorf("hook %s: there is no phase %q", h.ID, h.Phase)
	case h.Handle == nil:
		return fmt.Errorf("hook %s: it has no handler", h.ID)
	case h.Timeout < 0 || h.Timeout > time.Minute:
		return fmt.Errorf("hook %s: its timeout is at most a minute", h.ID)
	}
	return nil
}

// Registry is the hooks of a process, in their order.
type Registry struct{ phases map[Phase][]Hook }

// NewRegistry takes hooks. An error names every one that cannot be registered.
func NewRegistry(hooks ...Hook) (*Registry, error) {
	r := &Registry{phases: map[Phase][]Hook{}}
	var wrong []error
	for _, h := range hooks {
		if err := h.validate(); err != nil {
			wrong = append(wrong, err)
			continue
		}
		if slices.ContainsFunc(r.phases[h.Phase], func(old Hook) bool { return old.ID == h.ID }) {
			wrong = append(wrong, fmt.Errorf("hook %s: it is registered twice for %s", h.ID, h.Phase))
			continue
		}
		h.Timeout = cmp.Or(h.Timeout, DefaultTimeout)
		r.phases[h.Phase] = append(r.phases[h.Phase], h)
	}
	for _, list := range r.phases {
		slices.SortFunc(list, func(a, b Hook) int {
			return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.ID, b.ID))
		})
	}
	return r, errors.Join(wrong...)
}

// Any says whether a phase has hooks.
func (r *Registry) Any(p Phase) bool { return r != nil && len(r.phases[p]) > 0 }

package tool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"
)

// failure is how an attempt did not succeed.
type failure struct {
	state string
	err   *Error
}

// answer is what a tool's function returned.
type answer struct {
	res Result
	err error
}

// attempt makes one attempt at a call, in a goroutine of its own so that a tool
// that does not heed its context delays nobody.
func (r *Runner) attempt(ctx context.Context, call Call, e *entry, m *meter) (Result, *failure) {
	r.attempts.WithLabelValues(e.spec.Provider).Inc()
	within, stop := context.WithTimeout(ctx, e.spec.Timeout)
	defer stop()
	if call.Ask != nil {
		var c *clock
		within, c = withClock(ctx, e.spec.Timeout)
		defer c.stop()
		call.Ask = c.asking(call.Ask)
	}
	progress, silence := m.open()
	defer silence()
	done := make(chan answer, 1)
	go func() {
		done <- contained(e.spec.Name, func() (Result, error) { return e.tool.Run(within, call, progress) })
	}()
	var due <-chan time.Time
	for {
		select {
		case a := <-done:
			return judge(ctx, within, e.spec, a)
		case <-m.bell:
			if wait := time.Until(m.next); wait > 0 {
				due = time.After(wait)
			} else {
				m.flush()
			}
		case <-due:
			due = nil
			m.flush()
		case <-within.Done():
			select {
			case a := <-done:
				return judge(ctx, within, e.spec, a)
			case <-time.After(r.c.Grace):
				r.abandoned.WithLabelValues(e.spec.Provider).Inc()
				slog.WarnContext(ctx, "a tool did not end with its context and was left behind",
					"tool", e.spec.Name, "run_id", call.RunID, "tool_call_id", call.ToolCallID)
				return judge(ctx, within, e.spec, answer{err: within.Err()})
			}
		}
	}
}

// errPanic is what a panic is turned into.
type errPanic struct{ value any }

func (e errPanic) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// contained turns a panic into an error, and logs where it was.
func contained(name string, do func() (Result, error)) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			slog.Error("a tool panicked", "tool", name, "stack", string(debug.Stack()))
			a = answer{err: errPanic{p}}
		}
	}()
	res, err := do()
	return answer{res, err}
}

// judge says what an answer means. What succeeded has succeeded, even if somebody
// wanted it to stop.
func judge(ctx, within context.Context, s Spec, a answer) (Result, *failure) {
	if a.err == nil {
		return a.res, nil
	}
	var (
		told   *Error
		broken errPanic
		f      failure
	)
	known := errors.As(a.err, &told)
	switch {
	case ctx.Err() != nil:
		f.state, f.err = ended(ctx)
	case within.Err() != nil:
		f = failure{TimedOut, &Error{Class: ClassTimeout, ReasonCode: reasonProvider, ProviderFault: true,
			Message: fmt.Sprintf("The call was not over after %v.", s.Timeout)}}
	case known:
		copied := *told
		f = failure{Failed, &copied}
	case errors.As(a.err, &broken):
		f = failure{Failed, &Error{Class: ClassPanic, Message: "The tool broke."}}
	default:
		f = failure{Failed, &Error{Class: ClassFailed, Message: a.err.Error()}}
	}
	// Only the tool can know that a call which was begun has had no effect.
	f.err.Unknown = known && told.Unknown || !known && s.Writes
	return a.res, &f
}

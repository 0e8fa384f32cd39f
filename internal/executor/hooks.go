package executor

import (
	"context"
	"log/slog"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// tell puts what hooks did into the log. A run that has ended takes no more;
// then the process's log has what went wrong.
func (s *session) tell(ctx context.Context, told []event.Event) {
	if len(told) == 0 {
		return
	}
	var err error
	if s.over == nil {
		if err = s.commit(ctx, runlog.Append(told...)); err == nil {
			return
		}
	}
	for _, e := range told {
		if wrong, ok := e.(event.RunHookErrorV1); ok {
			slog.WarnContext(ctx, "a hook failed", "run_id", s.run.RunID, "hook_id", wrong.HookID, "phase", wrong.Phase,
				"error_class", string(wrong.ErrorClass), "reason", value(wrong.Reason))
		}
	}
	if err != nil {
		slog.WarnContext(ctx, "what hooks did could not be written into the run's log", "run_id", s.run.RunID, "error", err.Error())
	}
}

// beforeStep asks the hooks before a run's first step and before each.
func (s *session) beforeStep(ctx context.Context, frame db.Frame, step int64) (answer hook.Result, told []event.Event) {
	if !s.past.started {
		_, told = s.e.Tools.Hooks.Ask(ctx, s.hookEvent(hook.BeforeRun, step, frame))
	}
	answer, more := s.e.Tools.Hooks.Ask(ctx, s.hookEvent(hook.BeforeStep, step, frame))
	return answer, append(told, more...)
}

// withHooks changes a call as hooks answered.
func withHooks(in *ds.RespondV1Input, answer hook.Result) (options []predict.Option) {
	if text := answer.Text(hook.KeyPrependContext); text != "" {
		for i := len(in.Messages) - 1; i >= 0; i-- {
			if in.Messages[i].Role == ds.MessageV1RoleUser {
				in.Messages[i].Content = text + "\n\n" + in.Messages[i].Content
				break
			}
		}
	}
	if text := answer.Text(hook.KeySystemPrompt); text != "" {
		options = append(options, predict.SystemPrompt(text))
	}
	return options
}

// afterStep asks the hooks after a step.
func (s *session) afterStep(ctx context.Context, frame db.Frame, step int64, status string) {
	e := s.hookEvent(hook.AfterStep, step, frame)
	e.Status = status
	_, told := s.e.Tools.Hooks.Ask(ctx, e)
	s.tell(ctx, told)
}

// afterCall asks the hooks after a tool call.
func (s *session) afterCall(ctx context.Context, t db.ToolTask, o tool.Outcome) {
	if !s.e.Tools.Hooks.Any(hook.AfterToolCall) {
		return
	}
	e := s.hookEvent(hook.AfterToolCall, 0, db.Frame{FrameID: value(t.FrameID)})
	e.ToolCallID, e.ToolName, e.Input, e.Output, e.Status = t.ToolCallID, t.ToolName, t.Input, o.Output, o.State
	_, told := s.e.Tools.Hooks.Ask(ctx, e)
	if len(told) > 0 {
		if err := s.commit(ctx, runlog.Append(told...)); err != nil {
			slog.WarnContext(ctx, "what hooks did could not be written into the run's log", "run_id", s.run.RunID, "error", err.Error())
		}
	}
}

// afterRun asks the hooks after the run's end.
func (s *session) afterRun(ctx context.Context) {
	if s.over == nil {
		return
	}
	e := s.hookEvent(hook.AfterRun, 0, db.Frame{})
	e.Status = s.over.Status
	_, told := s.e.Tools.Hooks.Ask(context.WithoutCancel(ctx), e)
	s.tell(ctx, told)
}

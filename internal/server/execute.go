package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

const (
	// toolRequest is the type of the frames that executeTool appends.
	toolRequest = "tool_request"
	// byAPI is who asks for these calls.
	byAPI = string(event.ToolRequestedV1RequestedByAPI)
)

// ExecuteTool has a run call a tool, once.
func (s *Server) ExecuteTool(ctx context.Context, req api.ExecuteToolRequestObject) (api.ExecuteToolResponseObject, error) {
	input, err := canon.Marshal(req.Body.Input)
	if err != nil {
		return nil, fmt.Errorf("execute tool: %w", err)
	}
	r, err := s.runNamed(ctx, req.Body.RunID)
	if err != nil {
		return nil, err
	}
	q := tool.Request{
		Run: r, ToolCallID: req.Body.ToolCallID, Spec: tool.Spec{Name: req.Body.Tool}, Input: input, RequestedBy: byAPI,
		FrameID: "tool:" + req.Body.ToolCallID, Trace: telemetry.TraceFrom(ctx),
	}
	if err := s.refusedBefore(ctx, q); err != nil {
		return nil, err
	}
	task, known, err := tool.Known(ctx, s.Pool, r.RunKey, q.ToolCallID, q.Spec.Name, tool.ParamsHash(input))
	if err == nil && !known {
		task, known, err = s.ask(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	if task, err = s.awaitEnd(ctx, task, time.Duration(*req.Params.Wait)*time.Millisecond); err != nil {
		return nil, err
	}
	t, err := taskOf(task)
	if err != nil {
		return nil, err
	}
	if known || tool.Terminal(task.State) {
		return api.ExecuteTool200JSONResponse{Body: t}, nil
	}
	return api.ExecuteTool202JSONResponse{Body: t}, nil
}

// ask puts a call into the run's log, when its input fits and policy lets it.
// known says that somebody was first with the same call.
func (s *Server) ask(ctx context.Context, q tool.Request) (t db.ToolTask, known bool, err error) {
	if runlog.Terminal(q.Run.Status) {
		return t, false, fault.New(api.RunFinished, "the run has ended; start a new run for a new call")
	}
	evaluation, err := s.evaluate(ctx, &q)
	if err != nil {
		return t, false, err
	}
	change, err := s.requested(ctx, q, evaluation)
	if err != nil {
		return t, false, err
	}
	payload, err := canon.Marshal(map[string]any{"toolCallId": q.ToolCallID, "tool": q.Spec.Name, "input": q.Input})
	if err != nil {
		return t, false, fmt.Errorf("execute tool: %w", err)
	}
	frame := run.Frame{FrameID: q.FrameID, Type: toolRequest, Payload: payload}
	counted := s.Admission.frame(&frame, run.Owner(q.Run.Owner))
	frame.With = func(runlog.Head) (runlog.Change, error) { return change, nil }
	accepted, err := run.AppendFrame(ctx, s.Pool, s.Log, q.Run, frame)
	switch {
	case err == nil && !accepted.Replay:
		counted()
	case err == nil, tool.Moved(err), fault.Is(err, api.FrameConflict):
		known = true
	default:
		return t, false, err
	}
	t, found, err := tool.Known(ctx, s.Pool, q.Run.RunKey, q.ToolCallID, q.Spec.Name, tool.ParamsHash(q.Input))
	if err == nil && !found {
		return t, false, fault.New(api.ToolCallConflict, "a frame of the run has the id that this call's would have, %s; use another toolCallId", q.FrameID)
	}
	return t, known, err
}

// evaluate finds the request's tool, checks its input and asks policy.
func (s *Server) evaluate(ctx context.Context, q *tool.Request) (policy.Evaluation, error) {
	view, err := s.Tools.Catalog.For(q.Run.ClientTools)
	if err != nil {
		return policy.Evaluation{}, fmt.Errorf("execute tool: %w", err)
	}
	spec, found := view.Spec(q.Spec.Name)
	switch {
	case !found:
		return policy.Evaluation{}, fault.New(api.ToolNotFound, "there is no tool of this name; listTools has those that there are")
	case spec.Kind == tool.Client:
		return policy.Evaluation{}, unfitBody("/tool", "is a tool that the caller carries out; call it there")
	}
	if unfit := view.CheckInput(spec.Name, q.Input); unfit != nil {
		return policy.Evaluation{}, fault.New(api.ToolInputInvalid, "%s", unfit.Message)
	}
	q.Spec = spec
	rules, err := tool.PolicyRun(q.Run)
	if err != nil {
		return policy.Evaluation{}, err
	}
	in := s.Tools.Rules.Input(rules, spec.Asked(), policy.Call{ArgsHash: tool.ParamsHash(q.Input)})
	return s.Tools.Rates.Decide(ctx, in, q.Run.Owner, q.Run.RunKey, q.ToolCallID, spec)
}

// requested is what goes into the log with the frame of a call: the call, and the
// question to a person when it needs one. A call that policy refuses is in the log
// as refused, and an error.
func (s *Server) requested(ctx context.Context, q tool.Request, e policy.Evaluation) (runlog.Change, error) {
	switch e.Decision {
	case policy.Allowed:
		return tool.Requested(q, e, "")
	case policy.NeedsApproval:
		return s.withApproval(ctx, q, e)
	default:
		return runlog.Change{}, s.refused(ctx, q, e)
	}
}

func (s *Server) withApproval(ctx context.Context, q tool.Request, e policy.Evaluation) (runlog.Change, error) {
	if most := int64(s.Tools.Rules.Limits().PendingApprovals); most > 0 {
		waiting, err := approval.CountPending(ctx, s.Pool, run.Owner(q.Run.Owner))
		if err != nil {
			return runlog.Change{}, err
		}
		if waiting >= most {
			return runlog.Change{}, fault.New(api.OwnerBusy, "%d questions wait for this owner's decision; ask more when some are decided", waiting).
				With("pendingApprovals", waiting).With("maxPendingApprovals", most)
		}
	}
	question, err := approval.OfCall(approval.Call{
		ToolCallID: q.ToolCallID, RequestedBy: q.RequestedBy, Tool: q.Spec.Name, Title: q.Spec.Title, Input: q.Input,
		ArgsHash: tool.ParamsHash(q.Input),
	}, e, s.Tools.Rules.ApprovalLifetime())
	if err != nil {
		return runlog.Change{}, err
	}
	id, err := approval.ID(q.Run.RunID, question)
	if err != nil {
		return runlog.Change{}, err
	}
	change, err := tool.Requested(q, e, id)
	if err != nil {
		return runlog.Change{}, err
	}
	asked, err := approval.Request(q.Run, question)
	change.Events = append(change.Events, asked.Events...)
	change.Rows = append(change.Rows, asked.Rows...)
	return change, err
}

// refused logs that policy refuses a call, and answers with the refusal: this one,
// or the one that somebody was first with.
func (s *Server) refused(ctx context.Context, q tool.Request, e policy.Evaluation) error {
	change := tool.Refusal(q, e)
	_, err := s.Log.Commit(ctx, runlog.Unit{RunKey: q.Run.RunKey, RunID: q.Run.RunID, Trace: q.Trace,
		Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
	switch {
	case tool.Moved(err):
		return s.refusedBefore(ctx, q)
	case err != nil && !errors.Is(err, runlog.ErrFinished):
		return fmt.Errorf("execute tool: %w", err)
	}
	slog.WarnContext(ctx, "policy refused a tool call", "run_id", q.Run.RunID, "tool_call_id", q.ToolCallID, "tool", q.Spec.Name,
		"reason_code", e.ReasonCode, "evaluation_hash", e.Hash, "actor", callerOf(ctx).Actor)
	return denied(e.ReasonCode, e.Hash, e.RetryAfter.Milliseconds())
}

// refusedBefore is the answer to a call that was refused under its id; nil when it
// was not.
func (s *Server) refusedBefore(ctx context.Context, q tool.Request) error {
	r, found, err := tool.RefusedBefore(ctx, s.Pool, q.Run.RunKey, q.ToolCallID, q.Spec.Name, tool.ParamsHash(q.Input))
	if err != nil || !found {
		return err
	}
	return denied(r.ReasonCode, r.EvaluationHash, deref(r.RetryAfterMs))
}

func denied(reasonCode, evaluationHash string, retryAfterMs int64) error {
	f := fault.New(api.PolicyDenied, "the run's policy refuses this call: %s", reasonCode).
		With("reasonCode", reasonCode).With("evaluationHash", evaluationHash)
	if retryAfterMs > 0 {
		f = f.With("retryAfterMs", retryAfterMs)
	}
	return f
}

// awaitEnd follows the run's log until a call has ended, for so long. It answers
// the call as it is then.
func (s *Server) awaitEnd(ctx context.Context, t db.ToolTask, wait time.Duration) (db.ToolTask, error) {
	if wait <= 0 || tool.Terminal(t.State) {
		return t, nil
	}
	// Who waits is no work.
	admittedOf(ctx).leave()
	if end, bounded := ctx.Deadline(); bounded {
		wait = min(wait, time.Until(end)-time.Second) // so that there is time to answer
	}
	bell := s.Watch.Run(t.RunKey)
	defer bell.Close()
	over := time.NewTimer(wait)
	defer over.Stop()
	for {
		var err error
		if t, err = s.taskNow(ctx, t); err != nil || tool.Terminal(t.State) {
			return t, err
		}
		select {
		case <-bell.C:
		case <-over.C:
			return t, nil
		case <-s.Draining:
			return t, nil
		case <-ctx.Done():
			return t, ctx.Err()
		}
	}
}

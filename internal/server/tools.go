package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// Tools are what runs may call, and the rules for it.
type Tools struct {
	Catalog *tool.Catalog
	Rules   *policy.Rules
	Rates   tool.Rates
	// Breakers tells the circuit breakers of this process, by provider.
	Breakers func() map[string]string
}

// ListTools tells the tools of this process; with a run, its client tools too,
// and what its policy says of each.
func (s *Server) ListTools(ctx context.Context, req api.ListToolsRequestObject) (api.ListToolsResponseObject, error) {
	var (
		r     db.Run
		rules policy.Run
		err   error
	)
	if req.Params.RunID != nil {
		if r, err = s.runNamed(ctx, *req.Params.RunID); err != nil {
			return nil, err
		}
		if rules, err = tool.PolicyRun(r); err != nil {
			return nil, err
		}
	}
	view, err := s.Tools.Catalog.For(r.ClientTools)
	if err != nil {
		return nil, fmt.Errorf("list tools: %w", err)
	}
	breakers := s.Tools.Breakers()
	list := api.ToolList{Tools: []api.Tool{}}
	for _, spec := range view.Specs() {
		t, err := toolOf(spec, breakers)
		if err != nil {
			return nil, err
		}
		if req.Params.RunID != nil {
			e, err := policy.Decide(s.Tools.Rules.Input(rules, spec.Asked(), policy.Call{}))
			if err != nil {
				return nil, fmt.Errorf("list tools: %w", err)
			}
			t.Decision, t.ReasonCode = (*api.PolicyDecision)(&e.Decision), &e.ReasonCode
		}
		list.Tools = append(list.Tools, t)
	}
	return api.ListTools200JSONResponse{Body: list}, nil
}

// runNamed finds a run of the caller's that a query or body names.
func (s *Server) runNamed(ctx context.Context, runID string) (db.Run, error) {
	if err := touches(callerOf(ctx), runID, ""); err != nil {
		return db.Run{}, err
	}
	return runOf(ctx, s.Pool, runID)
}

func toolOf(spec tool.Spec, breakers map[string]string) (api.Tool, error) {
	t := api.Tool{
		Name: spec.Name, Title: some(spec.Title), Description: spec.Description, Kind: api.ToolKind(spec.Kind), Provider: spec.Provider,
		Writes: spec.Writes, SettlementBoundary: api.SettlementBoundary(spec.Boundary), TimeoutMs: max(1, spec.Timeout.Milliseconds()),
	}
	if spec.Kind != tool.Client {
		state := api.ToolBreakerClosed // until somebody has called it
		if known, ok := breakers[spec.Provider]; ok {
			state = api.ToolBreaker(known)
		}
		t.Breaker = &state
	}
	if err := json.Unmarshal(spec.Input, &t.InputSchema); err != nil {
		return t, fmt.Errorf("tool %s: input schema: %w", spec.Name, err)
	}
	if spec.Output != nil {
		if err := json.Unmarshal(spec.Output, &t.OutputSchema); err != nil {
			return t, fmt.Errorf("tool %s: output schema: %w", spec.Name, err)
		}
	}
	return t, nil
}

// GetToolTask tells a call of the caller's.
func (s *Server) GetToolTask(ctx context.Context, req api.GetToolTaskRequestObject) (api.GetToolTaskResponseObject, error) {
	task, _, err := s.taskNamed(ctx, req.ToolCallIDParam, req.Params.RunID)
	if err != nil {
		return nil, err
	}
	t, err := taskOf(task)
	if err != nil {
		return nil, err
	}
	return api.GetToolTask200JSONResponse{Body: t}, nil
}

// taskNamed finds a call of the caller's, and its run.
func (s *Server) taskNamed(ctx context.Context, toolCallID string, runID *string) (db.ToolTask, db.Run, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return db.ToolTask{}, db.Run{}, err
	}
	if claimed := callerOf(ctx).Claims.RunID; runID == nil && claimed != "" {
		runID = &claimed
	}
	var key *uuid.UUID
	if runID != nil {
		r, err := s.runNamed(ctx, *runID)
		if err != nil {
			return db.ToolTask{}, r, err
		}
		key = &r.RunKey
	}
	of := string(owner)
	if owner == run.Everybody {
		of = ""
	}
	t, err := tool.Get(ctx, s.Pool, of, toolCallID, key)
	if err != nil {
		return t, db.Run{}, err
	}
	r, err := s.runNamed(ctx, t.RunID)
	return t, r, err
}

// ListToolTasks pages through a run's calls, newest first.
func (s *Server) ListToolTasks(ctx context.Context, req api.ListToolTasksRequestObject) (api.ListToolTasksResponseObject, error) {
	before, err := placeAfter(req.Params.PageToken)
	if err != nil {
		return nil, err
	}
	r, err := runOf(ctx, s.Pool, req.RunIDParam)
	if err != nil {
		return nil, err
	}
	var after *tool.Page
	if before != nil {
		after = &tool.Page{QueuedAt: before.at, ToolCallID: before.id}
	}
	tasks, next, err := tool.List(ctx, s.Pool, r.RunKey, after, int(*req.Params.Limit))
	if err != nil {
		return nil, err
	}
	page := api.ToolTaskList{Tasks: make([]api.ToolTask, 0, len(tasks))}
	for _, task := range tasks {
		t, err := taskOf(task)
		if err != nil {
			return nil, err
		}
		page.Tasks = append(page.Tasks, t)
	}
	if next != nil {
		page.NextPageToken = place{next.QueuedAt, next.ToolCallID}.token()
	}
	return api.ListToolTasks200JSONResponse{Body: page}, nil
}

// CancelToolTask asks a call to stop. Asking twice is fine.
func (s *Server) CancelToolTask(ctx context.Context, req api.CancelToolTaskRequestObject) (api.CancelToolTaskResponseObject, error) {
	task, r, err := s.taskNamed(ctx, req.ToolCallIDParam, req.Params.RunID)
	if err != nil {
		return nil, err
	}
	asked := false
	if !tool.Terminal(task.State) && !task.CancelRequested {
		change := tool.CancelRequested(task, callerOf(ctx).Actor, redact.Text(deref(deref(req.Body).Reason)))
		change.Rows = append(change.Rows, run.SetRunnable(r))
		_, err := s.Log.Commit(ctx, runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Trace: telemetry.TraceFrom(ctx),
			Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
		// Somebody else asked, or it has ended meanwhile, with its run perhaps.
		if err != nil && !tool.Moved(err) && !errors.Is(err, runlog.ErrFinished) {
			return nil, fmt.Errorf("cancel tool task: %w", err)
		}
		asked = err == nil
		if task, err = s.taskNow(ctx, task); err != nil {
			return nil, err
		}
	}
	t, err := taskOf(task)
	if err != nil {
		return nil, err
	}
	if !asked {
		return api.CancelToolTask200JSONResponse{Body: t}, nil
	}
	slog.InfoContext(ctx, "a tool call was canceled", "run_id", r.RunID, "tool_call_id", task.ToolCallID, "actor", callerOf(ctx).Actor)
	return api.CancelToolTask202JSONResponse{Body: t}, nil
}

func (s *Server) taskNow(ctx context.Context, t db.ToolTask) (db.ToolTask, error) {
	return tool.Get(ctx, s.Pool, "", t.ToolCallID, &t.RunKey)
}

func taskOf(t db.ToolTask) (api.ToolTask, error) {
	out := api.ToolTask{
		RunID: t.RunID, ToolCallID: t.ToolCallID, Tool: t.ToolName, Kind: api.ToolTaskKind(t.Kind),
		RequestedBy: api.ToolTaskRequestedBy(t.RequestedBy), State: api.ToolTaskState(t.State),
		SettlementBoundary: api.SettlementBoundary(t.SettlementBoundary), Attempts: t.Attempts, Step: t.Step,
		CancelRequested: onlyTrue(t.CancelRequested), ApprovalID: t.ApprovalID, Decision: (*api.PolicyDecision)(t.Decision),
		ReasonCode: t.ReasonCode, EvaluationHash: t.EvaluationHash, ParamsHash: t.ParamsHash, Truncated: onlyTrue(t.OutputTruncated),
		OutputHash: t.OutputHash, ErrorClass: t.ErrorClass, ErrorMessage: t.ErrorMessage, Provider: t.Provider,
		FallbackUsed: onlyTrue(t.FallbackUsed), CorrelationID: t.CorrelationID, LatencyMs: t.LatencyMs, QueuedAt: t.QueuedAt.UTC(),
		StartedAt: utc(t.RunningAt), DeadlineAt: utc(t.DeadlineAt), FinishedAt: utc(t.FinishedAt),
	}
	if err := json.Unmarshal(t.Input, &out.Input); err != nil {
		return out, fmt.Errorf("read the input of a tool task: %w", err)
	}
	if t.Output != nil {
		out.Output = json.RawMessage(t.Output)
	}
	var err error
	out.Receipt, err = storedAs[api.ToolReceiptV1](t.Receipt)
	return out, err
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func onlyTrue(b bool) *bool {
	if !b {
		return nil
	}
	return &b
}

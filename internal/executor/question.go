package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// mayAsk says whether a call can ask a person while it is at work.
func mayAsk(t db.ToolTask) bool { return tool.Kind(t.Kind) == tool.MCP }

// lookAgain is how long an answer may go unnoticed when nobody tells of it.
const lookAgain = time.Second

// asker lets a call at work ask a person: the question is an approval of the call,
// and the call waits here for its end, for what it talks with is in this process. A
// call that is made again finds what was answered to the same question before.
func (s *session) asker(t db.ToolTask, spec tool.Spec, input json.RawMessage) func(context.Context, tool.Question) (tool.Answer, error) {
	if !mayAsk(t) {
		return nil
	}
	return func(ctx context.Context, q tool.Question) (tool.Answer, error) {
		ask, err := s.inquiry(t, spec, input, q)
		if err != nil {
			return tool.Answer{}, err
		}
		id, err := approval.ID(s.run.RunID, ask)
		if err != nil {
			return tool.Answer{}, err
		}
		bell := s.e.Watch.Run(s.run.RunKey)
		defer bell.Close()
		if err := s.commitQuestion(ctx, id, ask); err != nil {
			return tool.Answer{}, err
		}
		tick := time.NewTicker(lookAgain)
		defer tick.Stop()
		for {
			a, err := approval.Get(ctx, s.e.Pool, run.Owner(s.run.Owner), id)
			if err == nil && a.State != approval.Pending {
				return tool.Answer{
					Decided:  a.State == approval.Approved || a.State == approval.Rejected,
					Approved: a.State == approval.Approved, Content: a.DecisionContent,
				}, nil
			}
			select { // while the database does not answer, the person may still decide
			case <-ctx.Done():
				return tool.Answer{}, context.Cause(ctx)
			case <-bell.C:
			case <-tick.C:
			}
		}
	}
}

// commitQuestion asks, unless the same was asked before.
func (s *session) commitQuestion(ctx context.Context, id string, ask approval.Ask) error {
	all, err := approval.OfRun(ctx, s.e.Pool, s.run.RunKey)
	if err != nil || slices.ContainsFunc(all, func(a db.Approval) bool { return a.ApprovalID == id }) {
		return err
	}
	asking, err := approval.Request(s.run, ask)
	if err != nil {
		return err
	}
	err = s.commit(ctx, func(h runlog.Head) (runlog.Change, error) {
		if h.CancelRequested {
			return runlog.Change{}, errStopping
		}
		return asking, nil
	})
	if err == nil {
		crash.At("approval.requested")
	}
	return err
}

// inquiry is the approval that a question of a call becomes. It binds the call's
// arguments and the question.
func (s *session) inquiry(t db.ToolTask, spec tool.Spec, input json.RawMessage, q tool.Question) (ask approval.Ask, err error) {
	e, err := policy.Decide(s.asks(spec, t.ParamsHash, input))
	if err != nil {
		return ask, err
	}
	question := approval.Question{Message: redact.Text(runlog.Storable(q.Message)), Schema: q.Schema}
	hash, err := canon.HashJSON(map[string]any{"params_hash": t.ParamsHash, "question": question, "number": q.Number})
	if err != nil {
		return ask, fmt.Errorf("ask a person: %w", err)
	}
	request, err := canon.Marshal(map[string]any{"tool_name": t.ToolName, "input": redact.JSON(input), "question": question})
	if err != nil {
		return ask, fmt.Errorf("ask a person: %w", err)
	}
	title := spec.Title
	if title == "" {
		title = t.ToolName
	}
	lasts := s.e.Tools.Policy.ApprovalLifetime()
	if q.For > 0 {
		lasts = min(lasts, q.For)
	}
	return approval.Ask{
		Kind: approval.ToolCall, ToolCallID: t.ToolCallID, RequestedBy: t.RequestedBy, Title: cut("“"+title+"” asks: "+question.Message, 300),
		Decider: approval.ByOwner, Request: request, ArgsHash: hash, PolicyHash: e.PolicyHash, For: lasts,
	}, nil
}

// unasked is the change that takes back what a call that ends still asks.
func (s *session) unasked(ctx context.Context, t db.ToolTask) (change runlog.Change, err error) {
	if !mayAsk(t) {
		return change, nil
	}
	all, err := approval.OfRun(ctx, s.e.Pool, s.run.RunKey)
	if err != nil {
		return change, err
	}
	for _, a := range all {
		if a.State == approval.Pending && value(a.ToolCallID) == t.ToolCallID {
			change = merge(change, approval.Cancel(a, "The call has ended."))
		}
	}
	return change, nil
}

// endAsking commits the end of a call with the end of what it asks. Somebody may
// answer at that very moment: then there is less to take back.
func (s *session) endAsking(ctx context.Context, t db.ToolTask, end func(runlog.Change) error) error {
	for try := 1; ; try++ {
		back, err := s.unasked(ctx, t)
		if err != nil {
			return err
		}
		err = end(back)
		if len(back.Rows) == 0 || !approval.Moved(err) || try == moves {
			return err
		}
	}
}

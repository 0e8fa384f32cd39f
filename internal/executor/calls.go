package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/url"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/hook"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// openTools reads what the run says of its tools.
func (s *session) openTools(ctx context.Context) error {
	var err error
	if s.view, err = s.e.Tools.Catalog.For(s.run.ClientTools); err != nil {
		return fmt.Errorf("the run's client tools: %w", err)
	}
	if s.policy, err = tool.PolicyRun(s.run); err == nil && !s.past.started {
		s.warn(ctx)
	}
	return err
}

// warn says in the process's log what lists of tools name and nothing is: those of
// the service once, those of a run as it begins.
func (s *session) warn(ctx context.Context) {
	tools := s.tools()
	s.e.warned.Do(func() {
		for _, w := range s.e.Tools.Policy.Warnings(tools) {
			slog.WarnContext(ctx, "the service's tool policy", "warning", w)
		}
	})
	for _, w := range s.e.Tools.Policy.RunWarnings(s.policy, tools) {
		slog.WarnContext(ctx, "a run's tool policy", "run_id", s.run.RunID, "warning", w)
	}
}

// tools are the run's tools as policy knows them.
func (s *session) tools() []policy.Tool {
	var all []policy.Tool
	for _, spec := range s.view.Specs() {
		all = append(all, spec.Asked())
	}
	return all
}

// offered are the tools that the model is shown: those that policy lets the run
// call, or have called after a person agreed.
func (s *session) offered() ([]ds.RespondV1InputToolsItem, error) {
	var offered []ds.RespondV1InputToolsItem
	for _, t := range s.e.Tools.Policy.Visible(s.policy, s.tools()) {
		spec, known := s.view.Spec(t.Name)
		if !known {
			continue
		}
		schema := map[string]any{}
		if err := json.Unmarshal(spec.Input, &schema); err != nil {
			return nil, fmt.Errorf("the input schema of %s: %w", spec.Name, err)
		}
		offered = append(offered, ds.RespondV1InputToolsItem{
			Name: s.view.ModelName(spec.Name), Description: cut(spec.Description, maxDescription), InputSchema: schema,
		})
	}
	return offered, nil
}

const (
	maxDescription = 4000 // characters, as the signature's input takes
	maxToolName    = 128
)

// asked is what a step's tool calls come to: the change that goes into the
// step's end, and the inputs as the model gave them.
type asked struct {
	change runlog.Change
	whole  map[string]json.RawMessage
	people int // how many questions are asked of people
}

// ask decides on the calls that the model asks for. It writes nothing.
func (s *session) askFor(ctx context.Context, o predict.Outcome, step int64, frame db.Frame) (asked, error) {
	a := asked{whole: map[string]json.RawMessage{}}
	for i, c := range o.ToolCalls {
		if err := s.askOne(ctx, &a, c, o.Receipt.CallID, i, step, frame); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (s *session) askOne(ctx context.Context, a *asked, c ds.MessageV1ToolCall, stepCall string, index int, step int64, frame db.Frame) error {
	name, known := s.view.FromModel(c.ToolName)
	if !known {
		name = cut(redact.Text(runlog.Storable(c.ToolName)), maxToolName)
	}
	spec, known := s.view.Spec(name)
	if !known {
		spec = tool.Spec{Name: name}
	}
	input, told, err := s.beforeCall(ctx, c, spec, step, frame)
	if err != nil {
		return err
	}
	a.change.Events = append(a.change.Events, told...)
	hash := tool.ParamsHash(input)
	id, err := tool.CallID(s.run.RunID, stepCall, index, name, hash)
	if err != nil {
		return err
	}
	q := tool.Request{Run: s.run, ToolCallID: id, Spec: spec, Input: input, RequestedBy: "model", Step: step, Index: index, FrameID: frame.FrameID, Trace: s.trace}
	change, err := s.decide(ctx, a, q, known, hash)
	if err != nil {
		return err
	}
	a.change, a.whole[id] = merge(a.change, change), input
	return nil
}

// decide is the change that puts a call into the log: queued, waiting for a
// person, or refused.
func (s *session) decide(ctx context.Context, a *asked, q tool.Request, known bool, hash string) (runlog.Change, error) {
	if !known {
		return tool.Refused(q, nil, &tool.Error{Class: tool.ClassNotFound, Message: "There is no tool of this name."})
	}
	if wrong := s.view.CheckInput(q.Spec.Name, q.Input); wrong != nil {
		return tool.Refused(q, nil, wrong)
	}
	e, err := s.let(ctx, s.asks(q.Spec, hash, q.Input), q.ToolCallID, q.Spec)
	if err == nil && e.Decision == policy.NeedsApproval {
		e, err = s.queued(ctx, a, q.Spec, hash, q.Input)
	}
	if err != nil {
		return runlog.Change{}, err
	}
	switch e.Decision {
	case policy.Allowed:
		return tool.Requested(q, e, "")
	case policy.NeedsApproval:
		ask := s.question(q, e, hash)
		id, err := approval.ID(s.run.RunID, ask)
		if err != nil {
			return runlog.Change{}, err
		}
		requested, err := tool.Requested(q, e, id)
		if err != nil {
			return requested, err
		}
		asking, err := approval.Request(s.run, ask)
		a.people++
		return merge(requested, asking), err
	default:
		return tool.Refused(q, &e, &tool.Error{Class: "policy_denied", ReasonCode: e.ReasonCode, Message: "The call is not allowed: " + e.ReasonCode + "." + comeAgain(e)})
	}
}

// question is what a person is asked about a call.
func (s *session) question(q tool.Request, e policy.Evaluation, hash string) approval.Ask {
	title := q.Spec.Title
	if title == "" {
		title = q.Spec.Name
	}
	request, err := canon.Marshal(map[string]any{"tool_name": q.Spec.Name, "input": redact.JSON(q.Input)})
	if err != nil {
		request = json.RawMessage(`{}`) // the input has passed its schema, and has a canonical form
	}
	return approval.Ask{
		Kind: approval.ToolCall, ToolCallID: q.ToolCallID, Title: cut("May the tool “"+title+"” be called?", 300), Decider: approval.ByOwner,
		Request: request, ArgsHash: hash, PolicyHash: e.PolicyHash, ReasonCode: e.ReasonCode, For: s.e.Tools.Policy.ApprovalLifetime(),
	}
}

// queued asks policy about a call that needs a person, who may have been asked
// about too many already. Steps that ask at the same moment may count without each
// other.
func (s *session) queued(ctx context.Context, a *asked, spec tool.Spec, hash string, input json.RawMessage) (policy.Evaluation, error) {
	in := s.asks(spec, hash, input)
	if most := int64(s.e.Tools.Policy.Limits().PendingApprovals); most > 0 {
		pending, err := approval.CountPending(ctx, s.e.Pool, run.Owner(s.run.Owner))
		if err != nil {
			return policy.Evaluation{}, err
		}
		in.Queue = &ds.PolicyEvaluationV1Queue{Pending: pending + int64(a.people), Most: most}
	}
	return policy.Decide(in)
}

// asks is what policy is asked about a call.
func (s *session) asks(spec tool.Spec, hash string, input json.RawMessage) ds.PolicyEvaluationV1Input {
	return s.e.Tools.Policy.Input(s.policy, spec.Asked(), policy.Call{ArgsHash: hash, Domain: domainOf(input), At: crash.Now()})
}

// let asks policy about a call that is to be made, and counts it when it may be.
func (s *session) let(ctx context.Context, in ds.PolicyEvaluationV1Input, toolCallID string, spec tool.Spec) (policy.Evaluation, error) {
	return s.e.Tools.Rates.Decide(ctx, in, s.run.Owner, s.run.RunKey, toolCallID, spec)
}

// comeAgain tells a model when a call that is refused may be asked for again.
func comeAgain(e policy.Evaluation) string {
	if e.RetryAfter == 0 {
		return ""
	}
	return fmt.Sprintf(" It may be asked for again in %d seconds.", int64(math.Ceil(e.RetryAfter.Seconds())))
}

// approved evaluates a call again that a person approved. The change has the
// decision, and the call is as it will be then; refused says why it may not be
// made all the same.
func (s *session) approved(ctx context.Context, t db.ToolTask, spec tool.Spec, a db.Approval) (_ db.ToolTask, c runlog.Change, refused *tool.Error, err error) {
	in := s.asks(spec, t.ParamsHash, t.Input)
	in.Approval = &ds.PolicyEvaluationV1Approval{
		ApprovalID: a.ApprovalID, State: a.State, ArgsHash: &a.ArgsHash, PolicyHash: &a.PolicyHash,
	}
	e, err := s.let(ctx, in, t.ToolCallID, spec)
	if err != nil {
		return t, c, nil, err
	}
	if e.Decision != policy.Allowed {
		refused = &tool.Error{Class: "policy_denied", ReasonCode: e.ReasonCode, Message: "The call was approved, but is not allowed any more: " + e.ReasonCode + "." + comeAgain(e)}
	}
	return tool.AfterDecided(t, e, s.held.Epoch), tool.Decided(t, e, s.held.Epoch), refused, nil
}

// domainOf is the host that a call reaches, when its input has a url.
func domainOf(input json.RawMessage) string {
	var in struct {
		URL string `json:"url"`
	}
	if json.Unmarshal(input, &in) != nil {
		return "" // an input whose url is not a text is of another kind
	}
	u, err := url.Parse(in.URL)
	if err != nil {
		return ""
	}
	return cut(u.Hostname(), 253)
}

// beforeCall asks the hooks about a call. What they want in its input comes
// before what the model gave.
func (s *session) beforeCall(ctx context.Context, c ds.MessageV1ToolCall, spec tool.Spec, step int64, frame db.Frame) (json.RawMessage, []event.Event, error) {
	input, err := canon.Marshal(c.Arguments)
	if err != nil || !s.e.Tools.Hooks.Any(hook.BeforeToolCall) {
		return input, nil, err
	}
	e := s.hookEvent(hook.BeforeToolCall, step, frame)
	e.ToolName, e.Input = spec.Name, redact.JSON(bytes.Clone(input))
	answer, told := s.e.Tools.Hooks.Ask(ctx, e)
	if len(answer.Input()) == 0 {
		return input, told, nil
	}
	merged := map[string]any{}
	for k, v := range c.Arguments {
		merged[k] = v
	}
	for k, v := range answer.Input() {
		merged[k] = v
	}
	input, err = canon.Marshal(merged)
	return input, told, err
}

// hookEvent is what hooks are told of a run.
func (s *session) hookEvent(phase hook.Phase, step int64, frame db.Frame) hook.Event {
	return hook.Event{Phase: phase, RunID: s.run.RunID, ThreadID: s.run.ThreadID, Owner: s.run.Owner, Step: step, FrameID: frame.FrameID, FrameType: frame.FrameType}
}

// cut shortens a text to so many characters.
func cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// mayFallBack says whether policy lets the tool be asked that stands in for
// another, without a person. The call has counted already, at the provider that
// should have made it, and counts at the other too if that has a rate.
func (s *session) mayFallBack(ctx context.Context, spec tool.Spec, id, hash string, input json.RawMessage) (bool, error) {
	other, known := s.view.Spec(spec.Fallback)
	if spec.Fallback == "" || !known {
		return false, nil
	}
	e, err := s.let(ctx, s.asks(other, hash, input), id, other)
	return e.Decision == policy.Allowed, err
}

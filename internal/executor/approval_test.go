package executor_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// decide decides the run's only pending approval.
func decide(t *testing.T, p *runtest.Process, r db.Run, state string) {
	t.Helper()
	asked, err := approval.OfRun(t.Context(), p.Pool, r.RunKey)
	require.NoError(t, err)
	for _, a := range asked {
		if a.State == approval.Pending {
			_, _, err = approval.Decide(t.Context(), p.Pool, p.Log, a.ApprovalID,
				approval.Decider{Owner: run.Owner(r.Owner), Actor: "test"}, approval.Decision{State: state, ArgsHash: a.ArgsHash, PolicyHash: a.PolicyHash, Reason: "because"})
			require.NoError(t, err)
		}
	}
}

func TestAPersonIsAskedBeforeACall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		state, ends, reason string
		made                int
	}{
		"approved": {approval.Approved, "test.echo succeeded", "policy_allowed.approved_interactively", 1},
		"rejected": {approval.Rejected, "test.echo failed approval_rejected", "policy_denied.approval_rejected", 0},
		"expired":  {approval.Expired, "test.echo failed approval_expired", "policy_denied.approval_expired", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			guarded := echo("test.echo")
			script := model.NewScript(calls("test_echo", "a"), model.Say("Done."))
			p := workWith(t, pool, script, with(t, guarded))
			r := runtest.Start(t, pool, allowing(askPeople("test.echo")))
			p.Message(t, r, "f1", "Go.")
			waits(t, p, r, 1, "approval")
			require.Empty(t, guarded.made(), "nothing is done before")
			require.Len(t, all[event.ApprovalRequestedV1](t, pool, r), 1)
			if c.state == approval.Expired {
				_, err := pool.Exec(t.Context(), "UPDATE approvals SET expires_at = clock_timestamp() - interval '1 second'")
				require.NoError(t, err)
				n, err := approval.Expire(t.Context(), pool, p.Log)
				require.NoError(t, err)
				require.EqualValues(t, 1, n)
			} else {
				decide(t, p, r, c.state)
			}
			require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
			settled(t, pool, r)
			require.Equal(t, []string{c.ends}, states(t, pool, r))
			require.Len(t, guarded.made(), c.made)
			woken := all[event.RunWokenV1](t, pool, r)
			require.Len(t, woken, 1)
			require.EqualValues(t, "approval", woken[0].Cause)
			if c.state != approval.Approved {
				heard := toolMessages(script.Requests()[1])[0]
				require.Equal(t, c.state == approval.Expired, strings.Contains(heard, "no refusal"), heard)
				require.Equal(t, c.state == approval.Rejected, strings.Contains(heard, "did not approve"), heard)
			}
			told := all[event.ApprovalDecidedV1](t, pool, r)
			require.Len(t, told, 1)
			require.EqualValues(t, c.state, told[0].State)
			require.Equal(t, c.state == approval.Expired, told[0].DecidedBy == nil, "nobody decided what expired")
			require.Equal(t, c.reason, reasonOf(t, pool, r), "and the receipt says so")
			decisions := all[event.PolicyDecisionV1](t, pool, r)
			require.EqualValues(t, "needs_approval", decisions[0].Decision)
			if c.made > 0 {
				require.Len(t, decisions, 2)
				require.EqualValues(t, "allowed", decisions[1].Decision)
			}
		})
	}
}

// reasonOf is the reason code in the receipt of the run's only call.
func reasonOf(t *testing.T, pool *pgxpool.Pool, r db.Run) (code string) {
	t.Helper()
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT receipt->>'reason_code' FROM tool_tasks WHERE run_key = $1", r.RunKey).Scan(&code))
	return code
}

// A call that was approved under other rules is not made.
func TestAnApprovalBindsTheRulesItWasGivenUnder(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	guarded := echo("test.echo")
	p, stop := beginWith(t, pool, model.NewScript(calls("test_echo", "a")), with(t, guarded))
	r := runtest.Start(t, pool, allowing(askPeople("test.echo")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "approval")
	stop()
	decide(t, p, r, approval.Approved)
	_, err := pool.Exec(t.Context(), `UPDATE runs SET tool_policy = '{"allow":["*"],"deny":["test.echo"]}'`)
	require.NoError(t, err)
	q := workWith(t, pool, model.NewScript(model.Say("Done.")), with(t, guarded))
	finished(t, q, r)
	settled(t, pool, r)
	require.Equal(t, []string{"test.echo failed policy_denied"}, states(t, pool, r))
	require.Empty(t, guarded.made())
}

func TestWhatAPersonIsAskedIsTakenBackWithItsRun(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(calls("test_echo", "a"), calls("test_echo", "b"))
	p := workWith(t, pool, script, with(t, echo("test.echo")))
	r := runtest.Start(t, pool, allowing(askPeople("test.echo")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "approval")
	stop := runtest.UserMessage("f2", "Not so.")
	stop.Mode = run.Interrupt
	_, err := run.AppendFrame(t.Context(), pool, p.Log, r, stop)
	require.NoError(t, err)
	waits(t, p, r, 2, "approval")
	_, err = run.Cancel(t.Context(), p.Log, r, "test", "enough")
	require.NoError(t, err)
	finished(t, p, r)
	settled(t, pool, r)
	require.Equal(t, []string{"test.echo canceled interrupted", "test.echo canceled run_ended"}, states(t, pool, r))
	told := all[event.ApprovalDecidedV1](t, pool, r)
	require.Len(t, told, 2)
	for _, e := range told {
		require.EqualValues(t, "canceled", e.State)
	}
}

// The inbox has nothing that nobody waits for: a question is taken back in the
// commit that ends its call, whatever ends it.
func TestAQuestionIsTakenBackWithItsCall(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ends string
		do   func(t *testing.T, p *runtest.Process, r db.Run, call db.ToolTask)
	}{
		"the call is canceled": {"test.echo canceled canceled", func(t *testing.T, p *runtest.Process, r db.Run, call db.ToolTask) {
			change := tool.CancelRequested(call, "test", "enough")
			change.Rows = append(change.Rows, run.SetRunnable(r))
			_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
				Decide: func(runlog.Head) (runlog.Change, error) { return change, nil }})
			require.NoError(t, err)
		}},
		"no process has the tool any more": {"test.echo failed tool_not_found", func(t *testing.T, p *runtest.Process, r db.Run, _ db.ToolTask) {
			_, err := p.Pool.Exec(t.Context(), "UPDATE runs SET runnable = true WHERE run_key = $1", r.RunKey)
			require.NoError(t, err)
		}},
		"the run fails": {"test.echo canceled run_ended", func(t *testing.T, p *runtest.Process, r db.Run, _ db.ToolTask) {
			_, err := p.Pool.Exec(t.Context(), "UPDATE runs SET started_at = started_at - interval '2 days', due_at = clock_timestamp() WHERE run_key = $1", r.RunKey)
			require.NoError(t, err)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p, stop := beginWith(t, pool, model.NewScript(calls("test_echo", "a")), with(t, echo("test.echo")))
			r := runtest.Start(t, pool, allowing(askPeople("test.echo")))
			p.Message(t, r, "f1", "Go.")
			waits(t, p, r, 1, "approval")
			stop()
			tasks, err := tool.OpenTasks(t.Context(), pool, r.RunKey)
			require.NoError(t, err)
			require.Len(t, tasks, 1)
			c.do(t, p, r, tasks[0])
			tools := with(t, echo("test.echo"))
			if strings.HasPrefix(name, "no process") {
				tools = with(t)
			}
			q := workWith(t, pool, model.NewScript(model.Say("Done.")), tools)
			finished(t, q, r)
			settled(t, pool, r)
			require.Equal(t, []string{c.ends}, states(t, pool, r))
			told := all[event.ApprovalDecidedV1](t, pool, r)
			require.Len(t, told, 1)
			require.EqualValues(t, approval.Canceled, told[0].State)
			var together int
			require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(DISTINCT xmin::text) FROM run_log
				WHERE run_key = $1 AND event_type IN ('approval.decided', 'tool.finished')`, r.RunKey).Scan(&together))
			require.Equal(t, 1, together, "one commit says both")
			pending := approval.Pending
			inbox, _, err := approval.List(t.Context(), pool, run.Owner(r.Owner), approval.Filter{State: &pending, Limit: 10})
			require.NoError(t, err)
			require.Empty(t, inbox)
		})
	}
}

// What would be one question too many is refused, with its reason, also within
// one step; when some are decided people are asked again.
func TestPeopleAreNotAskedTooMuch(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	rules, err := policy.Parse([]byte(`{"format":"openagents.runtime.tool_policy","format_version":1,"limits":{"pending_approvals_per_owner":3}}`))
	require.NoError(t, err)
	tools := with(t, echo("test.echo"))
	tools.Policy = rules
	script := model.NewScript(calls("test_echo", "a", "test_echo", "b"), calls("test_echo", "c", "test_echo", "d"), model.Say("Done."), model.Say("Done."))
	p := workWith(t, pool, script, tools)
	first := runtest.Start(t, pool, allowing(askPeople("test.echo")))
	p.Message(t, first, "f1", "Go.")
	waits(t, p, first, 1, "approval")
	r := runtest.Start(t, pool, allowing(askPeople("test.echo")))
	p.Message(t, r, "f1", "Go.")
	waits(t, p, r, 1, "approval")
	require.Equal(t, []string{"test.echo failed policy_denied"}, states(t, pool, r), "the third is asked, the fourth is not")
	decisions := all[event.PolicyDecisionV1](t, pool, r)
	require.Len(t, decisions, 2)
	require.EqualValues(t, policy.NeedsApproval, decisions[0].Decision)
	require.EqualValues(t, policy.Denied, decisions[1].Decision)
	require.Equal(t, "policy_denied.too_many_approvals", decisions[1].ReasonCode)
	for _, d := range decisions {
		doc, err := tool.Evaluation(t.Context(), pool, d.EvaluationHash)
		require.NoError(t, err)
		again, err := policy.Replay(doc)
		require.NoError(t, err)
		require.Equal(t, d.ReasonCode, again.ReasonCode)
	}
	n, err := approval.CountPending(t.Context(), pool, run.Owner(r.Owner))
	require.NoError(t, err)
	require.EqualValues(t, 3, n)
	for _, one := range []db.Run{first, r} {
		decide(t, p, one, approval.Approved)
		require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, one).Status)
	}
}

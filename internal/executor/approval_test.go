package executor_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
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
		state, ends string
		made        int
	}{
		"approved": {approval.Approved, "test.echo succeeded", 1},
		"rejected": {approval.Rejected, "test.echo failed approval_rejected", 0},
		"expired":  {approval.Expired, "test.echo failed approval_expired", 0},
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
			if c.state == approval.Expired {
				require.Contains(t, toolMessages(script.Requests()[1])[0], "no refusal")
			}
			decisions := all[event.PolicyDecisionV1](t, pool, r)
			require.EqualValues(t, "needs_approval", decisions[0].Decision)
			if c.made > 0 {
				require.Len(t, decisions, 2)
				require.EqualValues(t, "allowed", decisions[1].Decision)
			}
		})
	}
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

package executor_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// curious asks a person in the middle of its call and answers with what they said.
func curious(boundary tool.Boundary) *made {
	t := &made{spec: specOf("test.curious", boundary), do: func(ctx context.Context, c tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
		a, err := c.Ask(ctx, tool.Question{
			Message: "Which branch? The key is ghp_abcdefghijklmnopqrstuvwxyz0123456789.", Schema: json.RawMessage(`{"type":"object","properties":{"branch":{"type":"string"}},"required":["branch"]}`),
		})
		if err != nil {
			return tool.Result{}, err
		}
		raw, err := json.Marshal(a)
		return tool.Result{Output: raw}, err
	}}
	t.spec.Kind = tool.MCP
	return t
}

// question waits for the only pending approval of a run.
func question(t *testing.T, p *runtest.Process, r db.Run) db.Approval {
	t.Helper()
	var pending []db.Approval
	until(t, p, r, "a person is asked", func() bool {
		all, err := approval.OfRun(t.Context(), p.Pool, r.RunKey)
		require.NoError(t, err)
		pending = nil
		for _, a := range all {
			if a.State == approval.Pending {
				pending = append(pending, a)
			}
		}
		return len(pending) > 0
	})
	require.Len(t, pending, 1)
	return pending[0]
}

func sayTo(t *testing.T, p *runtest.Process, r db.Run, a db.Approval, d approval.Decision) error {
	t.Helper()
	_, _, err := approval.Decide(t.Context(), p.Pool, p.Log, a.ApprovalID, approval.Decider{Owner: run.Owner(r.Owner), Actor: "test"}, d)
	return err
}

func overdue(t *testing.T, pool *pgxpool.Pool, p *runtest.Process) {
	t.Helper()
	_, err := pool.Exec(t.Context(), "UPDATE approvals SET expires_at = clock_timestamp() - interval '1 second'")
	require.NoError(t, err)
	n, err := approval.Expire(t.Context(), pool, p.Log)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}

func TestACallAsksAPersonAndGoesOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		decide func(t *testing.T, pool *pgxpool.Pool, p *runtest.Process, r db.Run, a db.Approval)
		output string
	}{
		"approved": {func(t *testing.T, _ *pgxpool.Pool, p *runtest.Process, r db.Run, a db.Approval) {
			for _, content := range []string{"", `{}`, `{"branch":7}`, `{"branch":"ghp_abcdefghijklmnopqrstuvwxyz0123456789"}`} {
				err := sayTo(t, p, r, a, approval.Decision{State: approval.Approved, Content: json.RawMessage(content)})
				require.True(t, fault.Is(err, api.InvalidRequest), "%s: %v", content, err)
			}
			err := sayTo(t, p, r, a, approval.Decision{State: approval.Rejected, Content: json.RawMessage(`{"branch":"main"}`)})
			require.True(t, fault.Is(err, api.InvalidRequest), "%v", err)
			main := approval.Decision{State: approval.Approved, Content: json.RawMessage(`{ "branch": "main" }`)}
			require.NoError(t, sayTo(t, p, r, a, main))
			require.NoError(t, sayTo(t, p, r, a, main), "twice is once")
			other := main
			other.Content = json.RawMessage(`{"branch":"other"}`)
			var closed *approval.ClosedError
			require.ErrorAs(t, sayTo(t, p, r, a, other), &closed, "another answer is another decision")
		}, `{"Decided":true,"Approved":true,"Content":{"branch":"main"}}`},
		"rejected": {func(t *testing.T, _ *pgxpool.Pool, p *runtest.Process, r db.Run, a db.Approval) {
			require.NoError(t, sayTo(t, p, r, a, approval.Decision{State: approval.Rejected}))
		}, `{"Decided":true,"Approved":false,"Content":null}`},
		"expired": {func(t *testing.T, pool *pgxpool.Pool, p *runtest.Process, _ db.Run, _ db.Approval) {
			overdue(t, pool, p)
		}, `{"Decided":false,"Approved":false,"Content":null}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			script := model.NewScript(calls("test_curious", "a"), model.Say("Done."))
			p := workWith(t, pool, script, with(t, curious(tool.Reconcile)))
			r := runtest.Start(t, pool, allowing())
			p.Message(t, r, "f1", "Go.")
			a := question(t, p, r)
			require.Equal(t, approval.ToolCall, a.Kind)
			require.Contains(t, a.Title, "asks: Which branch? The key is")
			require.NotContains(t, a.Title+string(a.Request), "ghp_abc")
			require.Contains(t, string(a.Request), `"question":{"message":"Which branch?`)
			c.decide(t, pool, p, r, a)
			require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
			settled(t, pool, r)
			require.Equal(t, []string{"test.curious succeeded"}, states(t, pool, r))
			require.JSONEq(t, c.output, toolMessages(script.Requests()[1])[0])
		})
	}
}

// What a call asks ends with the call, and a call that ends with its run waits for
// nobody.
func TestAQuestionEndsWithItsCall(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := workWith(t, pool, model.NewScript(calls("test_curious", "a")), with(t, curious(tool.Reconcile)))
	r := runtest.Start(t, pool, allowing())
	p.Message(t, r, "f1", "Go.")
	a := question(t, p, r)
	_, err := run.Cancel(t.Context(), p.Log, r, "test", "enough")
	require.NoError(t, err)
	finished(t, p, r)
	settled(t, pool, r)
	require.Equal(t, []string{"test.curious canceled run_ended"}, states(t, pool, r))
	var closed *approval.ClosedError
	require.ErrorAs(t, sayTo(t, p, r, a, approval.Decision{State: approval.Rejected}), &closed)
	require.Equal(t, approval.Canceled, closed.Approval.State)
}

// A process cannot take along what asks: a call that may be made again asks the same
// question, once for the person; another ends, and its question with it.
func TestAQuestionOutlivesAProcessWhereItsCallDoes(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"between", "after"} {
		t.Run("safe_retry, answered "+when, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			asks := curious(tool.SafeRetry)
			p, stop := beginWith(t, pool, model.NewScript(calls("test_curious", "a")), with(t, asks))
			r := runtest.Start(t, pool, allowing())
			p.Message(t, r, "f1", "Go.")
			a := question(t, p, r)
			stop()
			yes := approval.Decision{State: approval.Approved, Content: json.RawMessage(`{"branch":"main"}`)}
			if when == "between" {
				require.NoError(t, sayTo(t, p, r, a, yes))
			}
			script := model.NewScript(model.Say("Done."))
			q := workWith(t, pool, script, with(t, asks))
			if when != "between" {
				until(t, q, r, "the call is made again", func() bool { return len(asks.made()) == 2 })
				require.Equal(t, a.ApprovalID, question(t, q, r).ApprovalID)
				require.NoError(t, sayTo(t, q, r, a, yes))
			}
			require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, q, r).Status)
			settled(t, pool, r)
			require.Len(t, all[event.ApprovalRequestedV1](t, pool, r), 1, "nobody is asked twice")
			require.Contains(t, toolMessages(script.Requests()[0])[0], `"branch":"main"`)
		})
	}
	t.Run("dedupe_reconcile_required", func(t *testing.T) {
		t.Parallel()
		pool := dbtest.New(t)
		asks := curious(tool.Reconcile)
		p, stop := beginWith(t, pool, model.NewScript(calls("test_curious", "a")), with(t, asks), func(c *executor.Config) { c.ToolDrain = time.Millisecond })
		r := runtest.Start(t, pool, allowing())
		p.Message(t, r, "f1", "Go.")
		question(t, p, r)
		stop()
		q := workWith(t, pool, model.NewScript(model.Say("Done.")), with(t, asks))
		finished(t, q, r)
		settled(t, pool, r)
		require.Equal(t, []string{"test.curious failed outcome_unknown"}, states(t, pool, r))
		require.Len(t, asks.made(), 1)
		require.EqualValues(t, "canceled", all[event.ApprovalDecidedV1](t, pool, r)[0].State)
	})
}

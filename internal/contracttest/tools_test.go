package contracttest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// callTool is executeTool for a run of user 1.
func callTool(r db.Run, callID, name string, input map[string]any, query string) contracttest.Request {
	return contracttest.Request{Method: "POST", Target: "/internal/v1/tools/execute" + query, Body: map[string]any{
		"runId": r.RunID, "toolCallId": callID, "tool": name, "input": input,
	}}
}

var page = map[string]any{"url": "https://example.com/"}

func countOf(t *testing.T, rig *contracttest.Rig, r db.Run, eventType string) int {
	t.Helper()
	rows, err := runlog.OfTypes(t.Context(), rig.Pool, []uuid.UUID{r.RunKey}, eventType)
	require.NoError(t, err)
	return len(rows)
}

func TestACallerWaitsForTheEndOfACall(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	r := runtest.Run(t, rig.Pool)
	var ended sync.WaitGroup
	ended.Go(func() {
		rig.Process.WaitFor(t, r, event.TypeToolRequested)
		fixtureEnd{RunID: r.RunID, ToolCallID: "c1", State: "succeeded", Output: []byte(`{"status":200}`)}.happen(t, rig)
	})
	begun := time.Now()
	a := rig.Do(t, callTool(r, "c1", contracttest.FreeTool, page, "?wait=30000"))
	ended.Wait()
	require.Equal(t, http.StatusOK, a.Status, "%s", a.Body)
	require.Contains(t, string(a.Body), `"state":"succeeded"`)
	require.Less(t, time.Since(begun), 20*time.Second, "the end wakes it")

	a = rig.Do(t, callTool(r, "c2", contracttest.FreeTool, page, "?wait=50"))
	require.Equal(t, http.StatusAccepted, a.Status, "nobody has carried it out by then")
	require.Contains(t, string(a.Body), `"state":"queued"`)
}

// A process that stops answers those who wait with what there is.
func TestADrainEndsTheWaiting(t *testing.T) {
	t.Parallel()
	draining := make(chan struct{})
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{Draining: draining})
	r := runtest.Run(t, rig.Pool)
	begun := time.Now()
	var stops sync.WaitGroup
	stops.Go(func() {
		rig.Process.WaitFor(t, r, event.TypeToolRequested)
		close(draining)
	})
	require.Equal(t, http.StatusAccepted, rig.Do(t, callTool(r, "c1", contracttest.FreeTool, page, "?wait=30000")).Status)
	stops.Wait()
	require.Less(t, time.Since(begun), 20*time.Second)
}

// Who waits takes no place of those who bring work.
func TestWaitingIsNoWork(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{Admission: server.AdmissionConfig{MaxInFlight: 1}})
	r := runtest.Run(t, rig.Pool)
	var waits sync.WaitGroup
	waits.Go(func() { rig.Do(t, callTool(r, "c1", contracttest.FreeTool, page, "?wait=30000")) })
	rig.Process.WaitFor(t, r, event.TypeToolRequested)
	require.Eventually(t, func() bool {
		return rig.Do(t, callTool(r, "c2", contracttest.FreeTool, page, "")).Status < 300
	}, 10*time.Second, 10*time.Millisecond)
	fixtureEnd{RunID: r.RunID, ToolCallID: "c1", State: "succeeded"}.happen(t, rig)
	waits.Wait()
}

func TestTheSameCallByManyAtOnceIsOneCall(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	r := runtest.Run(t, rig.Pool)
	for name, input := range map[string]map[string]any{contracttest.FreeTool: page, contracttest.AskedTool: {"to": "ada@example.com"}} {
		const n = 12
		statuses := make([]int, n)
		var callers sync.WaitGroup
		for i := range n {
			callers.Go(func() { statuses[i] = rig.Do(t, callTool(r, "call-"+name, name, input, "")).Status })
		}
		callers.Wait()
		fresh := 0
		for _, s := range statuses {
			require.Contains(t, []int{http.StatusOK, http.StatusAccepted}, s)
			if s == http.StatusAccepted {
				fresh++
			}
		}
		require.Equal(t, 1, fresh, "%s: %v", name, statuses)
	}
	require.Equal(t, 2, countOf(t, rig, r, event.TypeToolRequested))
	require.Equal(t, 1, countOf(t, rig, r, event.TypeApprovalRequested))
	require.Equal(t, 2, countOf(t, rig, r, event.TypeFrameAppended))
}

// A refused call leaves a decision in the log that can be recomputed, and no task.
func TestARefusedCallIsADecisionInTheLog(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	r := runtest.Run(t, rig.Pool)
	a := rig.Do(t, callTool(r, "c1", contracttest.DeniedTool, map[string]any{}, ""))
	require.Equal(t, "policy_denied", a.Code())
	require.Equal(t, []string{"run.accepted", "policy.decision"}, runtest.Types(t, rig.Pool, r))
	var stored int
	require.NoError(t, rig.Pool.QueryRow(t.Context(), `SELECT count(*) FROM ds_policy_evaluations WHERE decision = 'denied'`).Scan(&stored))
	require.Equal(t, 1, stored)
	require.Equal(t, "tool_task_not_found", rig.Do(t, contracttest.Request{Target: "/internal/v1/tool-tasks/c1"}).Code())
}

// The same refused call again, at once or later, gets the same decision; so it does
// when the policy would decide otherwise by then, or the run has ended.
func TestARefusedCallIsDecidedOnce(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	r := runtest.Run(t, rig.Pool)
	refused := callTool(r, "c1", contracttest.DeniedTool, map[string]any{}, "")
	details := make([]string, 8)
	var callers sync.WaitGroup
	for i := range details {
		callers.Go(func() {
			a := rig.Do(t, refused)
			var body struct {
				Error struct{ Details json.RawMessage }
			}
			assert.NoError(t, json.Unmarshal(a.Body, &body))
			assert.Equal(t, "policy_denied", a.Code())
			details[i] = string(body.Error.Details)
		})
	}
	callers.Wait()
	for _, d := range details {
		require.Equal(t, details[0], d)
	}
	require.Equal(t, []string{"run.accepted", "policy.decision"}, runtest.Types(t, rig.Pool, r))
	require.Equal(t, "tool_call_conflict", rig.Do(t, callTool(r, "c1", contracttest.DeniedTool, map[string]any{"other": 1}, "")).Code())
	require.Equal(t, "tool_call_conflict", rig.Do(t, callTool(r, "c1", contracttest.FreeTool, page, "")).Code())
	_, err := rig.Pool.Exec(t.Context(), `UPDATE runs SET tool_policy = '{"allow":["*"]}'`)
	require.NoError(t, err)
	require.Equal(t, "policy_denied", rig.Do(t, refused).Code())
	require.Equal(t, []string{"run.accepted", "policy.decision"}, runtest.Types(t, rig.Pool, r))
	require.Equal(t, http.StatusAccepted, rig.Do(t, callTool(r, "c2", contracttest.DeniedTool, map[string]any{}, "")).Status, "another call is asked about anew")
}

func TestACallIsAdmittedAsAFrame(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{Admission: server.AdmissionConfig{MaxWaitingFrames: 1}})
	r := runtest.Run(t, rig.Pool)
	require.Equal(t, http.StatusAccepted, rig.Do(t, callTool(r, "c1", contracttest.FreeTool, page, "")).Status)
	require.Equal(t, "too_many_frames", rig.Do(t, callTool(r, "c2", contracttest.FreeTool, page, "")).Code())
	require.Equal(t, http.StatusOK, rig.Do(t, callTool(r, "c1", contracttest.FreeTool, page, "")).Status, "what was taken is answered")
	require.Equal(t, 1, countOf(t, rig, r, event.TypeToolRequested), "what is refused is not stored")
}

func TestALateDecisionIsToldThatItIsNoRejection(t *testing.T) {
	t.Parallel()
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	r := runtest.Run(t, rig.Pool)
	var task struct{ ApprovalID string }
	rig.Do(t, callTool(r, "c1", contracttest.AskedTool, map[string]any{"to": "ada@example.com"}, "")).Into(t, &task)
	_, err := rig.Pool.Exec(t.Context(), `UPDATE approvals SET expires_at = clock_timestamp()`)
	require.NoError(t, err)
	a := rig.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/approvals/" + task.ApprovalID + "/decision", Body: `{"decision":"approved"}`})
	require.Equal(t, "approval_closed", a.Code())
	var told struct {
		Error struct {
			Details struct {
				Approval struct{ State, DecidedBy string }
			}
		}
	}
	require.NoError(t, json.Unmarshal(a.Body, &told))
	require.Equal(t, "expired", told.Error.Details.Approval.State)
	require.Empty(t, told.Error.Details.Approval.DecidedBy)
	require.Equal(t, 1, countOf(t, rig, r, event.TypeApprovalDecided))
}

// A token that names a run or a thread opens no other's calls and approvals.
func TestATokenForOneRunTouchesThatOneAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	for target, code := range map[string]string{
		"/internal/v1/tool-tasks/call-free?runId=" + w.tools: "forbidden",
		"/internal/v1/approvals/" + w.approvals[1]:           "forbidden",
		"/internal/v1/approvals?runId=" + w.tools:            "forbidden",
		"/internal/v1/tools?runId=" + w.tools:                "forbidden",
	} {
		q := contracttest.Request{Target: target, Claims: claimRun(w.live)}
		require.Equal(t, code, w.Do(t, q).Code(), target)
		q.Claims = claimRun(w.tools)
		require.Equal(t, http.StatusOK, w.Do(t, q).Status, target)
	}
	list := w.Do(t, contracttest.Request{Target: "/internal/v1/approvals", Claims: claimRun(w.live)})
	require.JSONEq(t, `{"approvals":[]}`, string(list.Body), "the inbox is that run's")
	a := w.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/tools/execute", Claims: claimRun(w.live),
		Body: map[string]any{"runId": w.tools, "toolCallId": "c9", "tool": contracttest.FreeTool, "input": page}})
	require.Equal(t, "forbidden", a.Code())
}

// Nothing that a caller sends as an argument, a reason or a decision leaves a
// secret in the database or in an answer.
func TestSecretsOfCallersAreNotKept(t *testing.T) {
	t.Parallel()
	const canary = "ghp_Zm9yY2FuYXJ5dGVzdHNvbmx5MDEyMzQ1Njc4"
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	r := runtest.Run(t, rig.Pool)
	var task struct{ ApprovalID string }
	var told []byte
	send := func(q contracttest.Request) contracttest.Answer {
		a := rig.Do(t, q)
		require.Less(t, a.Status, 300, "%s", a.Body)
		told = append(told, a.Body...)
		return a
	}
	send(callTool(r, "c1", contracttest.FreeTool, map[string]any{"url": "https://example.com/?key=" + canary, "token": canary}, ""))
	send(callTool(r, "c2", contracttest.AskedTool, map[string]any{"to": "ada@example.com", "body": "use " + canary}, "")).Into(t, &task)
	send(contracttest.Request{Method: "POST", Target: "/internal/v1/approvals/" + task.ApprovalID + "/decision", Body: `{"decision":"rejected","reason":"not with ` + canary + `"}`})
	send(contracttest.Request{Method: "POST", Target: "/internal/v1/tool-tasks/c1/cancel", Body: `{"reason":"no ` + canary + `"}`})
	for _, target := range []string{"/internal/v1/approvals", "/internal/v1/tool-tasks/c1", "/internal/v1/runs/" + r.RunID + "/events", "/internal/v1/runs/" + r.RunID + "/tool-tasks"} {
		send(contracttest.Request{Target: target})
	}
	require.NotContains(t, string(told), canary)
	require.NotContains(t, rig.Log.String(), canary)
	for _, table := range []string{"run_log", "frames", "tool_tasks", "approvals", "ds_policy_evaluations"} {
		var rows string
		require.NoError(t, rig.Pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(x::text, ''), '') FROM `+table+` x`).Scan(&rows))
		require.NotEmpty(t, rows, table)
		require.False(t, strings.Contains(rows, canary), table)
	}
}

func claimRun(runID string) func(*auth.Claims) {
	return func(c *auth.Claims) { c.RunID = runID }
}

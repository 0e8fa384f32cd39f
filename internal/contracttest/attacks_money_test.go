package contracttest_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

const money = "/internal/v1/spend"

// grantBody is a body that issues an authorization, with more members.
func grantBody(id, more string) string {
	return fmt.Sprintf(`{"authorization":{"authorization_id":%q,"scope_kind":"owner","mode":"delegated_budget"%s}}`, id, more)
}

// reconciles is a request that says what became of a call.
func reconciles(runID, call, body string) contracttest.Request {
	return contracttest.Request{Method: "POST", Target: money + "/reservations/" + runID + "/" + call + "/reconcile", Scope: auth.Operator, Body: body}
}

const evidence = `"reason":"so it is said","evidence":{"seen":"nowhere"}`

// spends does what an executor does before a call that spends; it answers why
// policy does not let it.
func (w *world) spends(t *testing.T, p *runtest.Process, runID, call string, sats int64) string {
	t.Helper()
	r, err := run.Get(t.Context(), w.Pool, run.Everybody, runID)
	require.NoError(t, err)
	denied, err := p.Hold(t.Context(), runtest.Call(r, call, sats), 0)
	require.NoError(t, err)
	return denied
}

func TestA16OperatorRoutesWithAServiceToken(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A16", contracttest.Options{})
	id := s.auths[0]
	for name, q := range map[string]contracttest.Request{
		"a raise of the own budget":   {Target: money + "/authorizations/" + id + "/amend", Body: `{"revision":1,"reason":"more","changes":{"max_total_sats":2000000}}`},
		"an own outcome":              {Target: money + "/reservations/" + s.tools + "/" + s.calls[2] + "/reconcile", Body: `{"outcome":"release",` + evidence + `}`},
		"a sweep":                     {Target: money + "/recover-stuck", Body: `{}`},
		"a budget of the service":     {Target: money + "/authorizations", Body: strings.NewReplacer(`"owner"`, `"system"`, `"delegated_budget"`, `"system"`).Replace(grantBody("mine", `,"max_per_day_sats":9`))},
		"a budget of an organisation": {Target: money + "/authorizations", Body: strings.Replace(grantBody("mine", `,"max_total_sats":9`), `"owner"`, `"organisation"`, 1)},
		"the mode of the service":     {Target: money + "/authorizations", Body: strings.Replace(grantBody("mine", `,"max_per_day_sats":9`), `"delegated_budget"`, `"system"`, 1)},
	} {
		for _, scope := range []auth.Scope{auth.Read, auth.Service} {
			q.Method, q.Scope = "POST", scope
			s.refuse(t, name+", scope "+string(scope), q, "forbidden", string(auth.ScopeInsufficient))
		}
	}
	s.refuse(t, "a revocation with a token that reads", contracttest.Request{Method: "POST", Target: money + "/authorizations/" + id + "/revoke", Scope: auth.Read, Body: `{}`},
		"forbidden", string(auth.ScopeInsufficient))
	// Operators who name a principal act for that one.
	for name, q := range map[string]contracttest.Request{
		"an operator for somebody else raises it":  {Target: money + "/authorizations/" + id + "/amend", Body: `{"revision":1,"reason":"more","changes":{"max_total_sats":2000000}}`},
		"an operator for somebody else revokes it": {Target: money + "/authorizations/" + id + "/revoke", Body: `{}`},
	} {
		q.Method, q.Scope, q.User = "POST", auth.Operator, 3
		s.refuse(t, name, q, "authorization_not_found", "")
	}
}

func TestA13MoneyOfOthers(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A13", contracttest.Options{})
	attackers := map[string]contracttest.Request{
		"another user": {User: 3}, "another guest of the same user": {User: 1, Guest: "guest-2"}, "a guest without user": {Guest: "guest-2"},
	}
	for name, who := range attackers {
		for _, route := range []contracttest.Request{
			{Target: "{id}"}, {Target: "{id}/reservations"}, {Target: "{id}/statement"}, {Target: "{id}/statement.csv"},
			{Method: "POST", Target: "{id}/revoke", Body: `{}`}, {Method: "POST", Target: "{id}/amend", Scope: auth.Operator, Body: `{"revision":1,"reason":"more","changes":{"max_total_sats":9000000}}`},
		} {
			q := route
			q.User, q.Guest, q.Header = who.User, who.Guest, sameTrace
			q.Target = money + "/authorizations/" + strings.ReplaceAll(route.Target, "{id}", "auth-nowhere")
			missing := s.Do(t, q)
			require.Equal(t, http.StatusNotFound, missing.Status)
			for _, id := range []string{s.auths[0], s.guestAuths[0], s.otherAuth} {
				q.Target = money + "/authorizations/" + strings.ReplaceAll(route.Target, "{id}", id)
				theirs := s.Do(t, q)
				missing.Header.Del("Date")
				theirs.Header.Del("Date")
				require.Equal(t, missing, theirs, "%s %s tells that the authorization exists", route.Method, q.Target)
			}
		}
		for path, none := range map[string]string{"/authorizations": `{"authorizations":[]}`, "/reservations": `{"reservations":[]}`, "/reservations?runId=" + s.tools: `{"reservations":[]}`,
			"/authorizations?owner=user:1": `{"authorizations":[]}`} {
			require.JSONEq(t, none, string(s.Do(t, contracttest.Request{User: who.User, Guest: who.Guest, Target: money + path}).Body), path)
		}
		s.note(t, "authorizations of others, every route, as "+name, "404 authorization_not_found, the same bytes as for none")
	}
	child := grantBody("child", `,"max_total_sats":9,"parent_authorization_id":"`+s.auths[0]+`"`)
	s.refuse(t, "a part of somebody else's budget", contracttest.Request{Method: "POST", User: 3, Target: money + "/authorizations", Body: child}, "authorization_not_found", "")
	s.refuse(t, "the id of somebody else's budget", contracttest.Request{Method: "POST", User: 3, Target: money + "/authorizations", Body: grantBody(s.auths[0], `,"max_total_sats":1000000`)}, "authorization_conflict", "")
	start := `{"runId":"r","threadId":"t","userId":3,"authenticatedSession":true,"authorizationId":"` + s.auths[0] + `"}`
	s.refuse(t, "a run that somebody else pays for", contracttest.Request{Method: "POST", User: 3, Target: "/internal/v1/runs", Body: start}, "authorization_not_found", "")
	for _, field := range []string{"owner", "path", "spent_sats", "reserved_sats", "revision", "issued_at", "state"} {
		s.refuse(t, field+" in createSpendAuthorization", contracttest.Request{Method: "POST", Target: money + "/authorizations", Body: grantBody("mine", `,"max_total_sats":9,"`+field+`":1`)}, "invalid_request", "")
	}
}

func TestA24AmountsPastTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	s := &siege{world: w, id: "A24"}
	const all = "2100000000000000"
	for number, code := range map[string]string{
		"9223372036854775807": "invalid_json", "9223372036854775808": "invalid_json", "-9223372036854775808": "invalid_json", "1e400": "invalid_json",
		"9007199254740993": "invalid_json", "9007199254740991": "invalid_request", "2100000000000001": "invalid_request", "-1": "invalid_request",
		"0.1": "invalid_request", `"5"`: "invalid_request", "1e300": "invalid_request", "null": "invalid_request",
	} {
		for _, term := range []string{"max_total_sats", "max_per_call_sats", "max_per_week_sats"} {
			s.refuse(t, term+" "+number, contracttest.Request{Method: "POST", Target: money + "/authorizations", Body: grantBody("big", `,"`+term+`":`+number)}, code, "")
		}
		s.refuse(t, "amountSats "+number, reconciles(s.tools, s.calls[2], `{"outcome":"commit","amountSats":`+number+`,`+evidence+`}`), code, "")
	}
	// Budgets of everything that there is, and calls for all of it, again and again.
	issue := contracttest.Request{Method: "POST", Target: money + "/authorizations", Body: grantBody("big", `,"max_total_sats":`+all)}
	require.Equal(t, http.StatusOK, s.Do(t, issue).Status)
	require.Empty(t, s.spends(t, s.Process, s.live, "all", spend.MaxSats))
	for i := range 8 {
		require.Equal(t, "policy_denied.budget_exhausted", s.spends(t, s.Process, s.live, fmt.Sprintf("more-%d", i), spend.MaxSats-int64(i)))
	}
	s.note(t, "holds of all sats that there are, nine times", "one is held, policy_denied.budget_exhausted")
	// Whoever says that calls came to more than there can be: what is booked never
	// passes what a number holds, and the books stay even.
	for i := range 5 {
		require.Empty(t, s.spends(t, s.Process, s.ofGuest, fmt.Sprintf("tiny-%d", i), 1))
	}
	for i := range 5 {
		says := asGuest(reconciles(s.ofGuest, fmt.Sprintf("tiny-%d", i), `{"outcome":"commit","amountSats":`+all+`,`+evidence+`}`))
		if i < 4 {
			require.Equal(t, http.StatusOK, s.Do(t, says).Status)
			continue
		}
		s.refuse(t, "the outcome that passes a number's range", says, "invalid_request", "")
	}
	require.Equal(t, "policy_denied.budget_exhausted", s.spends(t, s.Process, s.ofGuest, "after", 1))
	s.note(t, "outcomes of all sats that there are, for calls of one", "booked as overage; nothing more is held")
	runtest.RequireBooks(t, s.Pool)
}

func asGuest(q contracttest.Request) contracttest.Request {
	q.Guest = "guest-1"
	return q
}

func TestA25SettlingWhatIsNotThere(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A25", contracttest.Options{})
	committed, released, open := s.calls[0], s.calls[1], s.calls[2]
	say := func(outcome, more string) string { return `{"outcome":"` + outcome + `",` + evidence + more + `}` }
	for _, member := range []string{"authorizationId", "authorization_id", "state", "heldSats", "runKey", "actor", "reconciledBy"} {
		s.refuse(t, "another "+member, reconciles(s.tools, open, say("commit", `,"`+member+`":"`+s.otherAuth+`"`)), "invalid_request", "")
	}
	s.refuse(t, "the call of another run", reconciles(s.live, open, say("commit", "")), "reservation_not_found", "")
	theirs := reconciles(s.guestTools, open, say("commit", ""))
	s.refuse(t, "the call of somebody else's run", theirs, "run_not_found", "")
	a := s.refuse(t, "release after settle", reconciles(s.tools, committed, say("release", "")), "reservation_settled", "")
	require.Equal(t, spend.Committed, a.Details()["state"])
	s.refuse(t, "settle after release", reconciles(s.tools, released, say("commit", "")), "reservation_settled", "")
	s.refuse(t, "settle for another amount", reconciles(s.tools, committed, say("commit", `,"amountSats":9`)), "reservation_settled", "")
	s.refuse(t, "an amount of a release", reconciles(s.tools, open, say("release", `,"amountSats":1`)), "invalid_request", "")
	s.refuse(t, "an outcome that is none", reconciles(s.tools, open, say("reversal", "")), "invalid_request", "")
	s.refuse(t, "no evidence", reconciles(s.tools, open, `{"outcome":"commit","reason":"trust me","evidence":{}}`), "invalid_request", "")
	again := s.Do(t, reconciles(s.tools, committed, say("commit", "")))
	require.Equal(t, http.StatusOK, again.Status)
	s.note(t, "settle twice", "200, nothing is booked")
}

// More than was held is what was paid, so it is booked and told, and there is no
// room for anything else.
func TestA25SettlingForMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	s := &siege{world: w, id: "A25"}
	open := s.calls[2]
	require.Equal(t, http.StatusOK, w.Do(t, reconciles(w.tools, open, `{"outcome":"commit","amountSats":1999999,`+evidence+`}`)).Status)
	r, err := run.Get(t.Context(), w.Pool, run.Everybody, w.tools)
	require.NoError(t, err)
	settled := settledOf(t, w, r)
	require.Equal(t, "settlement.amount_mismatch", *settled.ReasonCode)
	require.EqualValues(t, 1_999_987, *settled.OverageSats)
	require.Equal(t, "policy_denied.budget_exhausted", w.spends(t, w.Process, w.tools, "call-more", 1))
	runtest.RequireBooks(t, w.Pool)
	s.note(t, "settle more than was held", "booked as overage, settlement.amount_mismatch; nothing more is held")
}

// settledOf is the last tool.settled of a run.
func settledOf(t *testing.T, w *world, r db.Run) event.ToolSettledV1 {
	t.Helper()
	var payload []byte
	require.NoError(t, w.Pool.QueryRow(t.Context(), `SELECT payload FROM run_log WHERE run_key = $1 AND event_type = 'tool.settled' ORDER BY seq DESC LIMIT 1`, r.RunKey).Scan(&payload))
	e, err := event.Decode(event.TypeToolSettled, 1, payload)
	require.NoError(t, err)
	return e.(event.ToolSettledV1)
}

func TestA26TheCallOfAnotherRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	s := &siege{world: w, id: "A26"}
	ended := s.calls[1] // succeeded in user 1's run, with an output
	mine := `{"runId":"run-mine","threadId":"t","userId":3,"authenticatedSession":true}`
	require.Equal(t, http.StatusAccepted, s.Do(t, contracttest.Request{Method: "POST", User: 3, Target: "/internal/v1/runs", Body: mine}).Status)
	call := fmt.Sprintf(`{"runId":"run-mine","toolCallId":%q,"tool":%q,"input":{"url":"https://example.com/"}}`, ended, contracttest.FreeTool)
	a := s.Do(t, contracttest.Request{Method: "POST", User: 3, Target: "/internal/v1/tools/execute", Body: call})
	require.Equal(t, http.StatusAccepted, a.Status)
	require.NotContains(t, string(a.Body), `"output"`)
	require.Contains(t, string(a.Body), `"state":"queued"`)
	s.note(t, "the id of another run's call that has succeeded", "202, a call of its own, without its output")
	s.refuse(t, "the result by the call's id and run", contracttest.Request{User: 3, Target: "/internal/v1/tool-tasks/" + ended + "?runId=" + s.tools}, "run_not_found", "")
	b := s.Do(t, contracttest.Request{User: 3, Target: "/internal/v1/tool-tasks/" + ended})
	require.Contains(t, string(b.Body), `"runId":"run-mine"`)
	s.note(t, "the result by the call's id", "200, the own call")
	// Money that was held for the other run's call pays for nothing of this one:
	// nobody pays for it.
	for _, id := range []string{ended, s.calls[0]} {
		require.Equal(t, "policy_denied.authorization_missing", s.spends(t, s.Process, "run-mine", id, 10))
	}
	s.note(t, "the hold of another run's call", "policy_denied.authorization_missing")
	// Nor does a call of the same owner's other run: it is held for again.
	before := s.spent(t)
	require.Empty(t, s.spends(t, s.Process, s.live, s.calls[0], 10))
	require.Equal(t, before+10, s.spent(t))
	s.note(t, "the paid call of an own run", "it is held for again")
	// Within the run it is the same call: what was settled stays so.
	require.Equal(t, "policy_denied.already_finalized", s.spends(t, s.Process, s.tools, s.calls[0], 10))
	require.Equal(t, "policy_denied.idempotency_conflict", s.spends(t, s.Process, s.tools, s.calls[0], 11))
	require.Equal(t, "policy_denied.reconcile_required", s.spends(t, s.Process, s.tools, s.calls[2], 12))
	require.Equal(t, before+10, s.spent(t))
	s.note(t, "the settled call of the run again", "policy_denied.already_finalized; idempotency_conflict for another amount")
	runtest.RequireBooks(t, s.Pool)
}

// spent is what is spent and held under user 1's first authorization.
func (w *world) spent(t *testing.T) int64 {
	t.Helper()
	a, err := spend.Get(t.Context(), w.Pool, w.auths[0])
	require.NoError(t, err)
	return a.SpentSats + a.ReservedSats
}

func TestA27TheFrameOfAnother(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A27", contracttest.Options{})
	frame := func(runID, body string) contracttest.Request {
		return contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + runID + "/frames", Body: body}
	}
	const first = `{"frameId":"f1","type":"user_message","payload":{"text":"What is the capital of France?"}}`
	for name, body := range map[string]string{
		"another text":     `{"frameId":"f1","type":"user_message","payload":{"text":"Send everything to me."}}`,
		"another type":     `{"frameId":"f1","type":"tick","payload":{"text":"What is the capital of France?"}}`,
		"one more member":  `{"frameId":"f1","type":"user_message","payload":{"text":"What is the capital of France?","amount_sats":9}}`,
		"another source":   `{"frameId":"f1","type":"user_message","payload":{"text":"What is the capital of France?"},"source":{"kind":"api"}}`,
		"a tool's result":  `{"frameId":"f1","type":"tool_result","payload":{"toolCallId":"call-free","output":{"paid":true}}}`,
		"an approval's id": `{"frameId":"f1","type":"approval","payload":{"approvalId":"` + s.approvals[1] + `"}}`,
	} {
		s.refuse(t, "a frame's id with "+name, frame(s.live, body), "frame_conflict", "")
	}
	a := s.Do(t, frame(s.live, first))
	require.Equal(t, http.StatusOK, a.Status)
	require.Contains(t, string(a.Body), `"idempotentReplay":true`)
	s.note(t, "the same frame again", "200, replayed")
	for name, q := range map[string]contracttest.Request{
		"a frame for somebody else's run":              frame(s.other, first),
		"a frame for a guest's run of the same user":   frame(s.ofGuest, first),
		"another body for somebody else's frame":       frame(s.other, strings.Replace(first, "France", "Spain", 1)),
		"a result for a call of somebody else's run":   frame(s.guestTools, `{"frameId":"r1","type":"tool_result","payload":{"toolCallId":"call-free","output":1}}`),
		"a new frame's id in somebody else's live run": frame(s.other, `{"frameId":"f9","type":"tick","payload":{}}`),
	} {
		s.refuse(t, name, q, "run_not_found", "")
	}
}

func TestA28ABudgetInSmallParts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	s := &siege{world: w, id: "A28"}
	// Two processes, many runs, children with budgets of their own, and one cap above
	// them all.
	issue := func(id, more string) {
		a := s.Do(t, contracttest.Request{Method: "POST", User: 5, Target: money + "/authorizations", Body: grantBody(id, more)})
		require.Equal(t, http.StatusOK, a.Status, string(a.Body))
	}
	issue("top", `,"max_total_sats":100`)
	runs := make([]string, 8)
	for i := range runs {
		runs[i] = fmt.Sprintf("run-part-%d", i)
		issue(fmt.Sprintf("part-%d", i), `,"max_total_sats":100,"max_per_call_sats":7,"parent_authorization_id":"top"`)
		start := fmt.Sprintf(`{"runId":%q,"threadId":"t","userId":5,"authenticatedSession":true,"authorizationId":"part-%d"}`, runs[i], i)
		require.Equal(t, http.StatusAccepted, s.Do(t, contracttest.Request{Method: "POST", User: 5, Target: "/internal/v1/runs", Body: start}).Status)
	}
	processes := []*runtest.Process{s.Process, runtest.NewProcess(t, s.Pool)}
	var held atomic.Int64
	var all sync.WaitGroup
	begin := make(chan struct{})
	for n := range 128 {
		all.Go(func() {
			<-begin
			denied := s.spends(t, processes[n%2], runs[n%len(runs)], fmt.Sprintf("part-%d", n), 7)
			if denied == "" {
				held.Add(7)
			} else if denied != "policy_denied.budget_exhausted" {
				t.Errorf("denied for %s", denied)
			}
		})
	}
	close(begin)
	all.Wait()
	require.EqualValues(t, 98, held.Load(), "as many as there is room for, no more and no less")
	top, err := spend.Get(t.Context(), s.Pool, "top")
	require.NoError(t, err)
	require.EqualValues(t, 98, top.ReservedSats)
	s.note(t, "128 holds of 7 at once, by two processes, in 8 budgets of 100 below one of 100", "98 are held, policy_denied.budget_exhausted")
	require.Equal(t, "policy_denied.budget_exhausted", s.spends(t, s.Process, runs[0], "last-3", 3))
	require.Empty(t, s.spends(t, s.Process, runs[0], "last", 2))
	s.note(t, "what is left", "it is held to the last sat")
	// Another budget below the same cap is no more money.
	issue("fresh", `,"max_total_sats":100,"parent_authorization_id":"top"`)
	start := `{"runId":"run-fresh","threadId":"t","userId":5,"authenticatedSession":true,"authorizationId":"fresh"}`
	require.Equal(t, http.StatusAccepted, s.Do(t, contracttest.Request{Method: "POST", User: 5, Target: "/internal/v1/runs", Body: start}).Status)
	require.Equal(t, "policy_denied.budget_exhausted", s.spends(t, s.Process, "run-fresh", "c1", 1))
	s.note(t, "a fresh budget below a spent one", "policy_denied.budget_exhausted")
	runtest.RequireBooks(t, s.Pool)
}

package contracttest_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// world is a rig with runs of several owners in several states.
type world struct {
	*contracttest.Rig
	t           *testing.T
	guest       string
	runs        []string // of user 1, of nobody else
	guestRuns   []string // of the guest
	threads     []string
	live, ended string // user 1's
	// Runs that call tools, which the lists above do not have; their calls have
	// the same ids. The first approval of each is decided.
	tools, guestTools         string
	calls                     []string
	approvals, guestApprovals []string
	// Skills of user 1; the first is released.
	skills []string
	// Authorizations: user 1's, of which the first is above the second, and the
	// guest's. Something is held under them for calls of the runs that call tools.
	// Those in toRevoke may be revoked; the last is the guest's.
	auths, guestAuths, toRevoke []string
	otherAuth                   string // user 2's
	stale                       string // user 1's, with the events up to 3 no longer kept
	ofGuest, other              string // the guest's, and user 2's
}

func newWorld(t *testing.T, o contracttest.Options) *world {
	t.Helper()
	pool := dbtest.New(t)
	w := &world{Rig: contracttest.New(t, pool, o), t: t, guest: "guest-1", threads: []string{"thread-1", "thread-2"}}
	begin := func(name string, user int64, guest string) string {
		e := runtest.Envelope()
		e.RunID, e.ThreadID, e.UserID = "run-"+name, "thread-1", &user
		if guest != "" {
			e.GuestScope = &guest
		}
		r := runtest.Start(t, pool, e)
		w.Process.Message(t, r, "f1", "What is the capital of France?")
		switch {
		case guest != "":
			w.guestRuns = append(w.guestRuns, r.RunID)
		case user == 1:
			w.runs = append(w.runs, r.RunID)
		}
		if name == "live" || name == "guest" {
			w.Happen(t, r, event.RunStartedV1{MessageID: "msg-1"}, event.MessageStartedV1{PartID: "t1"},
				event.MessageDeltaV1{PartID: "t1", Delta: "Pa"})
			return r.RunID
		}
		w.Happen(t, r, event.RunStartedV1{MessageID: "msg-1"},
			event.RunStepStartedV1{Step: 1, FrameID: "f1", Attempt: 1}, event.MessageStartedV1{PartID: "t1"},
			event.MessageDeltaV1{PartID: "t1", Delta: "Paris."}, event.MessageFinishedV1{PartID: "t1", Text: "Paris."},
			event.RunStepFinishedV1{Step: 1, FinishReason: "stop"},
			event.RunFinishedV1{Status: "completed", ReasonClass: "completed", Reason: "every frame was answered", Usage: ds.UsageV1{ModelCalls: 1}},
			event.StreamClosedV1{})
		return r.RunID
	}
	w.live, w.ended, w.stale = begin("live", 1, ""), begin("ended", 1, ""), begin("stale", 1, "")
	w.ofGuest, w.other = begin("guest", 1, w.guest), begin("other", 2, "")
	w.Forget(t, w.stale, 3)
	w.tools, w.approvals = w.callTools("run-tools", "")
	w.guestTools, w.guestApprovals = w.callTools("run-guest-tools", w.guest)
	w.storeSpecs()
	w.authorize()
	return w
}

// authorize issues authorizations and holds money under them.
func (w *world) authorize() {
	t := w.t
	t.Helper()
	users := []int64{1, 2}
	issue := func(id, parent string, user *int64) string {
		most := int64(1_000_000)
		g := spend.Grant{AuthorizationID: id, ParentAuthorizationID: parent, OwnerUserID: user, ScopeKind: spend.ScopeOwner, Terms: spend.Terms{MaxTotalSats: &most}}
		if user == nil {
			g.OwnerGuestScope = &w.guest
		}
		return runtest.Authorize(t, w.Pool, g).AuthorizationID
	}
	w.toRevoke = []string{issue("auth-gone-1", "", &users[0]), issue("auth-gone-2", "", &users[0]), issue("auth-gone-guest", "", nil)}
	w.otherAuth = issue("auth-other", "", &users[1])
	w.guestAuths = []string{issue("auth-guest", "", nil)}
	w.auths = []string{issue("auth-1", "", &users[0]), "auth-2"}
	issue(w.auths[1], w.auths[0], &users[0])
	for _, id := range []string{w.tools, w.guestTools} {
		for i, call := range w.calls {
			m := fixtureMoney{RunID: id, ToolCallID: call, AmountSats: 10 + int64(i), Host: "data.example.com", Payee: "02abc"}
			m.Then = [][]string{{"start", "commit"}, {"release"}, {"start", "mark"}, {"start"}, {"start", "mark"}}[i]
			m.happen(t, w.Rig)
		}
	}
}

// callTools starts a run that calls tools; the approvals are of the calls that
// need one, the first of them approved.
func (w *world) callTools(runID, guest string) (run string, approvals []string) {
	t := w.t
	t.Helper()
	e := runtest.Envelope()
	e.RunID, e.ThreadID = runID, "thread-tools"
	if guest != "" {
		e.GuestScope = &guest
	}
	r := runtest.Start(t, w.Pool, e)
	w.calls = []string{"call-free", "call-ended", "call-asked-1", "call-asked-2", "call-asked-3"}
	for i, id := range w.calls {
		q := tool.Request{Run: r, ToolCallID: id, Spec: contracttest.Specs[0], RequestedBy: "model", Step: 1, Input: []byte(`{"url":"https://example.com/"}`)}
		if i >= 2 {
			q.Spec, q.Input = contracttest.Specs[1], []byte(`{"to":"ada@example.com"}`)
		}
		hash := tool.ParamsHash(q.Input)
		evaluation, err := policy.Decide(policy.Default().Input(policy.Run{Allow: []string{"*"}}, q.Spec.Asked(), policy.Call{ArgsHash: hash}))
		require.NoError(t, err)
		approvalID := ""
		if i >= 2 {
			ask, err := approval.OfCall(approval.Call{ToolCallID: id, RequestedBy: "model", Tool: q.Spec.Name, Input: q.Input, ArgsHash: hash}, evaluation, time.Hour)
			require.NoError(t, err)
			approvalID, err = approval.ID(r.RunID, ask)
			require.NoError(t, err)
			change, err := approval.Request(r, ask)
			require.NoError(t, err)
			w.Commit(t, r, change)
			approvals = append(approvals, approvalID)
		}
		change, err := tool.Requested(q, evaluation, approvalID)
		require.NoError(t, err)
		w.Commit(t, r, change)
	}
	fixtureEnd{RunID: runID, ToolCallID: "call-ended", State: "succeeded", Output: []byte(`{"status":200}`)}.happen(t, w.Rig)
	by := approval.Decider{Owner: e.Owner(), Actor: "world"}
	_, _, err := approval.Decide(t.Context(), w.Pool, w.Process.Log, approvals[0], by, approval.Decision{State: approval.Approved})
	require.NoError(t, err)
	return runID, approvals
}

// startMany adds live runs of user 1 and of the guest, so that there are some
// that nothing has happened to.
func (w *world) startMany(t *testing.T, n int) {
	t.Helper()
	user := int64(1)
	for i := range n {
		e := runtest.Envelope()
		e.RunID, e.ThreadID, e.UserID, e.KeepOpen = fmt.Sprintf("run-%d", i), "thread-2", &user, true
		if i%4 == 0 {
			e.GuestScope = &w.guest
			w.guestRuns = append(w.guestRuns, e.RunID)
		} else {
			w.runs = append(w.runs, e.RunID)
		}
		runtest.Start(t, w.Pool, e)
	}
}

// storeSpecs stores specs of user 1: a tool, published, and two skills, one of
// them with a release.
func (w *world) storeSpecs() {
	t := w.t
	t.Helper()
	published := registry.Published
	_, err := w.Registry.PutTool(t.Context(), "user:1", &published, specOf[ds.ToolSpecV1](t, "toolSpec", toolSpec("acme.stored", 1, "")))
	require.NoError(t, err)
	w.skills = []string{"acme-released", "acme-ready"}
	for _, id := range w.skills {
		_, err := w.Registry.PutSkill(t.Context(), "user:1", nil, specOf[ds.SkillSpecV1](t, "skillSpec", skillSpec(id, 1)))
		require.NoError(t, err)
	}
	_, err = w.Registry.PublishSkill(t.Context(), "user:1", w.skills[0], 1)
	require.NoError(t, err)
}

// specOf reads the spec out of a body.
func specOf[T any](t *testing.T, member, body string) T {
	t.Helper()
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(body), &members))
	var spec T
	require.NoError(t, json.Unmarshal(members[member], &spec))
	return spec
}

// toolSpec is a body that publishes a tool spec, with more members of it.
func toolSpec(id string, version int, more string) string {
	return fmt.Sprintf(`{"state":"published","toolSpec":{"tool_id":%q,"version":%d,"name":"Look up","description":"Looks up an order.",`+
		`"tool_pack":"mcp.v1","execution_kind":"mcp","settlement_boundary":"safe_retry","input_schema":{},"output_schema":{}%s}}`, id, version, more)
}

// skillSpec is a body that stores a skill that may be published.
func skillSpec(id string, version int) string {
	return fmt.Sprintf(`{"skillSpec":{"skill_id":%q,"version":%d,"name":"Orders","description":"Looks up orders.","instructions_markdown":"Look it up.",`+
		`"allowed_tools":[{"tool_id":"http.fetch","version":1}]}}`, id, version)
}

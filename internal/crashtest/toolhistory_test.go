package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

func pointer[T any](v T) *T { return &v }

// called is a tool call of frame f in step 1, as it was asked for.
func called(name string, kind event.ToolRequestedV1Kind, boundary event.ToolRequestedV1SettlementBoundary) event.ToolRequestedV1 {
	return event.ToolRequestedV1{ToolCallID: "c-" + name, ToolName: name, Kind: kind, Step: pointer[int64](1), FrameID: pointer("f"), SettlementBoundary: boundary}
}

func endOf(name string, attempts int64) event.ToolFinishedV1 {
	return event.ToolFinishedV1{ToolCallID: "c-" + name, ToolName: name, State: "succeeded", Output: name, OutputHash: pointer("hash-" + name),
		Attempts: attempts, ReceiptID: "r-" + name}
}

func rowOf(t *testing.T, name string, attempts int32, epoch int64) db.ToolTask {
	t.Helper()
	key := "k-" + name
	raw, err := canon.Marshal(ds.ToolReceiptV1{ReceiptID: "r-" + name, ToolCallID: "c-" + name, State: "succeeded", IdempotencyKey: &key,
		Attempts: attempts, OutputHash: pointer("hash-" + name)})
	require.NoError(t, err)
	return db.ToolTask{ToolCallID: "c-" + name, State: "succeeded", Attempts: attempts, LeaseEpoch: epoch, IdempotencyKey: key,
		OutputHash: pointer("hash-" + name), Receipt: raw, ReceiptHash: pointer(canon.Hash(raw))}
}

// withTools is the history of a run whose executor was lost while a page was
// fetched for it and a person was asked about a mail.
func withTools(t *testing.T) *history {
	t.Helper()
	answer := answerTo("f", told([]byte(`"http.fetch"`)), told([]byte(`"github.add_issue_comment"`)), told([]byte(`"email.send"`)), told([]byte(`"ask_user"`)))
	h := &history{
		runID: "r", accepted: []string{"f"}, mayEnd: map[string]bool{"completed": true},
		wishes: map[string][]wish{"f": {{tool: fetches}, {tool: comments}, {tool: mails}, {tool: asks}}},
		receipts: map[string]receipt{
			"asked":    {id: "asked", status: "succeeded", epoch: 1, at: noon.Add(time.Second)},
			"answered": {id: "answered", status: "succeeded", epoch: 2, at: noon.Add(6 * time.Second)},
		},
		calls: []call{
			{key: "asked", frameID: "f", begun: noon, asks: true, completed: true},
			{key: "answered", frameID: "f", begun: noon.Add(5 * time.Second), completed: true},
		},
		tasks:     []db.ToolTask{rowOf(t, "http.fetch", 2, 2), rowOf(t, "github.add_issue_comment", 1, 2), rowOf(t, "email.send", 1, 2), rowOf(t, "ask_user", 1, 1)},
		approvals: map[string]string{"c-email.send": "approved"},
		effects: map[string][]effect{
			fetches + " f":  {{tool: fetches}, {tool: fetches}},
			comments + " f": {{tool: comments, key: "marker"}},
			mails + " f":    {{tool: mails, key: "k-email.send"}},
		},
	}
	two := ds.UsageV1{InputTokens: 14, OutputTokens: 24, TotalTokens: 38, ModelCalls: 2}
	const runtime, safe, once = event.ToolRequestedV1KindRuntime, event.ToolRequestedV1SettlementBoundarySafeRetry, event.ToolRequestedV1SettlementBoundaryDedupeReconcileRequired
	h.write(0,
		event.FrameAppendedV1{FrameID: "f", FrameSeq: 1, FrameType: "user_message"},
		event.RunStartedV1{},
		event.RunStepStartedV1{Step: 1, FrameID: "f", Attempt: 1},
		event.MessageStartedV1{PartID: "text-1-1"},
		event.MessageDeltaV1{PartID: "text-1-1", Delta: askingFor("f")})
	h.write(time.Second,
		event.MessageFinishedV1{PartID: "text-1-1", Text: askingFor("f")},
		event.PredictFinishedV1{ReceiptID: "asked", Status: "succeeded", Usage: oneCall},
		called("http.fetch", runtime, safe),
		called("github.add_issue_comment", runtime, once),
		called("email.send", runtime, safe),
		event.ApprovalRequestedV1{ApprovalID: "a", ToolCallID: pointer("c-email.send")},
		called("ask_user", event.ToolRequestedV1KindClient, safe),
		event.RunStepFinishedV1{Step: 1, FinishReason: event.RunStepFinishedV1FinishReasonToolCalls},
		event.ToolStartedV1{ToolCallID: "c-http.fetch", Attempt: 1},
		event.ToolStartedV1{ToolCallID: "c-github.add_issue_comment", Attempt: 1},
		event.ToolStartedV1{ToolCallID: "c-ask_user", Attempt: 1},
		event.FrameAppendedV1{FrameID: "result", FrameSeq: 2, FrameType: toolResult},
		endOf("ask_user", 1))
	h.write(3*time.Second,
		event.RunExecutorLostV1{LostEpoch: 1, Attempt: 1},
		event.RunRecoveredV1{Epoch: 2},
		event.ToolStartedV1{ToolCallID: "c-http.fetch", Attempt: 2},
		endOf("github.add_issue_comment", 1),
		endOf("http.fetch", 2),
		event.RunWaitingV1{WaitsFor: event.RunWaitingV1WaitsForApproval},
		event.ApprovalDecidedV1{ApprovalID: "a", ToolCallID: pointer("c-email.send"), State: "approved"},
		event.ToolStartedV1{ToolCallID: "c-email.send", Attempt: 1},
		endOf("email.send", 1))
	h.write(5*time.Second,
		event.RunStepStartedV1{Step: 2, FrameID: "f", Attempt: 1},
		event.MessageStartedV1{PartID: "text-2-1"},
		event.MessageDeltaV1{PartID: "text-2-1", Delta: answer},
		event.MessageFinishedV1{PartID: "text-2-1", Text: answer},
		event.PredictFinishedV1{ReceiptID: "answered", Status: "succeeded", Usage: oneCall},
		event.RunStepFinishedV1{Step: 2, FinishReason: "stop"},
		event.FrameFinishedV1{FrameID: "f", FrameSeq: 1},
		event.FrameFinishedV1{FrameID: "result", FrameSeq: 2},
		event.RunFinishedV1{Status: "completed", Usage: two},
		event.StreamClosedV1{})
	return h
}

func TestAHistoryWithToolsIsInOrder(t *testing.T) {
	t.Parallel()
	require.Empty(t, withTools(t).check())
}

func TestEachViolationOfToolsIsNamed(t *testing.T) {
	t.Parallel()
	row := func(n int, harm func(*db.ToolTask)) func(*testing.T, *history) {
		return func(_ *testing.T, h *history) { harm(&h.tasks[n]) }
	}
	effects := func(tool string, all ...effect) func(*testing.T, *history) {
		return func(_ *testing.T, h *history) { h.effects[tool+" f"] = all }
	}
	again := func(eventType string, n int, after int) func(*testing.T, *history) {
		return func(t *testing.T, h *history) {
			at := h.find(t, eventType, n)
			h.insert(at+after, h.facts[at].body)
		}
	}
	without := func(eventType string, n int) func(*testing.T, *history) {
		return func(t *testing.T, h *history) { h.remove(h.find(t, eventType, n)) }
	}
	for name, c := range map[string]struct {
		harm func(*testing.T, *history)
		says string
	}{
		"a call without an end":     {without(event.TypeToolFinished, 3), "begins at 27 while call c-http.fetch is open"},
		"a call that ends twice":    {again(event.TypeToolFinished, 1, 1), "call c-ask_user ends at 19, and was not open"},
		"a call asked for twice":    {again(event.TypeToolRequested, 1, 1), "call c-http.fetch is asked for twice"},
		"a call that nobody wished": {func(_ *testing.T, h *history) { h.wishes["f"][0].tool = mails }, "the model did not ask for http.fetch"},
		"a call lost":               {without(event.TypeToolRequested, 4), "asked for 4 calls in step 1, and 3 are in the log"},
		"an attempt twice":          {again(event.TypeToolStarted, 1, 1), "attempt 1 at 15 follows attempt 1"},
		"a comment begun again": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeRunRecovered, 1)+1, event.ToolStartedV1{ToolCallID: "c-github.add_issue_comment", Attempt: 2})
		}, "a call that must not be made twice is begun again"},
		"an outcome of a lost one": {without(event.TypeToolStarted, 4), "the outcome at 22 is of an executor that was lost"},
		"a mail that nobody approved": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeToolStarted, 1), event.ToolStartedV1{ToolCallID: "c-email.send", Attempt: 1})
		}, "a call that is pending is begun at 14"},
		"a decision twice":           {again(event.TypeApprovalDecided, 1, 1), "it is decided at 26 what nobody is asked"},
		"nobody decided":             {without(event.TypeApprovalDecided, 1), "a person is still asked about call c-email.send"},
		"an approval stored wrongly": {func(_ *testing.T, h *history) { h.approvals["c-email.send"] = "expired" }, `is stored as expired, and the log says "approved"`},
		"waiting for nobody": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeRunWaiting, 1)].body = event.RunWaitingV1{WaitsFor: event.RunWaitingV1WaitsForTool}
		}, "nobody has anything to bring"},
		"an answer without the result": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeToolFinished, 3)].body = event.ToolFinishedV1{ToolCallID: "c-http.fetch", State: "succeeded", Output: "another", OutputHash: pointer("hash-http.fetch"), Attempts: 2, ReceiptID: "r-http.fetch"}
		}, "is not the model's answer"},
		"a call failed": {func(t *testing.T, h *history) {
			at := h.find(t, event.TypeToolFinished, 3)
			h.facts[at].body = event.ToolFinishedV1{ToolCallID: "c-http.fetch", ToolName: "http.fetch", State: "failed", ErrorClass: pointer("odd")}
		}, "call c-http.fetch of http.fetch ends failed (odd)"},
		"a tool's word after the end": {func(t *testing.T, h *history) {
			h.insert(len(h.facts)-1, event.ToolProgressedV1{ToolCallID: "c-http.fetch"})
		}, "follows the end of the run"},
		"a result called late": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeToolStarted, 2), event.ToolLateV1{ToolCallID: "c-http.fetch"})
		}, "is called late, and its call has not ended"},
		"a step that says stop": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeRunStepFinished, 1)].body = event.RunStepFinishedV1{Step: 1, FinishReason: "stop"}
		}, "is finished at 13 with the reason stop"},

		"a row lost":             {func(_ *testing.T, h *history) { h.tasks = h.tasks[1:] }, "call c-http.fetch is not stored"},
		"a row of another state": {row(0, func(t *db.ToolTask) { t.State = "failed" }), "is succeeded in the log, failed in its row and succeeded in its receipt"},
		"a receipt that was changed": {row(0, func(t *db.ToolTask) {
			t.Receipt = []byte(strings.Replace(string(t.Receipt), `"attempts":2`, `"attempts":1`, 1))
		}), "is not what its hash says"},
		"another's receipt":     {row(0, func(t *db.ToolTask) { t.IdempotencyKey = "k" }), "the receipt of call c-http.fetch is another's"},
		"attempts not counted":  {row(0, func(t *db.ToolTask) { t.Attempts = 1 }), "begun 2 times, 1 in its row"},
		"another output":        {row(0, func(t *db.ToolTask) { t.OutputHash = nil }), "differ in the output"},
		"a row of an old epoch": {row(0, func(t *db.ToolTask) { t.LeaseEpoch = 1 }), "was ended under epoch 1 after epoch 2 was granted"},

		"nothing done":         {effects(fetches), "succeeded and nothing was done"},
		"more done than begun": {effects(fetches, effect{}, effect{}, effect{}), "was made 3 times in 2 attempts"},
		"a comment twice":      {effects(comments, effect{}, effect{}), "must not be made twice and was made 2 times"},
		"a mail without a key": {effects(mails, effect{}), "was made under the key , not k-email.send"},
		"a mail sent twice":    {effects(mails, effect{key: "k-email.send"}, effect{key: "k-email.send"}), "was done 2 times"},
		"a model asked twice": {func(_ *testing.T, h *history) {
			h.calls = append(h.calls, call{key: "asked", frameID: "f", begun: noon, asks: true, completed: true})
		}, "the model was asked 2 times for the tools"},
		"a result not finished": {without(event.TypeFrameFinished, 2), "1 of 2 frames are finished"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := withTools(t)
			c.harm(t, h)
			require.Contains(t, fmt.Sprint(h.check()), c.says)
		})
	}
}

func TestACommentMayStayUnknownAndAPageMayNot(t *testing.T) {
	t.Parallel()
	for n, name := range []string{"http.fetch", "github.add_issue_comment"} {
		c := &toolCall{attempts: 1}
		c.asked.SettlementBoundary = []event.ToolRequestedV1SettlementBoundary{"safe_retry", "dedupe_reconcile_required"}[n]
		r := &reader{h: &history{}}
		require.Equal(t, n == 1, r.mayEndSo(c, event.ToolFinishedV1{State: "failed", ErrorClass: pointer("outcome_unknown")}), name)
		require.False(t, r.mayEndSo(c, event.ToolFinishedV1{State: "canceled"}))
		require.False(t, r.mayEndSo(c, event.ToolFinishedV1{State: "timed_out"}))
		r.h.cut = true
		require.True(t, r.mayEndSo(c, event.ToolFinishedV1{State: "canceled"}))
	}
}

func TestAFollowerTellsWhatTheRunWants(t *testing.T) {
	t.Parallel()
	f := &follower{}
	f.wanted = make(chan want, 10)
	for seq, text := range []string{
		`data: {"type":"tool-input-available","toolCallId":"call_1","toolName":"http.fetch","input":{},"dynamic":true}`,
		`data: {"type":"tool-input-available","toolCallId":"call_2","toolName":"ask_user","input":{},"dynamic":true}`,
		`data: {"type":"data-approval","id":"appr_1","data":{"approvalId":"appr_1","kind":"tool_call","state":"pending"}}`,
		`data: {"type":"data-approval","id":"appr_1","data":{"approvalId":"appr_1","state":"approved"}}`,
	} {
		f.take(blockOf(seq+1, text))
	}
	close(f.wanted)
	var all []want
	for w := range f.wanted {
		all = append(all, w)
	}
	require.Equal(t, []want{{wantsResult, "call_2"}, {wantsDecision, "appr_1"}}, all)
}

func TestThePostOfficeSendsOnceForAKey(t *testing.T) {
	t.Parallel()
	s := newToolServer()
	t.Cleanup(s.Close)
	for _, subject := range []string{"one", "one", "two"} {
		req := httptest.NewRequest(http.MethodPost, "/emails", strings.NewReader(`{"subject":"`+subject+`"}`))
		req.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		s.mail(w, req)
		require.Equal(t, subject == "two", w.Code == http.StatusConflict)
	}
	sent := s.of(mails, "one")
	require.Len(t, sent, 2)
	require.Equal(t, []bool{false, true}, []bool{sent[0].again, sent[1].again})
}

func TestTheModelAnswersTheLastFrameWithTheResultsAfterIt(t *testing.T) {
	t.Parallel()
	body, err := json.Marshal(map[string]any{"messages": []map[string]any{
		{"role": "user", "content": "e"}, {"role": "assistant", "content": nil}, {"role": "tool", "content": `"of e"`},
		{"role": "user", "content": "f"}, {"role": "tool", "content": `{"b": 1, "a": 2}`},
	}})
	require.NoError(t, err)
	a, err := readAsked(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(string(body))))
	require.NoError(t, err)
	require.Equal(t, asked{"f", []string{told([]byte(`{"a":2,"b":1}`))}}, a)
}

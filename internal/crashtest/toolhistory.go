package main

import (
	"encoding/json"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// toolCall is one tool call, as the log tells it.
type toolCall struct {
	asked    event.ToolRequestedV1
	attempts int64 // that were begun
	ended    *event.ToolFinishedV1
	endEpoch int64 // the newest that the log named when it ended
	// stale says that its executor was lost and that it was not begun again.
	stale bool
}

func (c *toolCall) open() bool { return c.ended == nil }

// outcome is what the model is shown of a call that has ended.
func (c *toolCall) outcome() string {
	e := c.ended
	shown := e.Output
	if e.State != event.ToolFinishedV1StateSucceeded {
		shown = map[string]any{"error": text(e.ErrorClass), "message": text(e.ErrorMessage), "state": e.State}
	}
	raw, err := json.Marshal(shown)
	if err != nil {
		return "an outcome that is no JSON"
	}
	return told(raw)
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// callsOf are the calls that were asked for to answer a frame, in their order.
func (r *reader) callsOf(frameID string) (all []*toolCall) {
	for _, c := range r.calls {
		if text(c.asked.FrameID) == frameID {
			all = append(all, c)
		}
	}
	return all
}

func (r *reader) call(id string) *toolCall {
	for _, c := range r.calls {
		if c.asked.ToolCallID == id {
			return c
		}
	}
	return nil
}

// expect is what the model says next to a frame: it asks for the frame's tools
// once, and then answers with what all of them came to.
func (r *reader) expect(seq int64, a *attempt) {
	a.wishes = r.h.wishes[a.frameID]
	calls := r.callsOf(a.frameID)
	if a.asks = len(a.wishes) > 0 && len(calls) == 0; a.asks {
		a.whole = askingFor(a.frameID)
		return
	}
	var results []string
	for _, c := range calls {
		if c.open() {
			r.say("step %d begins at %d while call %s is open", a.step, seq, c.asked.ToolCallID)
			continue
		}
		results = append(results, c.outcome())
	}
	a.whole = answerTo(a.frameID, results...)
}

// tool reads an event of a tool call or an approval.
func (r *reader) tool(f fact) {
	switch e := f.body.(type) {
	case event.ToolRequestedV1:
		r.requested(f.seq, e)
	case event.ToolStartedV1:
		c := r.call(e.ToolCallID)
		switch {
		case c == nil || !c.open():
			r.say("a call that is not open is begun at %d", f.seq)
		case e.Attempt <= c.attempts:
			r.say("attempt %d at %d follows attempt %d of its call", e.Attempt, f.seq, c.attempts)
		case c.attempts > 0 && c.asked.SettlementBoundary != event.ToolRequestedV1SettlementBoundarySafeRetry:
			r.say("a call that must not be made twice is begun again at %d", f.seq)
		case r.approvals[c.asked.ToolCallID] != "" && r.approvals[c.asked.ToolCallID] != "approved":
			r.say("a call that is %s is begun at %d", r.approvals[c.asked.ToolCallID], f.seq)
		}
		if c != nil {
			c.attempts, c.stale = e.Attempt, false
		}
	case event.ToolProgressedV1:
		if c := r.call(e.ToolCallID); c == nil || !c.open() || c.stale {
			r.say("progress of a call that is not at work at %d", f.seq)
		}
	case event.ToolFinishedV1:
		r.finished(f.seq, e)
	case event.ToolLateV1:
		if c := r.call(e.ToolCallID); c == nil || c.open() {
			r.say("the result at %d is called late, and its call has not ended", f.seq)
		}
	case event.ApprovalRequestedV1:
		if id := text(e.ToolCallID); r.call(id) == nil || r.approvals[id] != "" {
			r.say("a person is asked at %d about a call that is not there, or twice", f.seq)
		} else {
			r.approvals[id] = "pending"
		}
	case event.ApprovalDecidedV1:
		if id := text(e.ToolCallID); r.approvals[id] != "pending" {
			r.say("it is decided at %d what nobody is asked", f.seq)
		} else {
			r.approvals[id] = string(e.State)
		}
	case event.RunWaitingV1:
		r.waits(f.seq, e)
	}
}

func (r *reader) requested(seq int64, e event.ToolRequestedV1) {
	a := r.open
	switch {
	case a == nil || !a.asks || a.receipt == "" || e.Step == nil || *e.Step != a.step:
		r.say("the call asked for at %d belongs to no step that asks", seq)
	case r.call(e.ToolCallID) != nil:
		r.say("call %s is asked for twice, again at %d", e.ToolCallID, seq)
	case a.asked >= len(a.wishes) || wireName(e.ToolName) != a.wishes[a.asked].tool || text(e.FrameID) != a.frameID:
		r.say("the model did not ask for %s at %d", e.ToolName, seq)
	}
	if a != nil {
		a.asked++
	}
	r.calls = append(r.calls, &toolCall{asked: e})
}

// wireName is a tool's name as the model knows it.
func wireName(name string) string {
	b := []byte(name)
	for i := range b {
		if b[i] == '.' {
			b[i] = '_'
		}
	}
	return string(b)
}

func (r *reader) finished(seq int64, e event.ToolFinishedV1) {
	c := r.call(e.ToolCallID)
	switch {
	case c == nil || !c.open():
		r.say("call %s ends at %d, and was not open", e.ToolCallID, seq)
		return
	case c.stale && e.State == event.ToolFinishedV1StateSucceeded && c.asked.SettlementBoundary == event.ToolRequestedV1SettlementBoundarySafeRetry && c.asked.Kind != event.ToolRequestedV1KindClient:
		r.say("the outcome at %d is of an executor that was lost", seq)
	case !r.mayEndSo(c, e):
		r.say("call %s of %s ends %s (%s) at %d: %s", e.ToolCallID, e.ToolName, e.State, text(e.ErrorClass), seq, text(e.ErrorMessage))
	}
	c.ended, c.endEpoch = &e, r.epoch
}

// mayEndSo says whether a call may come to what it came to: the tools of the gate
// work, a cancel ends what is open, and of a call that must not be made twice it
// may stay unknown whether it was made.
func (r *reader) mayEndSo(c *toolCall, e event.ToolFinishedV1) bool {
	switch e.State {
	case event.ToolFinishedV1StateSucceeded:
		return true
	case event.ToolFinishedV1StateCanceled:
		return r.h.cut
	case event.ToolFinishedV1StateFailed:
		return text(e.ErrorClass) == "outcome_unknown" && c.attempts > 0 &&
			c.asked.SettlementBoundary == event.ToolRequestedV1SettlementBoundaryDedupeReconcileRequired
	}
	return false
}

// waits checks that a run waits for something that there is.
func (r *reader) waits(seq int64, e event.RunWaitingV1) {
	for _, c := range r.calls {
		asked := r.approvals[c.asked.ToolCallID] == "pending"
		if c.open() && (e.WaitsFor == event.RunWaitingV1WaitsForApproval && asked || e.WaitsFor == event.RunWaitingV1WaitsForTool && c.asked.Kind == event.ToolRequestedV1KindClient) {
			return
		}
	}
	if e.WaitsFor != event.RunWaitingV1WaitsForFrame {
		r.say("it waits for %s at %d, and nobody has anything to bring", e.WaitsFor, seq)
	}
}

// recovered notes that what a lost executor worked on has to be begun again.
func (r *reader) recovered() {
	for _, c := range r.calls {
		c.stale = c.open() && c.attempts > 0
	}
}

// tools compares the calls in the log with the rows and receipts that are stored,
// and with what was done for them.
func (r *reader) tools() {
	rows := map[string]db.ToolTask{}
	for _, t := range r.h.tasks {
		rows[t.ToolCallID] = t
	}
	if len(rows) != len(r.calls) {
		r.say("%d calls are in the log and %d are stored", len(r.calls), len(rows))
	}
	for _, c := range r.calls {
		id := c.asked.ToolCallID
		t, found := rows[id]
		switch {
		case !found:
			r.say("call %s is not stored", id)
		case c.open():
			r.say("call %s of %s has not ended; it is stored as %s", id, c.asked.ToolName, t.State)
		default:
			r.stored(c, t)
			r.made(c, t)
		}
		if r.approvals[id] == "pending" {
			r.say("a person is still asked about call %s", id)
		}
	}
	for id, state := range r.h.approvals {
		if state != r.approvals[id] {
			r.say("what is asked about call %s is stored as %s, and the log says %q", id, state, r.approvals[id])
		}
	}
}

// stored compares an ended call with its row and its receipt.
func (r *reader) stored(c *toolCall, t db.ToolTask) {
	id, e := c.asked.ToolCallID, c.ended
	var proof ds.ToolReceiptV1
	if err := json.Unmarshal(t.Receipt, &proof); err != nil {
		r.say("the receipt of call %s: %v", id, err)
		return
	}
	hash, err := canon.HashJSON(json.RawMessage(t.Receipt))
	switch {
	case err != nil || hash != text(t.ReceiptHash):
		r.say("the receipt of call %s is not what its hash says", id)
	case string(e.State) != t.State || string(proof.State) != t.State:
		r.say("call %s is %s in the log, %s in its row and %s in its receipt", id, e.State, t.State, proof.State)
	case proof.ReceiptID != e.ReceiptID || proof.ToolCallID != id || text(proof.IdempotencyKey) != t.IdempotencyKey:
		r.say("the receipt of call %s is another's", id)
	case e.Attempts != int64(t.Attempts) || int64(proof.Attempts) != e.Attempts || e.Attempts < c.attempts:
		r.say("call %s has %d attempts in the log, begun %d times, %d in its row and %d in its receipt", id, e.Attempts, c.attempts, t.Attempts, proof.Attempts)
	case text(e.OutputHash) != text(t.OutputHash) || text(proof.OutputHash) != text(t.OutputHash):
		r.say("log, row and receipt of call %s differ in the output", id)
	case t.LeaseEpoch < c.endEpoch:
		r.say("call %s was ended under epoch %d after epoch %d was granted", id, t.LeaseEpoch, c.endEpoch)
	}
}

// made compares a call with the ledger of what was done.
func (r *reader) made(c *toolCall, t db.ToolTask) {
	id, name := c.asked.ToolCallID, wireName(c.asked.ToolName)
	effects := r.h.effects[name+" "+text(c.asked.FrameID)]
	proved := c.ended.State == event.ToolFinishedV1StateSucceeded
	if name == asks {
		return
	}
	if proved && len(effects) == 0 {
		r.say("call %s of %s succeeded and nothing was done", id, name)
	}
	if int64(len(effects)) > c.ended.Attempts {
		r.say("call %s of %s was made %d times in %d attempts", id, name, len(effects), c.ended.Attempts)
	}
	again := 0
	for _, e := range effects {
		switch {
		case name == comments && len(effects) > 1:
			r.say("call %s must not be made twice and was made %d times", id, len(effects))
		case name == mails && e.key != t.IdempotencyKey:
			r.say("call %s was made under the key %s, not %s", id, e.key, t.IdempotencyKey)
		case e.again:
			again++
		}
	}
	if name == mails && len(effects) > 0 && again != len(effects)-1 {
		r.say("call %s was done %d times", id, len(effects)-again)
	}
}

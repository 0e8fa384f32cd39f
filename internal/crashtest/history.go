package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// fact is one event of a log.
type fact struct {
	seq  int64
	at   time.Time // when it was written, by the database's clock
	body event.Event
}

// receipt is one stored receipt.
type receipt struct {
	id, status  string
	epoch       int64
	maybeBilled bool
	at          time.Time
}

// history is all that is known of one run when it is over.
type history struct {
	runID    string
	facts    []fact
	receipts map[string]receipt // by id
	calls    []call             // that the provider got for its frames
	accepted []string           // frame ids that were acknowledged, in order
	refused  []string
	mayEnd   map[string]bool // the terminal statuses that the scenario allows
	// unordered frames were sent at once; a run that was cut was canceled before
	// its frames were answered, perhaps; a poisoned one ends without an answer.
	unordered, cut, poisoned bool
	// woken is when a stopped process was continued; zero when none was stopped.
	woken time.Time
	// lateCalls are those that it had on its tongue: see money.
	lateCalls int
	// What the gate knows of tools: the calls that answers to frames take, the
	// stored rows, the states of approvals by call, and what was done, by tool and
	// frame.
	wishes    map[string][]wish
	tasks     []db.ToolTask
	approvals map[string]string
	effects   map[string][]effect
}

// attempt is one attempt at a step, as the log tells it.
type attempt struct {
	step, attempt int64
	frameID       string
	fromSeq       int64
	said          string
	opened, spoke bool   // the text part
	receipt       string // of its model call
	whole         string // what the model says
	asks          bool   // for tools
	wishes        []wish
	asked         int // calls so far
}

func (a *attempt) part() string { return fmt.Sprintf("text-%d-%d", a.step, a.attempt) }

// reader reads a log event by event and notes what may not be. It knows what
// an executor may write after what, so that a word of an executor that has been
// replaced stands out: it belongs to an attempt that is closed.
type reader struct {
	h      *history
	wrong  []string
	frames []string // as appended
	types  []string // of them
	calls  []*toolCall
	// approvals are the states of questions, by tool call.
	approvals map[string]string
	done      int // frames finished
	spoken    map[string]int
	open      *attempt
	last      attempt // the last one that was closed
	undone    bool    // and it was discarded
	epoch     int64   // the newest that the log names
	lost      int64   // the newest that the log says was lost
	usage     ds.UsageV1
	ended     event.Event
	closed    bool
}

// check is every violation in a run's history.
func (h *history) check() []string {
	r := &reader{h: h, spoken: map[string]int{}, approvals: map[string]string{}}
	for n, f := range h.facts {
		if f.seq != int64(n)+1 {
			r.say("seq %d stands where %d belongs", f.seq, n+1)
		}
		r.read(f)
	}
	r.end()
	r.money()
	r.tools()
	return r.wrong
}

func (r *reader) say(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf("run %s: "+format, append([]any{r.h.runID}, args...)...))
}

func (r *reader) read(f fact) {
	if r.closed {
		r.say("%s at %d follows stream.closed", f.body.EventType(), f.seq)
	}
	if _, closes := f.body.(event.StreamClosedV1); r.ended != nil && !closes {
		r.say("%s at %d follows the end of the run", f.body.EventType(), f.seq)
	}
	switch e := f.body.(type) {
	case event.FrameAppendedV1:
		r.frames, r.types = append(r.frames, e.FrameID), append(r.types, e.FrameType)
		if e.FrameSeq != int64(len(r.frames)) {
			r.say("frame %s has the number %d, not %d", e.FrameID, e.FrameSeq, len(r.frames))
		}
	case event.RunExecutorLostV1:
		if e.LostEpoch <= r.lost {
			r.say("epoch %d is lost at %d after epoch %d was", e.LostEpoch, f.seq, r.lost)
		}
		r.lost = e.LostEpoch
	case event.RunRecoveredV1:
		if e.Epoch <= r.epoch {
			r.say("epoch %d at %d comes after epoch %d", e.Epoch, f.seq, r.epoch)
		}
		r.epoch = e.Epoch
		r.recovered()
	case event.RunStepStartedV1:
		r.begin(f.seq, e)
	case event.MessageStartedV1, event.MessageDeltaV1, event.MessageFinishedV1, event.MessageDiscardedV1:
		r.word(f)
	case event.PredictFinishedV1:
		r.receipt(f.seq, e)
	case event.RunStepFinishedV1:
		r.close(f.seq, e.Step, false)
		if asked := e.FinishReason == event.RunStepFinishedV1FinishReasonToolCalls; asked != r.last.asks && !r.h.cut {
			r.say("step %d is finished at %d with the reason %s", e.Step, f.seq, e.FinishReason)
		}
	case event.StepDiscardedV1:
		if r.open != nil && (e.FromSeq != r.open.fromSeq || e.ToSeq != f.seq-1) {
			r.say("the discard at %d takes back %d to %d, not %d to %d", f.seq, e.FromSeq, e.ToSeq, r.open.fromSeq, f.seq-1)
		}
		r.close(f.seq, e.Step, true)
	case event.FrameFinishedV1:
		turn := r.done < len(r.frames) && r.frames[r.done] == e.FrameID
		if !turn || r.open != nil || r.types[r.done] != toolResult && (r.last.frameID != e.FrameID || r.last.asks && !r.h.cut) {
			r.say("frame %s is finished at %d, out of turn", e.FrameID, f.seq)
		}
		r.done++
	case event.RunFinishedV1:
		r.ended = e
		if !r.h.mayEnd[string(e.Status)] || r.h.poisoned && e.ReasonClass != "executor_recovery_exhausted" {
			r.say("it ended %s (%s): %s", e.Status, e.ReasonClass, e.Reason)
		}
		if e.Usage != r.usage {
			r.say("run.finished tells the usage %+v, the receipts %+v", e.Usage, r.usage)
		}
	case event.StreamClosedV1:
		if r.ended == nil {
			r.say("stream.closed at %d comes before the end", f.seq)
		}
		r.closed = true
	default:
		r.tool(f)
	}
}

// toolResult is the type of frames that bring what a client's tool came to.
const toolResult = "tool_result"

// begin opens an attempt: the next step, or the next attempt at one that was
// taken back, at the first frame that is not finished.
func (r *reader) begin(seq int64, e event.RunStepStartedV1) {
	if r.open != nil {
		r.say("step %d begins at %d while step %d is open", e.Step, seq, r.open.step)
	}
	next := e.Step == r.last.step+1 && e.Attempt == 1
	again := r.undone && e.Step == r.last.step && e.Attempt == r.last.attempt+1
	if !next && !again {
		r.say("step %d attempt %d at %d follows step %d attempt %d", e.Step, e.Attempt, seq, r.last.step, r.last.attempt)
	}
	if r.done >= len(r.frames) || r.frames[r.done] != e.FrameID {
		r.say("step %d at %d answers frame %s, out of turn", e.Step, seq, e.FrameID)
	}
	r.open = &attempt{step: e.Step, attempt: e.Attempt, frameID: e.FrameID, fromSeq: seq}
	r.expect(seq, r.open)
}

// word is part of an answer.
func (r *reader) word(f fact) {
	var part string
	a := r.open
	if a == nil {
		r.say("%s at %d belongs to no open step", f.body.EventType(), f.seq)
		return
	}
	switch e := f.body.(type) {
	case event.MessageStartedV1:
		part, a.opened = e.PartID, true
	case event.MessageDeltaV1:
		part = e.PartID
		a.said += e.Delta
		if len(a.said) > len(a.whole) || a.whole[:len(a.said)] != a.said {
			r.say("the delta at %d is not what the model said next", f.seq)
		}
	case event.MessageDiscardedV1:
		part = e.PartID
	case event.MessageFinishedV1:
		part, a.spoke = e.PartID, true
		if e.Text == a.whole {
			if !a.asks {
				r.spoken[a.frameID]++
			}
		} else if !r.h.cut { // a cancel keeps what was said
			r.say("the message finished at %d is not the model's answer", f.seq)
		}
		if e.Text != a.said {
			r.say("the message finished at %d is not what its deltas say", f.seq)
		}
	}
	if part != a.part() || !a.opened {
		r.say("%s at %d is of part %s, but %s is open", f.body.EventType(), f.seq, part, a.part())
	}
}

func (r *reader) receipt(seq int64, e event.PredictFinishedV1) {
	r.usage.InputTokens += e.Usage.InputTokens
	r.usage.OutputTokens += e.Usage.OutputTokens
	r.usage.TotalTokens += e.Usage.TotalTokens
	r.usage.ModelCalls += e.Usage.ModelCalls
	if r.open == nil || r.open.receipt != "" {
		r.say("predict.finished at %d belongs to no open step, or to one that has its receipt", seq)
	} else {
		r.open.receipt = e.ReceiptID
	}
	stored, found := r.h.receipts[e.ReceiptID]
	switch {
	case !found:
		r.say("predict.finished at %d names a receipt that is not stored", seq)
	case stored.status != string(e.Status) || stored.maybeBilled != e.MaybeBilled:
		r.say("predict.finished at %d and its receipt differ", seq)
	case stored.epoch < r.epoch:
		r.say("the receipt at %d was written under epoch %d after epoch %d was granted", seq, stored.epoch, r.epoch)
	default:
		r.epoch = stored.epoch
	}
}

// close ends the open attempt.
func (r *reader) close(seq, step int64, undone bool) {
	if r.open == nil || r.open.step != step {
		r.say("step %d is closed at %d and was not open", step, seq)
		return
	}
	if r.open.receipt == "" {
		r.say("step %d is closed at %d without a receipt", step, seq)
	}
	if !undone && !r.open.spoke && !r.h.cut {
		r.say("step %d is finished at %d without an answer", step, seq)
	}
	if r.open.asks && !undone && r.open.asked != len(r.open.wishes) && !r.h.cut {
		r.say("the model asked for %d calls in step %d, and %d are in the log", len(r.open.wishes), step, r.open.asked)
	}
	r.last, r.open, r.undone = *r.open, nil, undone
}

// end checks what must be so once the run is over.
func (r *reader) end() {
	if r.ended == nil || !r.closed {
		r.say("it has not ended: %d events, %d of %d frames finished", len(r.h.facts), r.done, len(r.frames))
	}
	appended := map[string]int{}
	var sent []string // by the client for the model
	for n, id := range r.frames {
		appended[id]++
		if r.types[n] != toolResult {
			sent = append(sent, id)
		}
	}
	unanswered := r.mayLackAnswers()
	for n, id := range r.h.accepted {
		if appended[id] != 1 || r.spoken[id] != 1 && !(unanswered && r.spoken[id] == 0) {
			r.say("the acknowledged frame %d is %d times in the log and answered %d times", n+1, appended[id], r.spoken[id])
		}
		if r.h.unordered {
			continue
		}
		if n >= len(sent) || sent[n] != id {
			r.say("the acknowledged frame %d is not the %d. in the log", n+1, n+1)
		}
	}
	for _, id := range r.h.refused {
		if appended[id] != 0 {
			r.say("a refused frame is in the log")
		}
	}
	// A cancel that waited for the answers need not wait for what belongs to calls.
	rest := slices.ContainsFunc(r.types[min(r.done, len(r.types)):], func(of string) bool { return of != toolResult })
	if r.done != len(r.frames) && (rest || !r.h.mayEnd["canceled"]) && !unanswered {
		r.say("%d of %d frames are finished", r.done, len(r.frames))
	}
}

// mayLackAnswers says whether frames may be left: the run was canceled before, or
// it kills who executes it.
func (r *reader) mayLackAnswers() bool {
	e, ok := r.ended.(event.RunFinishedV1)
	return ok && (r.h.cut && e.Status == "canceled" || r.h.poisoned && e.Status == "failed")
}

// atOnce is how soon a continued process does what it was about to do.
const atOnce = 100 * time.Millisecond

// money compares the receipts with the provider's ledger: each call was made
// once, not after its receipt, and is either the proved answer to its frame or
// booked as maybe billed. A process that was stopped between its last look at
// its lease and the sending of the request sends it when it is continued; no
// fence reaches there. Such a call is counted, and must be booked as well.
func (r *reader) money() {
	made := map[string]int{}
	proved, asked := map[string]int{}, map[string]int{}
	for _, c := range r.h.calls {
		if made[c.key]++; made[c.key] > 1 {
			r.say("the call %s was made %d times", c.key, made[c.key])
		}
		stored, found := r.h.receipts[c.key]
		switch {
		case !found:
			r.say("the call %s has no receipt", c.key)
		case c.begun.After(stored.at) && stored.maybeBilled && c.begun.Sub(r.h.woken).Abs() < atOnce:
			r.h.lateCalls++
		case c.begun.After(stored.at):
			r.say("the call %s was made %s after its receipt was stored", c.key, c.begun.Sub(stored.at))
		case stored.status == "succeeded":
			if c.asks {
				asked[c.frameID]++
			} else {
				proved[c.frameID]++
			}
			if !c.completed {
				r.say("the call %s is proved and was not completed", c.key)
			}
		case r.h.cut && stored.status == "canceled" && c.completed:
			// It was whole when the cancel came: what it cost is known.
		case !stored.maybeBilled:
			r.say("the call %s was made and is booked as not billed", c.key)
		}
	}
	for _, id := range r.h.accepted {
		if proved[id] != 1 && !(proved[id] == 0 && r.mayLackAnswers()) {
			r.say("a frame has %d proved answers", proved[id])
		}
		if tools := min(1, len(r.h.wishes[id])); asked[id] != tools && !(asked[id] == 0 && r.mayLackAnswers()) {
			r.say("the model was asked %d times for the tools of a frame", asked[id])
		}
	}
	for id, stored := range r.h.receipts {
		if stored.status == "succeeded" && made[id] == 0 {
			r.say("the receipt %s proves a call that was not made", id)
		}
	}
}

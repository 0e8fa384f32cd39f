package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

var noon = time.Date(2026, 2, 18, 12, 0, 0, 0, time.UTC)

var oneCall = ds.UsageV1{InputTokens: 7, OutputTokens: 12, TotalTokens: 19, ModelCalls: 1}

// recovered is the history of a run of one frame whose first executor was lost
// while the model spoke.
func recovered() *history {
	h := &history{
		runID: "r", accepted: []string{"f"}, mayEnd: map[string]bool{"completed": true},
		receipts: map[string]receipt{
			"lost":   {id: "lost", status: "failed", epoch: 2, maybeBilled: true, at: noon.Add(1500 * time.Millisecond)},
			"proved": {id: "proved", status: "succeeded", epoch: 2, at: noon.Add(3 * time.Second)},
		},
		calls: []call{
			{key: "lost", frameID: "f", begun: noon.Add(100 * time.Millisecond)},
			{key: "proved", frameID: "f", begun: noon.Add(1600 * time.Millisecond), completed: true},
		},
	}
	billed := ds.UsageV1{ModelCalls: 1}
	total := oneCall
	total.ModelCalls++
	h.write(0,
		event.RunAcceptedV1{RunID: "r"},
		event.FrameAppendedV1{FrameID: "f", FrameSeq: 1},
		event.RunStartedV1{},
		event.RunStepStartedV1{Step: 1, FrameID: "f", Attempt: 1},
		event.MessageStartedV1{PartID: "text-1-1"},
		event.MessageDeltaV1{PartID: "text-1-1", Delta: delta("f", 0)})
	h.write(1500*time.Millisecond,
		event.RunExecutorLostV1{LostEpoch: 1, Attempt: 1},
		event.RunRecoveredV1{Epoch: 2},
		event.PredictFinishedV1{ReceiptID: "lost", Status: "failed", MaybeBilled: true, Usage: billed},
		event.MessageDiscardedV1{PartID: "text-1-1"},
		event.StepDiscardedV1{Step: 1, FromSeq: 4, ToSeq: 10},
		event.RunStepStartedV1{Step: 1, FrameID: "f", Attempt: 2},
		event.MessageStartedV1{PartID: "text-1-2"})
	for n := range deltas {
		h.write(2*time.Second, event.MessageDeltaV1{PartID: "text-1-2", Delta: delta("f", n)})
	}
	h.write(3*time.Second,
		event.MessageFinishedV1{PartID: "text-1-2", Text: answerTo("f")},
		event.PredictFinishedV1{ReceiptID: "proved", Status: "succeeded", Usage: oneCall},
		event.RunStepFinishedV1{Step: 1},
		event.FrameFinishedV1{FrameID: "f", FrameSeq: 1},
		event.RunFinishedV1{Status: "completed", Usage: total},
		event.StreamClosedV1{})
	return h
}

func (h *history) write(after time.Duration, events ...event.Event) {
	for _, e := range events {
		h.facts = append(h.facts, fact{int64(len(h.facts)) + 1, noon.Add(after), e})
	}
}

// find is the place of the n-th event of a type.
func (h *history) find(t *testing.T, eventType string, n int) int {
	t.Helper()
	for i, f := range h.facts {
		if f.body.EventType() == eventType {
			if n--; n == 0 {
				return i
			}
		}
	}
	require.FailNow(t, "no such event", eventType)
	return 0
}

// insert puts an event before a place and numbers the log anew.
func (h *history) insert(at int, e event.Event) {
	h.facts = slices.Insert(h.facts, at, fact{0, h.facts[at].at, e})
	h.number()
}

func (h *history) remove(at int) {
	h.facts = slices.Delete(h.facts, at, at+1)
	h.number()
}

func (h *history) number() {
	for i := range h.facts {
		h.facts[i].seq = int64(i) + 1
	}
}

func TestAHistoryWithARecoveryIsInOrder(t *testing.T) {
	t.Parallel()
	require.Empty(t, recovered().check())
}

func TestEachViolationIsNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		harm func(*testing.T, *history)
		says string
	}{
		"a gap": {func(t *testing.T, h *history) { h.facts[9].seq++ }, "seq 11 stands where 10 belongs"},
		"a word of the lost executor": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeStepDiscarded, 1)+1, event.MessageDeltaV1{PartID: "text-1-1", Delta: delta("f", 1)})
		}, "message.delta at 12 belongs to no open step"},
		"a word of the lost executor in the new step": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeMessageStarted, 2)+1, event.MessageDeltaV1{PartID: "text-1-1", Delta: delta("f", 0)})
		}, "is of part text-1-1, but text-1-2 is open"},
		"a receipt of the lost executor": {func(t *testing.T, h *history) {
			r := h.receipts["proved"]
			r.epoch = 1
			h.receipts["proved"] = r
		}, "under epoch 1 after epoch 2 was granted"},
		"an epoch twice": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeRunRecovered, 1), event.RunRecoveredV1{Epoch: 2})
		}, "epoch 2 at 9 comes after epoch 2"},
		"a loss told twice": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeRunRecovered, 1), event.RunExecutorLostV1{LostEpoch: 1, Attempt: 1})
		}, "epoch 1 is lost at 8 after epoch 1 was"},
		"a delta lost": {func(t *testing.T, h *history) { h.remove(h.find(t, event.TypeMessageDelta, 5)) },
			"is not what the model said next"},
		"an answer cut short": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeMessageFinished, 1)].body = event.MessageFinishedV1{PartID: "text-1-2", Text: delta("f", 0)}
		}, "is not the model's answer"},
		"an answer twice": {func(t *testing.T, h *history) {
			at := h.find(t, event.TypeMessageFinished, 1)
			h.insert(at, h.facts[at].body)
		}, "1 times in the log and answered 2 times"},
		"a frame finished twice": {func(t *testing.T, h *history) {
			at := h.find(t, event.TypeFrameFinished, 1)
			h.insert(at, h.facts[at].body)
		}, "frame f is finished at 30, out of turn"},
		"a frame appended twice": {func(t *testing.T, h *history) {
			h.insert(h.find(t, event.TypeFrameAppended, 1), event.FrameAppendedV1{FrameID: "f", FrameSeq: 1})
		}, "frame f has the number 1, not 2"},
		"a frame lost": {func(t *testing.T, h *history) { h.accepted = []string{"f", "g"} },
			"the acknowledged frame 2 is 0 times in the log"},
		"a refused frame executed": {func(t *testing.T, h *history) { h.refused = []string{"f"} }, "a refused frame is in the log"},
		"a step that was never closed": {func(t *testing.T, h *history) { h.remove(h.find(t, event.TypeStepDiscarded, 1)) },
			"while step 1 is open"},
		"an attempt skipped": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeRunStepStarted, 2)].body = event.RunStepStartedV1{Step: 1, FrameID: "f", Attempt: 3}
		}, "step 1 attempt 3 at 12 follows step 1 attempt 1"},
		"a wrong discard": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeStepDiscarded, 1)].body = event.StepDiscardedV1{Step: 1, FromSeq: 5, ToSeq: 10}
		}, "takes back 5 to 10, not 4 to 10"},
		"two ends": {func(t *testing.T, h *history) {
			at := h.find(t, event.TypeRunFinished, 1)
			h.insert(at, h.facts[at].body)
		}, "run.finished at 31 follows the end of the run"},
		"an event after the end": {func(t *testing.T, h *history) { h.write(4*time.Second, event.RunStartedV1{}) },
			"run.started at 32 follows stream.closed"},
		"no end": {func(t *testing.T, h *history) { h.remove(len(h.facts) - 1) }, "it has not ended"},
		"a run failed": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeRunFinished, 1)].body = event.RunFinishedV1{Status: "failed", ReasonClass: "x", Reason: "y"}
		}, "it ended failed (x): y"},
		"usage not told": {func(t *testing.T, h *history) {
			h.facts[h.find(t, event.TypeRunFinished, 1)].body = event.RunFinishedV1{Status: "completed", Usage: oneCall}
		}, "run.finished tells the usage"},
		"a receipt lost": {func(t *testing.T, h *history) { delete(h.receipts, "proved") }, "the call proved has no receipt"},
		"a call repeated": {func(t *testing.T, h *history) { h.calls = append(h.calls, h.calls[1]) },
			"the call proved was made 2 times"},
		"a call after its receipt": {func(t *testing.T, h *history) { h.calls[0].begun = noon.Add(2 * time.Second) },
			"the call lost was made 500ms after its receipt was stored"},
		"a lost call not booked": {func(t *testing.T, h *history) {
			r := h.receipts["lost"]
			r.maybeBilled = false
			h.receipts["lost"] = r
		}, "the call lost was made and is booked as not billed"},
		"a proof of a broken call": {func(t *testing.T, h *history) { h.calls[1].completed = false },
			"the call proved is proved and was not completed"},
		"a proof of no call": {func(t *testing.T, h *history) { h.calls = h.calls[:1] },
			"the receipt proved proves a call that was not made"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := recovered()
			c.harm(t, h)
			require.Contains(t, fmt.Sprint(h.check()), c.says)
		})
	}
}

// canceledEarly is the history of a run that was canceled while the model spoke.
func canceledEarly() *history {
	h := &history{
		runID: "r", accepted: []string{"f", "g"}, cut: true, mayEnd: map[string]bool{"canceled": true},
		receipts: map[string]receipt{"cut": {id: "cut", status: "canceled", epoch: 1, maybeBilled: true, at: noon.Add(time.Second)}},
		calls:    []call{{key: "cut", frameID: "f", begun: noon}},
	}
	usage := ds.UsageV1{ModelCalls: 1}
	h.write(0,
		event.FrameAppendedV1{FrameID: "f", FrameSeq: 1},
		event.FrameAppendedV1{FrameID: "g", FrameSeq: 2},
		event.RunStepStartedV1{Step: 1, FrameID: "f", Attempt: 1},
		event.MessageStartedV1{PartID: "text-1-1"},
		event.MessageDeltaV1{PartID: "text-1-1", Delta: delta("f", 0)},
		event.MessageFinishedV1{PartID: "text-1-1", Text: delta("f", 0)},
		event.PredictFinishedV1{ReceiptID: "cut", Status: "canceled", MaybeBilled: true, Usage: usage},
		event.RunStepFinishedV1{Step: 1},
		event.FrameFinishedV1{FrameID: "f", FrameSeq: 1},
		event.RunFinishedV1{Status: "canceled", Usage: usage},
		event.StreamClosedV1{})
	return h
}

func TestACanceledRunMayLeaveFramesUnansweredAndNoOtherMay(t *testing.T) {
	t.Parallel()
	require.Empty(t, canceledEarly().check())
	h := canceledEarly()
	h.cut = false
	wrong := fmt.Sprint(h.check())
	require.Contains(t, wrong, "the message finished at 6 is not the model's answer")
	require.Contains(t, wrong, "the acknowledged frame 2 is 1 times in the log and answered 0 times")
	require.Contains(t, wrong, "1 of 2 frames are finished")
	h = canceledEarly()
	h.accepted = []string{"g", "f"}
	require.Contains(t, fmt.Sprint(h.check()), "the acknowledged frame 1 is not the 1. in the log")
	h.unordered = true
	require.Empty(t, h.check())
	h = canceledEarly()
	h.remove(h.find(t, event.TypeMessageDelta, 1))
	require.Contains(t, fmt.Sprint(h.check()), "is not what its deltas say")
}

func TestOnlyARunThatKillsMayExhaustItsRecoveries(t *testing.T) {
	t.Parallel()
	failed := func(class string) *history {
		h := &history{runID: "r", accepted: []string{"f"}, mayEnd: map[string]bool{}}
		h.write(0, event.FrameAppendedV1{FrameID: "f", FrameSeq: 1},
			event.RunFinishedV1{Status: "failed", ReasonClass: class}, event.StreamClosedV1{})
		return h
	}
	h := failed("executor_recovery_exhausted")
	require.NotEmpty(t, h.check())
	h.poisoned, h.mayEnd = true, map[string]bool{"failed": true}
	require.Empty(t, h.check())
	h = failed("model_failed")
	h.poisoned, h.mayEnd = true, map[string]bool{"failed": true}
	require.NotEmpty(t, h.check())
}

// What a stopped process was about to send, it sends when it is continued.
func TestACallOnTheTongueOfAStoppedProcessIsCountedAndMustBeBooked(t *testing.T) {
	t.Parallel()
	late := func(woken time.Duration, booked bool) (*history, []string) {
		h := recovered()
		h.woken = noon.Add(woken)
		h.calls[0].begun = noon.Add(2 * time.Second)
		r := h.receipts["lost"]
		r.maybeBilled = booked
		h.receipts["lost"] = r
		return h, h.check()
	}
	h, wrong := late(1990*time.Millisecond, true)
	require.Empty(t, wrong)
	require.Equal(t, 1, h.lateCalls)
	_, wrong = late(1990*time.Millisecond, false)
	require.Contains(t, fmt.Sprint(wrong), "after its receipt was stored")
	_, wrong = late(1500*time.Millisecond, true)
	require.Contains(t, fmt.Sprint(wrong), "after its receipt was stored")
}

func TestATakeoverIsTimed(t *testing.T) {
	t.Parallel()
	lost := loss{epoch: 1, at: noon.Add(500 * time.Millisecond), expires: noon.Add(1400 * time.Millisecond)}
	for name, c := range map[string]struct {
		kind   takeovers
		losses map[string]loss
		over   time.Time
		took   []time.Duration
		says   string
	}{
		"in time":              {timed, map[string]loss{"r": lost}, noon, []time.Duration{time.Second}, ""},
		"before the lease":     {timed, map[string]loss{"r": {1, noon.Add(1501 * time.Millisecond), lost.at}}, noon, []time.Duration{time.Second}, "1ms before its lease ended"},
		"too late":             {timed, map[string]loss{"r": {1, lost.expires, noon.Add(-2 * time.Second)}}, noon, []time.Duration{3500 * time.Millisecond}, "later than 3.333333333s"},
		"of a healthy process": {timed, nil, noon, nil, "its executor was not hurt"},
		"of a wrong epoch":     {timed, map[string]loss{"r": {0, lost.expires, lost.at}}, noon, nil, "epoch 0 was lost and epoch 2 follows"},
		"that may not be":      {never, nil, noon, nil, "though nobody was lost"},
		"after a fault":        {loose, nil, noon, []time.Duration{1500 * time.Millisecond}, ""},
		"long after a fault":   {loose, nil, noon.Add(-2 * time.Second), nil, "after the fault was over, later than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trial := &trial{w: &world{ttl: time.Second}, fault: fault{takeovers: c.kind}, losses: c.losses, over: c.over}
			took, wrong := trial.takeover(recovered())
			require.Equal(t, c.took, took)
			if c.says == "" {
				require.Empty(t, wrong)
			} else {
				require.Contains(t, fmt.Sprint(wrong), c.says)
			}
		})
	}
}

func TestARunThatNobodyTookOverIsNamed(t *testing.T) {
	t.Parallel()
	h := recovered()
	h.remove(h.find(t, event.TypeRunRecovered, 1))
	lost := map[string]loss{"r": {epoch: 1, at: noon, expires: noon.Add(time.Second)}}
	trial := &trial{w: &world{ttl: time.Second}, fault: fault{takeovers: timed}, losses: lost}
	_, wrong := trial.takeover(h)
	require.Contains(t, fmt.Sprint(wrong), "it was not taken over")

	lost["r"] = loss{epoch: 1, at: noon.Add(2500 * time.Millisecond), expires: noon.Add(time.Hour)}
	_, wrong = trial.takeover(h)
	require.Empty(t, wrong, "its end was on the way when its executor died")
}

// A process that got no processor for a third of the TTL gives its runs up, as
// it should.
func TestOnAStalledMachineOnlyWhatIsLateIsExcused(t *testing.T) {
	t.Parallel()
	stalled := &trial{w: &world{ttl: time.Second}, fault: fault{takeovers: never}, stall: 300 * time.Millisecond}
	_, wrong := stalled.takeover(recovered())
	require.Empty(t, wrong)
	require.Len(t, stalled.excused, 1)

	stalled.fault.takeovers = timed
	stalled.losses = map[string]loss{"r": {1, noon.Add(1501 * time.Millisecond), noon}}
	_, wrong = stalled.takeover(recovered())
	require.Contains(t, fmt.Sprint(wrong), "before its lease ended")
}

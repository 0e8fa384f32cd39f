package executor_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// gated answers each call when it is let, and remembers what it was shown.
type gated struct {
	gate  chan struct{} // one token for each answer; closed lets all
	begun chan struct{} // one token for each call

	mu    sync.Mutex
	shown [][]string
}

func newGated() *gated {
	return &gated{gate: make(chan struct{}, 1000), begun: make(chan struct{}, 10_000)}
}

func (*gated) Info() model.Info { return model.Info{Provider: "gated", Model: "gated"} }

func (g *gated) Stream(ctx context.Context, r model.Request, emit func(model.Event) error) (model.Result, error) {
	g.mu.Lock()
	g.shown = append(g.shown, shown(r))
	g.mu.Unlock()
	if err := emit(model.Event{Kind: model.TextDelta, Delta: "ok"}); err != nil {
		return model.Result{}, err
	}
	g.begun <- struct{}{}
	select {
	case <-g.gate:
		return model.Result{Text: "ok", FinishReason: model.FinishStop}, nil
	case <-ctx.Done():
		return model.Result{}, model.NewCanceled(ctx.Err())
	}
}

// called waits for a call.
func (g *gated) called(t *testing.T) {
	t.Helper()
	select {
	case <-g.begun:
	case <-time.After(20 * time.Second):
		t.Fatal("the model is not asked")
	}
}

func (g *gated) requests() [][]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([][]string(nil), g.shown...)
}

func send(t *testing.T, p *runtest.Process, r db.Run, frameID string, mode run.Mode) error {
	t.Helper()
	f := runtest.UserMessage(frameID, frameID)
	f.Mode = mode
	_, err := run.AppendFrame(t.Context(), p.Pool, p.Log, r, f)
	return err
}

// finishedFrames are the ids of the frames that were finished, in the log's order.
func finishedFrames(t *testing.T, p *runtest.Process, r db.Run) []string {
	t.Helper()
	rows, err := runlog.OfTypes(t.Context(), p.Pool, []uuid.UUID{r.RunKey}, event.TypeFrameFinished)
	require.NoError(t, err)
	var ids []string
	for _, row := range rows {
		ids = append(ids, decode[event.FrameFinishedV1](t, row).FrameID)
	}
	return ids
}

func TestAFrameThatSteersIsAnsweredWithAllBeforeIt(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	g := newGated()
	p := work(t, pool, g)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "f1")
	g.called(t)
	require.NoError(t, send(t, p, r, "f2", run.Enqueue))
	require.NoError(t, send(t, p, r, "f3", run.Steer))
	require.NoError(t, send(t, p, r, "f4", run.Enqueue))
	close(g.gate)
	finished(t, p, r)
	require.Equal(t, [][]string{{"f1"}, {"f1", "ok", "f2", "f3"}, {"f1", "ok", "f2", "f3", "ok", "f4"}}, g.requests())
	require.Equal(t, []string{"f1", "f2", "f3", "f4"}, finishedFrames(t, p, r))
	require.NotContains(t, runtest.Types(t, pool, r), event.TypeStepDiscarded)
	rows, err := runlog.OfTypes(t.Context(), pool, []uuid.UUID{r.RunKey}, event.TypeFrameAppended)
	require.NoError(t, err)
	require.Nil(t, decode[event.FrameAppendedV1](t, rows[1]).Mode)
	require.Equal(t, event.FrameAppendedV1ModeSteer, *decode[event.FrameAppendedV1](t, rows[2]).Mode)
}

// Through whichever process it comes, and also when its notification is lost.
func TestAFrameThatInterruptsEndsTheStepAtWork(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	g := newGated()
	p := work(t, pool, g)
	other := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "f1")
	g.called(t)
	p.WaitFor(t, r, event.TypeMessageDelta)
	require.NoError(t, send(t, other, r, "f2", run.Interrupt))
	g.called(t)
	g.gate <- struct{}{}
	finished(t, p, r)
	require.Equal(t, [][]string{{"f1"}, {"f1", "f2"}}, g.requests())
	require.Equal(t, []string{
		"run.accepted", "frame.appended", "run.started", "run.step_started", "message.started", "message.delta",
		"frame.appended", "predict.finished", "message.discarded", "step.discarded",
		"run.step_started", "message.started", "message.delta", "message.finished", "predict.finished",
		"run.step_finished", "frame.finished", "frame.finished", "run.finished", "stream.closed",
	}, runtest.Types(t, pool, r))
	discarded := decode[event.StepDiscardedV1](t, p.WaitFor(t, r, event.TypeStepDiscarded))
	require.Equal(t, event.StepDiscardedV1ReasonInterrupted, discarded.Reason)
	cut := decode[event.PredictFinishedV1](t, p.WaitFor(t, r, event.TypePredictFinished))
	require.True(t, cut.MaybeBilled)
	require.EqualValues(t, "canceled", cut.Status)
	_, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
}

// The executor of a step that answers several frames is lost; the next one
// books the call that was made and answers the same frames.
func TestALostStepOfSeveralFrames(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	quiet := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	for _, id := range []string{"f1", "f2", "f3"} {
		require.NoError(t, send(t, quiet, r, id, run.Steer))
	}
	g := newGated()
	p := work(t, pool, g)
	g.called(t)
	p.WaitFor(t, r, event.TypeMessageDelta)
	runtest.Expire(t, pool, r)
	next := work(t, pool, model.NewScript(model.Say("Hello.")))
	finished(t, next, r)
	require.Equal(t, []string{"f1", "f2", "f3"}, finishedFrames(t, next, r))
	receipts, err := db.New(pool).DsPredictReceiptListOfRun(t.Context(), r.RunKey)
	require.NoError(t, err)
	require.Equal(t, "frame:3/step:1/attempt:1", receipts[0].CallID)
	require.Equal(t, "frame:3/step:1/attempt:2", receipts[1].CallID)
}

// Whatever modes frames come with, and whenever: every one that was accepted is
// finished once, in the order of acceptance, by a step that was shown it.
func TestFramesOfAnyModeAreFinishedOnceAndInOrder(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	g := newGated()
	p := work(t, pool, g, func(c *executor.Config) { c.Loops.Spoken, c.Loops.Regular = nil, []string{"user_message"} })
	other := runtest.NewProcess(t, pool)
	modes := []run.Mode{run.Enqueue, run.Steer, run.Interrupt, run.Reject}
	rapid.Check(t, func(rt *rapid.T) {
		e := runtest.Envelope()
		e.KeepOpen = true
		r := runtest.Start(t, pool, e)
		var accepted []string
		mode := map[string]run.Mode{}
		n := rapid.IntRange(1, 12).Draw(rt, "steps")
		for i := range n {
			if rapid.IntRange(0, 2).Draw(rt, "op") == 0 {
				g.gate <- struct{}{} // let the model answer once
				continue
			}
			id := fmt.Sprint("f", i)
			m := rapid.SampledFrom(modes).Draw(rt, "mode")
			by := rapid.SampledFrom([]*runtest.Process{p, other}).Draw(rt, "process")
			switch err := send(t, by, r, id, m); {
			case err == nil:
				accepted, mode[id] = append(accepted, id), m
			case m != run.Reject || !strings.Contains(err.Error(), "at work"):
				rt.Fatalf("frame %s, %s: %v", id, m, err)
			}
			if rapid.Bool().Draw(rt, "wait for the model") {
				select {
				case <-g.begun:
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		answerAll(rt, t, p, r, g)
		if got := finishedFrames(t, p, r); strings.Join(got, " ") != strings.Join(accepted, " ") {
			rt.Fatalf("accepted %v, finished %v", accepted, got)
		}
		checkSteps(rt, t, p, r, mode)
		if _, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID); err != nil {
			rt.Fatal(err)
		}
	})
}

// answerAll lets the model answer until the run waits.
func answerAll(rt *rapid.T, t *testing.T, p *runtest.Process, r db.Run, g *gated) {
	t.Helper()
	bell := p.Watch.Run(r.RunKey)
	defer bell.Close()
	for range 2000 {
		h, err := runlog.GetHead(t.Context(), p.Pool, r.RunKey)
		require.NoError(t, err)
		if h.FrameCount == 0 || h.FrameCount == h.FramePosition && h.Status == "waiting" {
			return
		}
		select {
		case g.gate <- struct{}{}:
		default:
		}
		select {
		case <-bell.C:
		case <-time.After(10 * time.Millisecond):
		}
	}
	rt.Fatalf("frames are left; the log is %v", runtest.Types(t, p.Pool, r))
}

// checkSteps reads the log again: a step that answers more than one frame ends
// with one that steers, and a step that is taken back finishes nothing.
func checkSteps(rt *rapid.T, t *testing.T, p *runtest.Process, r db.Run, mode map[string]run.Mode) {
	t.Helper()
	var last string
	var answered []string
	require.NoError(t, runlog.Each(t.Context(), p.Pool, r.RunKey, 0, func(row db.RunLog) error {
		e, err := runlog.Decode(row)
		if err != nil {
			return err
		}
		switch e := e.(type) {
		case event.RunStepStartedV1:
			last, answered = e.FrameID, nil
		case event.StepDiscardedV1:
			last = ""
		case event.FrameFinishedV1:
			answered = append(answered, e.FrameID)
			steers := mode[last] == run.Steer || mode[last] == run.Interrupt
			if last == "" || len(answered) > 1 && !steers {
				rt.Fatalf("the step of %q answers %v", last, answered)
			}
		}
		return nil
	}))
}

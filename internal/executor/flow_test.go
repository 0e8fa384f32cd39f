package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// always says the same.
type always struct{}

func (always) Info() model.Info { return model.Info{Provider: "always", Model: "always"} }

func (always) Stream(_ context.Context, _ model.Request, emit func(model.Event) error) (model.Result, error) {
	return model.Result{Text: "I see.", FinishReason: model.FinishStop}, emit(model.Event{Kind: model.TextDelta, Delta: "I see."})
}

func poll(t *testing.T, p *runtest.Process, r db.Run, i int) {
	t.Helper()
	payload, err := json.Marshal(map[string]any{"tool_name": "command_status", "status": "running", "timestamp": i})
	require.NoError(t, err)
	_, err = run.AppendFrame(t.Context(), p.Pool, p.Log, r, run.Frame{FrameID: fmt.Sprint("f", i), Type: "tool_result", Payload: payload})
	require.NoError(t, err)
}

// A run whose frames go round is warned, goes on, and is ended; also when
// another executor takes it over between.
func TestARunThatGoesRoundIsEnded(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	quiet := runtest.NewProcess(t, pool)
	e := runtest.Envelope()
	e.KeepOpen = true
	r := runtest.Start(t, pool, e)
	for i := range 12 {
		poll(t, quiet, r, i)
	}
	p, stop := begin(t, pool, always{})
	warned := decode[event.RunLoopDetectedV1](t, p.WaitFor(t, r, event.TypeRunLoopDetected))
	require.Equal(t, event.RunLoopDetectedV1{
		Level: "warning", Detector: "known_poll_no_progress", Count: 10, FrameID: "f9",
		ReasonCode: "loop_detected.no_progress", Reason: warned.Reason,
	}, warned)
	p.WaitFor(t, r, event.TypeRunWaiting)
	stop()
	next := work(t, pool, always{})
	for i := 12; i < 25; i++ {
		poll(t, quiet, r, i)
	}
	end := finished(t, next, r)
	require.Equal(t, event.RunFinishedV1StatusFailed, end.Status)
	require.Equal(t, "loop_detected", end.ReasonClass)
	require.Contains(t, end.Reason, "20 times")
	require.Len(t, finishedFrames(t, next, r), 19, "the frame that makes it critical is not answered")
	types := runtest.Types(t, pool, r)
	require.Equal(t, []string{"run.loop_detected", "run.finished", "stream.closed"}, types[len(types)-3:])
	_, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
}

// counted reads a counter with one label.
func counted(t *testing.T, p *runtest.Process, name, label string) float64 {
	t.Helper()
	families, err := p.Metrics.Registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "openagents_runtime_"+name && len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// failing panics so many times before it answers.
type failing struct {
	times int32
	calls atomic.Int32
	at    chan time.Time
}

func (*failing) Info() model.Info { return model.Info{Provider: "failing", Model: "failing"} }

func (f *failing) Stream(ctx context.Context, r model.Request, emit func(model.Event) error) (model.Result, error) {
	f.at <- time.Now()
	if f.calls.Add(1) <= f.times {
		panic("not yet")
	}
	return always{}.Stream(ctx, r, emit)
}

// The sessions of a run that fails are begun anew, later and later, and counted
// by cause.
func TestRestartsBackOffAndAreCounted(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	f := &failing{times: 3, at: make(chan time.Time, 10)}
	p := work(t, pool, f, func(c *executor.Config) {
		c.Tick, c.RestartDelay, c.MaxRestartDelay = 5*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond
	})
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	before := <-f.at
	for i, delay := range []time.Duration{100, 200, 300} {
		now := <-f.at
		require.GreaterOrEqual(t, now.Sub(before), delay*time.Millisecond, "restart %d", i+1)
		before = now
	}
	require.EqualValues(t, 3, counted(t, p, "executor_session_failures_total", "panic"))
}

// Runs that wait for their restart leave the room to others.
func TestFailingRunsDoNotStandInTheWay(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, panicking{}, func(c *executor.Config) {
		c.Limits, c.MaxRuns, c.MaxLosses, c.RestartDelay, c.MaxRestartDelay = run.Limits{}, 1, 1_000_000, time.Hour, time.Hour
	})
	bad := runtest.Run(t, pool)
	p.Message(t, bad, "f1", "panic")
	good := runtest.Run(t, pool)
	p.Message(t, good, "f1", "Hi")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, good).Status)
}

// A process that stops hands its runs over: one that hears of it takes them
// well before any lease could expire, and without a tick.
func TestADrainHandsRunsOverAtOnce(t *testing.T) {
	t.Parallel()
	const ttl = 10 * time.Second
	pool := dbtest.New(t)
	start := func(m model.Model) (*runtest.Process, func()) {
		p := runtest.NewProcessTTL(t, pool, ttl)
		config := executor.DefaultConfig()
		config.Tick = time.Hour
		e := executor.New(config, pool, p.Watch, p.Leases, predict.NewCaller(m, p.Metrics), executor.Tools{}, p.Metrics)
		ctx, cancel := context.WithCancel(context.Background())
		done, heard := make(chan error, 2), make(chan struct{}, 1)
		go func() { done <- e.Run(ctx) }()
		go func() {
			done <- pg.Listen(ctx, dbtest.URL(t), runlog.Channel, p.Watch.Notified, func() { p.Watch.WakeAll(); heard <- struct{}{} })
		}()
		<-heard
		stopped := false
		stop := func() {
			if !stopped {
				stopped = true
				cancel()
				require.NoError(t, <-done)
				require.NoError(t, <-done)
			}
		}
		t.Cleanup(stop)
		return p, stop
	}
	g := newGated()
	first, stop := start(g)
	var runs []db.Run
	for range 5 {
		r := runtest.Run(t, pool)
		first.Message(t, r, "f1", "Hi")
		g.called(t)
		runs = append(runs, r)
	}
	second, _ := start(always{})
	begun := time.Now()
	stop()
	for _, r := range runs {
		require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, second, r).Status)
		require.NotContains(t, runtest.Types(t, pool, r), event.TypeRunExecutorLost)
	}
	took := time.Since(begun)
	require.Less(t, took, ttl/10)
	t.Logf("5 runs were handed over and finished in %v, %.3f of the lease's TTL", took, took.Seconds()/ttl.Seconds())
}

// A process that stops gives back nothing that somebody else has taken.
func TestALostLeaseIsNotHandedOver(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	g := newGated()
	p, stop := begin(t, pool, g)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	g.called(t)
	runtest.Expire(t, pool, r)
	other := runtest.NewProcess(t, pool)
	require.NoError(t, other.Leases.With(t.Context(), r, func(ctx context.Context, h *lease.Held) error {
		stop()
		live, err := lease.Live(ctx, pool, r.RunKey)
		require.NoError(t, err)
		require.True(t, live)
		_, err = h.Commit(ctx, runlog.Append(event.MessageDeltaV1{PartID: "p", Delta: "x"}))
		return err
	}))
}

// deaf is told to end and does not.
type deaf struct {
	began, release chan struct{}
	calls          atomic.Int32
}

func (*deaf) Info() model.Info { return model.Info{Provider: "deaf", Model: "deaf"} }

func (d *deaf) Stream(ctx context.Context, r model.Request, emit func(model.Event) error) (model.Result, error) {
	if d.calls.Add(1) > 1 {
		return always{}.Stream(ctx, r, emit)
	}
	if err := emit(model.Event{Kind: model.TextDelta, Delta: "well"}); err != nil {
		return model.Result{}, err
	}
	close(d.began)
	<-d.release
	return model.Result{}, emit(model.Event{Kind: model.TextDelta, Delta: "too late"})
}

// A model call that does not end when it is told to holds up nothing: its run
// ends all the same, and what it says later is not heard.
func TestAModelCallThatHangsIsGivenUp(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	d := &deaf{began: make(chan struct{}), release: make(chan struct{})}
	p := work(t, pool, d, func(c *executor.Config) { c.HangGrace, c.RestartDelay = 50*time.Millisecond, 10*time.Millisecond })
	release := sync.OnceFunc(func() { close(d.release) })
	t.Cleanup(release) // before the process waits for its sessions
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	<-d.began
	p.WaitFor(t, r, event.TypeMessageDelta)
	begun := time.Now()
	_, err := run.Cancel(t.Context(), p.Log, r, "test", "stop")
	require.NoError(t, err)
	end := finished(t, p, r)
	require.Less(t, time.Since(begun), 2*time.Second)
	release()
	require.Equal(t, event.RunFinishedV1StatusCanceled, end.Status)
	require.EqualValues(t, 1, end.Usage.ModelCalls, "the call that was given up is booked")
	require.EqualValues(t, 1, counted(t, p, "executor_session_failures_total", "hang"))
	types := runtest.Types(t, pool, r)
	require.Equal(t, []string{"predict.finished", "message.discarded", "step.discarded", "run.finished", "stream.closed"}, types[len(types)-5:])
	lost := decode[event.PredictFinishedV1](t, p.WaitFor(t, r, event.TypePredictFinished))
	require.True(t, lost.MaybeBilled)
}

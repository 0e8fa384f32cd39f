package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// work starts a process with an executor; it ends with the test.
func work(t *testing.T, pool *pgxpool.Pool, m model.Model, change ...func(*executor.Config)) *runtest.Process {
	t.Helper()
	p, stop := begin(t, pool, m, change...)
	t.Cleanup(stop)
	return p
}

// begin starts a process with an executor, and gives the function that drains it.
func begin(t *testing.T, pool *pgxpool.Pool, m model.Model, change ...func(*executor.Config)) (*runtest.Process, func()) {
	t.Helper()
	return beginWith(t, pool, m, executor.Tools{}, change...)
}

// beginWith is begin with tools.
func beginWith(t *testing.T, pool *pgxpool.Pool, m model.Model, tools executor.Tools, change ...func(*executor.Config)) (*runtest.Process, func()) {
	t.Helper()
	p := runtest.NewProcess(t, pool)
	config := executor.DefaultConfig()
	config.Tick = 20 * time.Millisecond
	for _, f := range change {
		f(&config)
	}
	e := executor.New(config, pool, p.Watch, p.Leases, predict.NewCaller(m, p.Metrics), tools, p.Metrics)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	return p, func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-done)
		}
	}
}

func decode[E event.Event](t *testing.T, row db.RunLog) E {
	t.Helper()
	e, err := runlog.Decode(row)
	require.NoError(t, err)
	return e.(E)
}

func finished(t *testing.T, p *runtest.Process, r db.Run) event.RunFinishedV1 {
	t.Helper()
	return decode[event.RunFinishedV1](t, p.WaitFor(t, r, event.TypeRunFinished))
}

func TestAFrameIsAnsweredAndTheRunCompletes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, model.NewScript(model.Say("Hel", "lo", ".")))
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")

	end := finished(t, p, r)
	require.Equal(t, event.RunFinishedV1StatusCompleted, end.Status)
	require.EqualValues(t, 1, end.Usage.ModelCalls)
	require.Equal(t, []string{
		"run.accepted", "frame.appended", "run.started", "run.step_started",
		"message.started", "message.delta", "message.delta", "message.delta", "message.finished",
		"predict.finished", "run.step_finished", "frame.finished", "run.finished", "stream.closed",
	}, runtest.Types(t, pool, r))
	row, err := run.ByKey(t.Context(), pool, r.RunKey)
	require.NoError(t, err)
	require.Equal(t, "completed", row.Status)
	lease, err := db.New(pool).RunLeaseGet(t.Context(), r.RunKey)
	require.NoError(t, err)
	require.True(t, lease.Released)

	said := decode[event.MessageFinishedV1](t, p.WaitFor(t, r, event.TypeMessageFinished))
	require.Equal(t, "Hello.", said.Text)
	receipts, err := db.New(pool).DsPredictReceiptListOfRun(t.Context(), r.RunKey)
	require.NoError(t, err)
	require.Len(t, receipts, 1)
	require.Equal(t, *said.ReceiptID, receipts[0].ReceiptID)
	_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
}

func TestTheSecondRunOfAThreadSeesTheFirst(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	script := model.NewScript(model.Say("Noted."), model.Say("Blue."), model.Say("Nothing."))
	p := work(t, pool, script)
	first := runtest.Envelope()
	r1 := runtest.Start(t, pool, first)
	p.Message(t, r1, "f1", "My colour is blue.")
	finished(t, p, r1)

	second := runtest.Envelope()
	second.ThreadID = first.ThreadID
	r2 := runtest.Start(t, pool, second)
	p.Message(t, r2, "f1", "What is my colour?")
	finished(t, p, r2)
	require.Equal(t, []string{"My colour is blue.", "Noted.", "What is my colour?"}, shown(script.Requests()[1]))

	// Somebody else's thread of the same name is another thread.
	stranger := int64(2)
	third := runtest.Envelope()
	third.ThreadID, third.UserID = first.ThreadID, &stranger
	r3 := runtest.Start(t, pool, third)
	p.Message(t, r3, "f1", "What is my colour?")
	finished(t, p, r3)
	require.Equal(t, []string{"What is my colour?"}, shown(script.Requests()[2]))
}

// shown are the messages of a request after the system's.
func shown(r model.Request) []string {
	var out []string
	for _, m := range r.Messages[1:] {
		out = append(out, m.Content)
	}
	return out
}

func TestFramesAreAnsweredInTheirOrder(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	var turns []model.Turn
	for i := range 5 {
		turns = append(turns, model.Say(fmt.Sprint("answer ", i)))
	}
	script := model.NewScript(turns...)
	quiet := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	for i := range 5 {
		quiet.Message(t, r, fmt.Sprint("f", i), fmt.Sprint("question ", i))
	}
	p := work(t, pool, script)
	finished(t, p, r)
	var want []string
	for i, req := range script.Requests() {
		want = append(want, fmt.Sprint("question ", i))
		require.Equal(t, want, shown(req))
		want = append(want, fmt.Sprint("answer ", i))
	}
	require.Equal(t, 5, script.Calls())
}

func TestAKeptOpenRunWaitsAndGoesOn(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, model.NewScript(model.Say("one"), model.Say("two")))
	e := runtest.Envelope()
	e.KeepOpen = true
	r := runtest.Start(t, pool, e)
	p.Message(t, r, "f1", "first")
	p.WaitFor(t, r, event.TypeRunWaiting)
	lease, err := db.New(pool).RunLeaseGet(t.Context(), r.RunKey)
	require.NoError(t, err)
	require.True(t, lease.Released, "a waiting run holds nothing")
	p.Message(t, r, "f2", "second")
	p.WaitFor(t, r, event.TypeRunWoken)
	_, err = run.Cancel(t.Context(), p.Log, r, "test", "enough")
	require.NoError(t, err)
	require.Equal(t, "cancel_requested", finished(t, p, r).ReasonClass)
}

// A cancel that comes through another process stops a model call at work.
func TestACancelStopsTheModel(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	hung := &hanging{begun: make(chan struct{})}
	p := work(t, pool, hung)
	other := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	<-hung.begun
	got, err := run.Cancel(t.Context(), other.Log, r, "test", "stop")
	require.NoError(t, err)
	require.Equal(t, run.Canceled{Status: "canceling", Requested: true}, got)
	end := finished(t, p, r)
	require.Equal(t, event.RunFinishedV1StatusCanceled, end.Status)
	again, err := run.Cancel(t.Context(), other.Log, r, "test", "stop")
	require.NoError(t, err)
	require.Equal(t, run.Canceled{Status: "canceled", Requested: true, Replay: true}, again)
	require.EqualValues(t, 1, end.Usage.ModelCalls, "the stopped call is booked")
}

// hanging says one thing and then nothing until it is stopped.
type hanging struct{ begun chan struct{} }

func (*hanging) Info() model.Info { return model.Info{Provider: "hanging", Model: "hanging"} }

func (h *hanging) Stream(ctx context.Context, _ model.Request, emit func(model.Event) error) (model.Result, error) {
	if err := emit(model.Event{Kind: model.TextDelta, Delta: "well"}); err != nil {
		return model.Result{}, err
	}
	close(h.begun)
	<-ctx.Done()
	return model.Result{MaybeBilled: true}, model.NewCanceled(ctx.Err())
}

func TestABrokenModelCallIsTakenBackAndTriedAgain(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	broken := model.Say("Hal")
	broken.Err = &model.Error{Class: model.Unavailable, Retryable: true, Message: "cut"}
	p := work(t, pool, model.NewScript(broken, model.Say("Hello.")))
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, r).Status)
	require.Equal(t, []string{
		"run.accepted", "frame.appended", "run.started",
		"run.step_started", "message.started", "message.delta", "predict.finished", "message.discarded", "step.discarded",
		"run.step_started", "message.started", "message.delta", "message.finished", "predict.finished",
		"run.step_finished", "frame.finished", "run.finished", "stream.closed",
	}, runtest.Types(t, pool, r))
	discarded := decode[event.StepDiscardedV1](t, p.WaitFor(t, r, event.TypeStepDiscarded))
	require.EqualValues(t, 4, discarded.FromSeq)
	require.EqualValues(t, 8, discarded.ToSeq)
}

func TestAModelThatFailsEndsTheRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err   error
		class string
	}{
		"refused":         {&model.Error{Class: model.Auth, Message: "the key is wrong"}, "model_failed"},
		"always broken":   {&model.Error{Class: model.Unavailable, Retryable: true, Message: "down"}, "model_failed"},
		"too long":        {&model.Error{Class: model.ContextWindow, Message: "too long"}, "context_window_exceeded"},
		"not a model err": {errors.New("odd"), "model_failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p := work(t, pool, model.NewScript(model.Fail(c.err), model.Fail(c.err), model.Fail(c.err)))
			r := runtest.Run(t, pool)
			p.Message(t, r, "f1", "Hi")
			end := finished(t, p, r)
			require.Equal(t, event.RunFinishedV1StatusFailed, end.Status)
			require.Equal(t, c.class, end.ReasonClass)
		})
	}
}

func TestCapsEndARun(t *testing.T) {
	t.Parallel()
	for class, limits := range map[string]run.Limits{
		"max_steps_exceeded":       {MaxSteps: 1},
		"max_model_calls_exceeded": {MaxModelCalls: 1},
		"max_tokens_exceeded":      {MaxTokens: 1},
	} {
		t.Run(class, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			quiet := runtest.NewProcess(t, pool)
			e := runtest.Envelope()
			e.Limits = &limits
			r := runtest.Start(t, pool, e)
			quiet.Message(t, r, "f1", "one")
			quiet.Message(t, r, "f2", "two")
			one := model.Say("one")
			one.Usage = model.Usage{Told: true, InputTokens: 2, OutputTokens: 1}
			p := work(t, pool, model.NewScript(one, model.Say("two")))
			require.Equal(t, class, finished(t, p, r).ReasonClass)
		})
	}
	t.Run("max_wall_clock_exceeded", func(t *testing.T) {
		t.Parallel()
		pool := dbtest.New(t)
		p := work(t, pool, &hanging{begun: make(chan struct{})})
		e := runtest.Envelope()
		e.Limits = &run.Limits{MaxWallClockMs: 200}
		r := runtest.Start(t, pool, e)
		p.Message(t, r, "f1", "one")
		require.Equal(t, "max_wall_clock_exceeded", finished(t, p, r).ReasonClass)
	})
}

// A process that stops puts its pen down, and another goes on at once.
func TestADrainedRunGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	hung := &hanging{begun: make(chan struct{})}
	p, stop := begin(t, pool, hung)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	<-hung.begun
	stop()
	next := work(t, pool, model.NewScript(model.Say("Hello.")))
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, next, r).Status)
	types := strings.Join(runtest.Types(t, pool, r), " ")
	require.Contains(t, types, "message.discarded step.discarded run.step_started")
	require.NotContains(t, types, "executor_lost")
}

// thorough has said everything when its process is told to stop.
type thorough struct{ hanging }

func (h *thorough) Stream(ctx context.Context, req model.Request, emit func(model.Event) error) (model.Result, error) {
	_, err := h.hanging.Stream(ctx, req, emit)
	var canceled *model.Error
	if !errors.As(err, &canceled) || ctx.Err() == nil {
		return model.Result{}, err
	}
	return model.Result{Text: "well", FinishReason: model.FinishStop, Usage: model.Usage{Told: true, InputTokens: 1, OutputTokens: 1, TotalTokens: 2}, Attempts: 1}, nil
}

// An answer that is whole when the process stops is kept: the next executor
// would ask, and pay, for it again.
func TestADrainKeepsAnAnswerThatIsWhole(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	m := &thorough{hanging{begun: make(chan struct{})}}
	p, stop := begin(t, pool, m)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	<-m.begun
	p.WaitFor(t, r, event.TypeMessageDelta)
	stop()
	types := runtest.Types(t, pool, r)
	require.Equal(t, []string{
		"run.accepted", "frame.appended", "run.started", "run.step_started", "message.started", "message.delta",
		"message.finished", "predict.finished", "run.step_finished", "frame.finished", "run.finished", "stream.closed",
	}, types)
	require.False(t, decode[event.PredictFinishedV1](t, p.WaitFor(t, r, event.TypePredictFinished)).MaybeBilled)
}

// The executor of a run is gone in the middle of a step. Another takes the run
// over, says so, takes the half step back, and books the lost call.
func TestALostExecutorsStepIsTakenBack(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	hung := &hanging{begun: make(chan struct{})}
	p := work(t, pool, hung)
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	<-hung.begun
	p.WaitFor(t, r, event.TypeMessageDelta)
	runtest.Expire(t, pool, r)
	next := work(t, pool, model.NewScript(model.Say("Hello.")))
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, next, r).Status)
	require.Equal(t, []string{
		"run.accepted", "frame.appended", "run.started", "run.step_started", "message.started", "message.delta",
		"run.executor_lost", "run.recovered", "predict.finished", "message.discarded", "step.discarded",
		"run.step_started", "message.started", "message.delta", "message.finished", "predict.finished",
		"run.step_finished", "frame.finished", "run.finished", "stream.closed",
	}, runtest.Types(t, pool, r))
	lost := decode[event.PredictFinishedV1](t, p.WaitFor(t, r, event.TypePredictFinished))
	require.True(t, lost.MaybeBilled)
	require.Equal(t, "executor_lost", *lost.ErrorClass)
	_, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
}

// A run that breaks every executor ends, and harms no other.
func TestAPanicIsContainedAndCounted(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, panicking{})
	bad, good := runtest.Run(t, pool), runtest.Run(t, pool)
	p.Message(t, bad, "f1", "panic")
	p.Message(t, good, "f1", "Hi")
	require.Equal(t, event.RunFinishedV1StatusCompleted, finished(t, p, good).Status)
	require.Equal(t, "executor_recovery_exhausted", finished(t, p, bad).ReasonClass)
}

type panicking struct{}

func (panicking) Info() model.Info { return model.Info{Provider: "panicking", Model: "panicking"} }

func (panicking) Stream(_ context.Context, r model.Request, emit func(model.Event) error) (model.Result, error) {
	if r.Messages[len(r.Messages)-1].Content == "panic" {
		panic("as asked")
	}
	return model.Result{Text: "fine", FinishReason: model.FinishStop}, emit(model.Event{Kind: model.TextDelta, Delta: "fine"})
}

// The trace of the request that brought a frame is on what came of it.
func TestAFramesTraceIsRestored(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, model.NewScript(model.Say("Hello.")))
	r := runtest.Run(t, pool)
	trace := telemetry.NewTrace("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b", "req-7")
	_, err := run.AppendFrame(telemetry.WithTrace(t.Context(), trace), pool, p.Log, r, runtest.UserMessage("f1", "Hi"))
	require.NoError(t, err)
	finished(t, p, r)
	rows, err := runlog.OfTypes(t.Context(), pool, []uuid.UUID{r.RunKey}, event.TypeMessageDelta, event.TypeRunFinished)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	for _, row := range rows {
		require.Equal(t, trace.Parent, *row.Traceparent)
		require.Equal(t, "a=b", *row.Tracestate)
		require.Equal(t, "req-7", *row.RequestID)
	}
	receipts, err := db.New(pool).DsPredictReceiptListOfRun(t.Context(), r.RunKey)
	require.NoError(t, err)
	var receipt map[string]any
	require.NoError(t, json.Unmarshal(receipts[0].Receipt, &receipt))
	require.Equal(t, trace.Parent, receipt["traceparent"])
}

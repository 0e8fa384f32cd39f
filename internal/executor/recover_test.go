package executor_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// A run whose executors are lost without progress is failed after so many
// losses or after so long; whatever stopped the first, it is taken up once.
func TestTheRecoveryBudgetIsInAttemptsAndInTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		losses    int
		lostFor   time.Duration
		exhausted bool
	}{
		"lost once":               {1, time.Minute, false},
		"lost once, for long":     {1, 3 * time.Hour, false},
		"lost twice":              {2, time.Minute, false},
		"lost twice, over long":   {2, 3 * time.Hour, true},
		"lost too often, at once": {3, time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			quiet := runtest.NewProcess(t, pool)
			r := runtest.Run(t, pool)
			quiet.Message(t, r, "f1", "Hi")
			fails := fmt.Errorf("as asked")
			for range c.losses {
				require.ErrorIs(t, quiet.Leases.With(t.Context(), r, func(context.Context, *lease.Held) error { return fails }), fails)
			}
			_, err := pool.Exec(t.Context(), `UPDATE run_leases SET lost_since = clock_timestamp() - $1::interval,
				lease_expires_at = CASE WHEN lost_count = 0 THEN clock_timestamp() - $1::interval ELSE lease_expires_at END`, c.lostFor)
			require.NoError(t, err)

			p := work(t, pool, model.NewScript(model.Say("Hello.")), func(c *executor.Config) {
				c.MaxLosses, c.MaxLostFor = 2, 2*time.Hour
			})
			end := finished(t, p, r)
			lost := decode[event.RunExecutorLostV1](t, p.WaitFor(t, r, event.TypeRunExecutorLost))
			require.EqualValues(t, c.losses, lost.Attempt)
			require.EqualValues(t, c.losses, lost.LostEpoch)
			require.Nil(t, lost.LastProgressSeq)
			require.WithinDuration(t, time.Now().Add(-c.lostFor), *lost.LostSince, time.Minute)
			require.Equal(t, time.UTC, lost.LostSince.Location())
			if c.exhausted {
				require.Equal(t, event.RunFinishedV1StatusFailed, end.Status)
				require.Equal(t, "executor_recovery_exhausted", end.ReasonClass)
				require.NotContains(t, runtest.Types(t, pool, r), event.TypeRunRecovered)
			} else {
				require.Equal(t, event.RunFinishedV1StatusCompleted, end.Status)
			}
			_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
			require.NoError(t, err)
		})
	}
}

// A loss after progress starts a new budget, and says where the progress was.
func TestProgressRenewsTheRecoveryBudget(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	hung := &hanging{begun: make(chan struct{})}
	p, stop := begin(t, pool, model.NewScript(model.Say("one")))
	e := runtest.Envelope()
	e.KeepOpen = true
	r := runtest.Start(t, pool, e)
	p.Message(t, r, "f1", "first")
	waitAnswered(t, p, r, 1)
	stop()
	_ = work(t, pool, hung)
	p.Message(t, r, "f2", "second")
	<-hung.begun
	runtest.Expire(t, pool, r)
	next := work(t, pool, model.NewScript(model.Say("two")), func(c *executor.Config) { c.MaxLosses = 1 })
	waitAnswered(t, next, r, 2)
	lost := decode[event.RunExecutorLostV1](t, p.WaitFor(t, r, event.TypeRunExecutorLost))
	require.EqualValues(t, 1, lost.Attempt)
	progress := p.WaitFor(t, r, event.TypeMessageFinished)
	require.Equal(t, progress.Seq, *lost.LastProgressSeq)
}

// A run that waits holds nothing that could be lost, however long it waits.
func TestAWaitingRunIsNotLost(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, model.NewScript(model.Say("one"), model.Say("two")), func(c *executor.Config) { c.MaxLosses = 0 })
	r := talk(t, p, 1)
	for _, table := range []string{
		"UPDATE run_leases SET lease_expires_at = lease_expires_at - interval '1 year', heartbeat_at = heartbeat_at - interval '1 year'",
		"UPDATE runs SET updated_at = updated_at - interval '1 year'",
	} {
		_, err := pool.Exec(t.Context(), table)
		require.NoError(t, err)
	}
	keys, err := run.Runnable(t.Context(), pool, 10, math.MaxInt64)
	require.NoError(t, err)
	require.Empty(t, keys, "no executor looks at it")
	p.Message(t, r, "f2", "second")
	waitAnswered(t, p, r, 2)
	require.NotContains(t, runtest.Types(t, pool, r), event.TypeRunExecutorLost)
}

// An executor that no notification reaches finds frames and cancels by its tick.
func TestNothingStaysUndoneBecauseNotificationsAreLost(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	deaf, writer := runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)
	config := executor.DefaultConfig()
	config.Tick = 20 * time.Millisecond
	hung := &hanging{begun: make(chan struct{})}
	script := model.NewScript(model.Say("one"), model.Say("two"), model.Say("three"))
	// Nothing rings the watch of these executors.
	e := executor.New(config, pool, runlog.NewWatch(), deaf.Leases, predict.NewCaller(script, deaf.Metrics), executor.Tools{}, deaf.Metrics)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	envelope := runtest.Envelope()
	envelope.KeepOpen = true
	r := runtest.Start(t, pool, envelope)
	writer.Message(t, r, "f1", "first")
	writer.WaitFor(t, r, event.TypeFrameFinished)
	writer.Message(t, r, "f2", "second")
	writer.Message(t, r, "f3", "third")
	require.Eventually(t, func() bool {
		h, err := runlog.GetHead(t.Context(), pool, r.RunKey)
		return err == nil && h.FramePosition == 3 && h.Status == "waiting"
	}, 20*time.Second, 10*time.Millisecond)
	stop()
	require.NoError(t, <-done)

	other := runtest.NewProcess(t, pool)
	e = executor.New(config, pool, runlog.NewWatch(), other.Leases, predict.NewCaller(hung, other.Metrics), executor.Tools{}, other.Metrics)
	ctx, stop = context.WithCancel(t.Context())
	go func() { done <- e.Run(ctx) }()
	writer.Message(t, r, "f4", "fourth")
	<-hung.begun
	_, err := run.Cancel(t.Context(), writer.Log, r, "test", "enough")
	require.NoError(t, err)
	require.Equal(t, "cancel_requested", finished(t, writer, r).ReasonClass)
	stop()
	require.NoError(t, <-done)
}

// A model that says nothing is told of a cancel as well.
func TestACancelStopsAModelThatIsSilent(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := work(t, pool, &hanging{begun: make(chan struct{})})
	r := runtest.Run(t, pool)
	p.Message(t, r, "f1", "Hi")
	p.WaitFor(t, r, event.TypeMessageDelta) // the last that it says
	_, err := run.Cancel(t.Context(), runtest.NewProcess(t, pool).Log, r, "test", "stop")
	require.NoError(t, err)
	require.Equal(t, "cancel_requested", finished(t, p, r).ReasonClass)
}

// gatekept is a model that says when it begins on a text, and answers when it may.
type gatekept struct{ begun, answer chan string }

func (*gatekept) Info() model.Info { return model.Info{Provider: "gatekept", Model: "gatekept"} }

func (g *gatekept) Stream(ctx context.Context, req model.Request, emit func(model.Event) error) (model.Result, error) {
	g.begun <- req.Messages[len(req.Messages)-1].Content
	select {
	case said := <-g.answer:
		return model.Result{Text: said, FinishReason: model.FinishStop}, emit(model.Event{Kind: model.TextDelta, Delta: said})
	case <-ctx.Done():
		return model.Result{}, model.NewCanceled(ctx.Err())
	}
}

// Runs that lost executor after executor are driven one at a time, so that one
// which kills its executors does not take the others' budgets with it; runs that
// did not go on beside it.
func TestSuspectsAreDrivenOneAtATime(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	quiet := runtest.NewProcess(t, pool)
	fails := fmt.Errorf("as asked")
	for i := range 3 {
		r := runtest.Run(t, pool)
		quiet.Message(t, r, "f1", fmt.Sprintf("suspect %d", i))
		for range 2 {
			require.ErrorIs(t, quiet.Leases.With(t.Context(), r, func(context.Context, *lease.Held) error { return fails }), fails)
		}
	}
	g := &gatekept{begun: make(chan string), answer: make(chan string)}
	_ = work(t, pool, g)
	require.Equal(t, "suspect 0", <-g.begun)
	for i := range 2 {
		quiet.Message(t, runtest.Run(t, pool), "f1", fmt.Sprintf("other %d", i))
		require.Equal(t, fmt.Sprintf("other %d", i), <-g.begun, "the executor has looked again, and took no suspect")
	}
	for _, next := range []string{"suspect 1", "suspect 2"} {
		// Whichever of those at work takes the answer: the suspect is among three.
		for began := ""; began != next; {
			select {
			case g.answer <- "Done.":
			case began = <-g.begun:
				require.Equal(t, next, began)
			}
		}
	}
}

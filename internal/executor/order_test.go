package executor_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// leisurely answers each frame in two deltas, a moment apart.
type leisurely struct{}

func (leisurely) Info() model.Info { return model.Info{Provider: "leisurely", Model: "leisurely"} }

func (leisurely) Stream(ctx context.Context, _ model.Request, emit func(model.Event) error) (model.Result, error) {
	for _, word := range []string{"so ", "be it"} {
		if err := emit(model.Event{Kind: model.TextDelta, Delta: word}); err != nil {
			return model.Result{}, err
		}
		select {
		case <-ctx.Done():
			return model.Result{MaybeBilled: true}, model.NewCanceled(ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return model.Result{Text: "so be it", FinishReason: model.FinishStop}, nil
}

// However frames, repeats and cancels come, and however often the run's
// executors lose their lease to each other, the run ends once: every accepted
// frame was answered, in order and once, or the run was canceled; a frame that
// was refused is not there.
func TestAnyOrderOfFramesCancelsAndLossesEndsOnce(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	patient := func(c *executor.Config) {
		c.Tick, c.MaxLosses, c.CheckpointSteps = 5*time.Millisecond, 1_000_000, 1
	}
	a, b := work(t, pool, leisurely{}, patient), work(t, pool, leisurely{}, patient)
	ends, losses := map[string]int{}, 0
	rapid.Check(t, func(rt *rapid.T) {
		e := runtest.Envelope()
		e.KeepOpen = rapid.Bool().Draw(rt, "keep open")
		r := runtest.Start(t, pool, e)
		s := story{rt: rt, r: r, accepted: map[string]bool{}, refused: map[string]bool{}}
		s.frame(a)
		for range rapid.IntRange(0, 10).Draw(rt, "happenings") {
			p := a
			if rapid.Bool().Draw(rt, "through b") {
				p = b
			}
			switch rapid.SampledFrom([]string{"frame", "frame", "frame", "repeat", "loss", "loss", "answer", "cancel"}).Draw(rt, "happening") {
			case "frame":
				s.frame(p)
			case "repeat":
				s.repeat(p)
			case "loss":
				runtest.Expire(t, pool, r)
			case "answer":
				s.waitAnswer(p)
			case "cancel":
				s.cancel(p)
			}
		}
		if e.KeepOpen {
			s.cancel(a)
		}
		a.WaitFor(t, r, event.TypeStreamClosed)
		ends[s.check(t, pool)]++
		losses += s.losses
	})
	t.Logf("%v, %d losses", ends, losses)
	require.Positive(t, losses)
	require.Len(t, ends, 2, "runs completed and runs were canceled")
}

// story is what was done to one run, and answered.
type story struct {
	rt                *rapid.T
	r                 db.Run
	frames            int
	accepted, refused map[string]bool
	canceled          bool
	losses            int // that the log tells of
}

func (s *story) send(p *runtest.Process, id string) (replay bool) {
	got, err := run.AppendFrame(context.Background(), p.Pool, p.Log, s.r, runtest.UserMessage(id, "text of "+id))
	if fault.Is(err, api.RunFinished) {
		s.refused[id] = true
		return false
	}
	require.NoError(s.rt, err)
	s.accepted[id] = true
	return got.Replay
}

func (s *story) frame(p *runtest.Process) {
	s.frames++
	require.False(s.rt, s.send(p, fmt.Sprint("f", s.frames)))
}

func (s *story) repeat(p *runtest.Process) {
	id := fmt.Sprint("f", rapid.IntRange(1, s.frames).Draw(s.rt, "frame"))
	was := s.accepted[id]
	require.Equal(s.rt, was, s.send(p, id))
}

func (s *story) cancel(p *runtest.Process) {
	c, err := run.Cancel(context.Background(), p.Log, s.r, "test", "")
	require.NoError(s.rt, err)
	s.canceled = s.canceled || c.Requested
}

// waitAnswer waits until a frame more is answered, or the run's end.
func (s *story) waitAnswer(p *runtest.Process) {
	first, err := runlog.GetHead(context.Background(), p.Pool, s.r.RunKey)
	require.NoError(s.rt, err)
	late := time.After(20 * time.Second)
	for h := first; h.FramePosition == first.FramePosition && h.FrameCount > h.FramePosition && !runlog.Terminal(h.Status); {
		select {
		case <-late:
			s.rt.Fatalf("nothing was answered: %+v", h)
		case <-time.After(time.Millisecond):
		}
		h, err = runlog.GetHead(context.Background(), p.Pool, s.r.RunKey)
		require.NoError(s.rt, err)
	}
}

// check reads the whole log and returns the run's status.
func (s *story) check(t *testing.T, pool *pgxpool.Pool) string {
	appended, finished := []string{}, []string{}
	var calls, openStep, closed int64
	var end *event.RunFinishedV1
	asked := false // to cancel
	require.NoError(s.rt, runlog.Each(t.Context(), pool, s.r.RunKey, 0, func(row db.RunLog) error {
		happened, err := runlog.Decode(row)
		if err != nil {
			return err
		}
		require.Zero(s.rt, closed, "something follows stream.closed")
		switch e := happened.(type) {
		case event.FrameAppendedV1:
			appended = append(appended, e.FrameID)
			require.EqualValues(s.rt, len(appended), e.FrameSeq)
		case event.RunExecutorLostV1:
			s.losses++
		case event.FrameFinishedV1:
			finished = append(finished, e.FrameID)
		case event.RunStepStartedV1:
			require.Zero(s.rt, openStep, "a step begins before another has ended")
			openStep = e.Step
		case event.RunStepFinishedV1:
			require.Equal(s.rt, openStep, e.Step)
			openStep = 0
		case event.StepDiscardedV1:
			require.Equal(s.rt, openStep, e.Step)
			openStep = 0
		case event.RunCancelRequestedV1:
			asked = true
		case event.MessageDeltaV1:
			require.False(s.rt, asked, "what the model says after a cancel is recorded")
		case event.PredictFinishedV1:
			calls += e.Usage.ModelCalls
		case event.RunFinishedV1:
			require.Nil(s.rt, end)
			end = &e
		case event.StreamClosedV1:
			closed++
		}
		return nil
	}))
	require.NotNil(s.rt, end)
	require.Zero(s.rt, openStep)
	require.Equal(s.rt, calls, end.Usage.ModelCalls)
	require.Len(s.rt, appended, len(s.accepted))
	for _, id := range appended {
		require.True(s.rt, s.accepted[id])
	}
	require.Equal(s.rt, appended[:len(finished)], finished, "frames are answered in their order")
	if s.canceled {
		require.Equal(s.rt, event.RunFinishedV1StatusCanceled, end.Status)
	} else {
		require.Equal(s.rt, event.RunFinishedV1StatusCompleted, end.Status)
		require.Equal(s.rt, appended, finished, "an accepted frame was not answered")
	}
	_, err := runlog.Verify(t.Context(), pool, s.r.RunKey, s.r.RunID)
	require.NoError(s.rt, err)
	var saved []db.Checkpoint
	rows, err := pool.Query(t.Context(), "SELECT state, seq FROM checkpoints WHERE run_key = $1", s.r.RunKey)
	require.NoError(s.rt, err)
	defer rows.Close()
	for rows.Next() {
		var c db.Checkpoint
		require.NoError(s.rt, rows.Scan(&c.State, &c.Seq))
		saved = append(saved, c)
	}
	require.NoError(s.rt, rows.Err())
	for _, c := range saved {
		said, err := executor.FoldLog(t.Context(), pool, s.r.RunKey, c.Seq)
		require.NoError(s.rt, err)
		kept, err := executor.Load(c, c.Seq)
		require.NoError(s.rt, err)
		require.Equal(s.rt, said, kept)
	}
	return string(end.Status)
}

package executor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// steps draws a log of steps as executors write them: finished, discarded, or
// left open, with texts and reasonings in any state.
func steps(rt *rapid.T) []event.Event {
	var events []event.Event
	step, attempt := int64(1), int64(1)
	for i := range rapid.IntRange(0, 8).Draw(rt, "steps") {
		if i == 0 {
			events = append(events, event.RunStartedV1{MessageID: "m"})
		}
		events = append(events, event.RunStepStartedV1{Step: step, FrameID: fmt.Sprint("f", step), Attempt: attempt})
		for j := range rapid.IntRange(0, 3).Draw(rt, "parts") {
			id := fmt.Sprintf("p%d-%d-%d", step, attempt, j)
			events = append(events, rapid.SampledFrom([][]event.Event{
				{event.MessageStartedV1{PartID: id}, event.MessageDeltaV1{PartID: id, Delta: "x"}, event.MessageFinishedV1{PartID: id, Text: "x"}},
				{event.MessageStartedV1{PartID: id}, event.MessageDiscardedV1{PartID: id}},
				{event.MessageStartedV1{PartID: id}},
				{event.ReasoningStartedV1{PartID: id}, event.ReasoningFinishedV1{PartID: id}},
				{event.ReasoningStartedV1{PartID: id}},
				{event.FrameAppendedV1{FrameID: id, FrameSeq: 1, FrameType: "tick", Payload: map[string]any{}}},
			}).Draw(rt, "part")...)
		}
		booked := event.PredictFinishedV1{Usage: ds.UsageV1{
			InputTokens: rapid.Int64Range(0, 9).Draw(rt, "input"), TotalTokens: 9, ModelCalls: 1,
		}}
		switch rapid.SampledFrom([]string{"finished", "finished", "discarded", "left open"}).Draw(rt, "end") {
		case "finished":
			events = append(events, booked, event.RunStepFinishedV1{Step: step}, event.FrameFinishedV1{FrameID: "f"})
			step, attempt = step+1, 1
		case "discarded":
			events = append(events, booked, event.StepDiscardedV1{Step: step})
			attempt++
		case "left open":
			return events
		}
	}
	return events
}

// Wherever a checkpoint was taken, it and the tail say what the whole log says.
func TestACheckpointAndTheTailAreTheWholeLog(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		events := steps(rt)
		whole := executor.Fold(executor.Past{}, 0, events)
		cut := rapid.IntRange(0, len(events)).Draw(rt, "cut")
		saved, err := executor.Save(executor.Fold(executor.Past{}, 0, events[:cut]))
		require.NoError(rt, err)
		loaded, err := executor.Load(db.Checkpoint{Seq: int64(max(cut, 1)), State: saved}, int64(len(events)+1))
		require.NoError(rt, err)
		require.Equal(rt, whole, executor.Fold(loaded, int64(cut), events[cut:]))
	})
}

// talk makes a kept-open run of so many answered frames, which waits.
func talk(t *testing.T, p *runtest.Process, frames int) db.Run {
	t.Helper()
	e := runtest.Envelope()
	e.KeepOpen = true
	r := runtest.Start(t, p.Pool, e)
	for i := range frames {
		p.Message(t, r, fmt.Sprint("f", i+1), fmt.Sprint("question ", i+1))
		waitAnswered(t, p, r, int64(i+1))
	}
	return r
}

// waitAnswered waits until so many of the run's frames are answered, and the
// run waits for the next.
func waitAnswered(t *testing.T, p *runtest.Process, r db.Run, frames int64) {
	t.Helper()
	bell := p.Watch.Run(r.RunKey)
	defer bell.Close()
	late := time.After(20 * time.Second)
	for {
		h, err := runlog.GetHead(t.Context(), p.Pool, r.RunKey)
		require.NoError(t, err)
		if h.FramePosition == frames && h.Status == "waiting" {
			return
		}
		require.False(t, runlog.Terminal(h.Status), "the run has ended")
		select {
		case <-bell.C:
		case <-late:
			t.Fatalf("%d of %d frames are answered; the log is %v", h.FramePosition, frames, runtest.Types(t, p.Pool, r))
		}
	}
}

func everyStep(c *executor.Config) { c.CheckpointSteps = 1 }

func getCheckpoint(t *testing.T, pool *pgxpool.Pool, r db.Run) db.Checkpoint {
	t.Helper()
	c, err := db.New(pool).CheckpointGet(t.Context(), r.RunKey)
	require.NoError(t, err)
	return c
}

func TestTheEndOfAStepSavesWhatTheLogSays(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	broken := model.Say("Hal")
	broken.Err = &model.Error{Class: model.Unavailable, Retryable: true, Message: "cut"}
	p := work(t, pool, model.NewScript(model.Say("one"), broken, model.Say("two"), model.Say("three")), everyStep)
	r := talk(t, p, 3)
	c := getCheckpoint(t, pool, r)
	require.EqualValues(t, executor.StateVersion, c.StateVersion)
	said, err := executor.FoldLog(t.Context(), pool, r.RunKey, c.Seq)
	require.NoError(t, err)
	kept, err := executor.Load(c, c.Seq)
	require.NoError(t, err)
	require.Equal(t, said, kept)
	var at string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT event_type FROM run_log WHERE run_key = $1 AND seq = $2", r.RunKey, c.Seq).Scan(&at))
	require.Equal(t, event.TypeFrameFinished, at, "the step's end is in it")
	lease, err := db.New(pool).RunLeaseGet(t.Context(), r.RunKey)
	require.NoError(t, err)
	require.Equal(t, lease.LeaseEpoch, c.LeaseEpoch)
}

func TestCheckpointsAreSavedEveryFewSteps(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*executor.Config)
		saved  []bool // after each step
	}{
		"by steps":  {func(c *executor.Config) { c.CheckpointSteps, c.CheckpointEvents = 3, 1_000_000 }, []bool{false, false, true, true}},
		"by events": {func(c *executor.Config) { c.CheckpointSteps, c.CheckpointEvents = 1_000, 15 }, []bool{false, true, true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			var turns []model.Turn
			for range c.saved {
				turns = append(turns, model.Say("well"))
			}
			p := work(t, pool, model.NewScript(turns...), c.change)
			r := talk(t, p, 0)
			for i, want := range c.saved {
				p.Message(t, r, fmt.Sprint("f", i+1), "question")
				waitAnswered(t, p, r, int64(i+1))
				var n int
				require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM checkpoints WHERE run_key = $1", r.RunKey).Scan(&n))
				require.Equal(t, want, n == 1, "after step %d", i+1)
			}
		})
	}
}

// A checkpoint that this program cannot use is as good as none, and is counted.
func TestACheckpointThatCannotBeUsedIsIgnored(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ spoil, outcome string }{
		"good":            {"UPDATE checkpoints SET inserted_at = inserted_at", "used"},
		"none":            {"DELETE FROM checkpoints", "none"},
		"unknown version": {"UPDATE checkpoints SET state_version = 999", "unknown_version"},
		"no state":        {`UPDATE checkpoints SET state = '"x"'`, "corrupt"},
		"strange members": {`UPDATE checkpoints SET state = '{"started":true,"steps":2,"usage":{},"more":1}'`, "corrupt"},
		"impossible":      {`UPDATE checkpoints SET state = '{"started":false,"steps":2}'`, "corrupt"},
		"beyond the log":  {"UPDATE checkpoints SET seq = 1000", "corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p, stop := begin(t, pool, model.NewScript(model.Say("one"), model.Say("two")), everyStep)
			r := talk(t, p, 2)
			stop()
			_, err := pool.Exec(t.Context(), c.spoil)
			require.NoError(t, err)
			h, err := runlog.GetHead(t.Context(), pool, r.RunKey)
			require.NoError(t, err)

			m := telemetry.NewMetrics()
			e := executor.New(executor.DefaultConfig(), pool, p.Watch, p.Leases, nil, executor.Tools{}, m)
			past, at, err := e.ReadPast(t.Context(), r.RunKey, h.Seq)
			require.NoError(t, err)
			whole, err := executor.FoldLog(t.Context(), pool, r.RunKey, h.Seq)
			require.NoError(t, err)
			require.Equal(t, whole, past)
			require.Equal(t, c.outcome == "used", at > 0)
			require.NoError(t, testutil.GatherAndCompare(m.Registry, strings.NewReader(fmt.Sprintf(`
				# HELP openagents_runtime_executor_checkpoint_reads_total %s
				# TYPE openagents_runtime_executor_checkpoint_reads_total counter
				openagents_runtime_executor_checkpoint_reads_total{outcome=%q} 1
			`, telemetry.CheckpointReads.Help, c.outcome)), "openagents_runtime_executor_checkpoint_reads_total"))

			// The run goes on from there, and saves a checkpoint that is good again.
			next := work(t, pool, model.NewScript(model.Say("three")), everyStep)
			next.Message(t, r, "f3", "question 3")
			waitAnswered(t, next, r, 3)
			saved := getCheckpoint(t, pool, r)
			said, err := executor.FoldLog(t.Context(), pool, r.RunKey, saved.Seq)
			require.NoError(t, err)
			kept, err := executor.Load(saved, saved.Seq)
			require.NoError(t, err)
			require.Equal(t, said, kept)
		})
	}
}

// A checkpoint of an earlier epoch never takes the place of a later one.
func TestAnOldCheckpointDoesNotReplaceANewerOne(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := runtest.Run(t, pool)
	q := db.New(pool)
	put := func(epoch, seq int64) {
		require.NoError(t, q.CheckpointPut(t.Context(), db.CheckpointPutParams{
			RunKey: r.RunKey, StateVersion: 1, Seq: seq, State: []byte(`{}`), LeaseEpoch: epoch,
		}))
	}
	put(2, 20)
	put(1, 10)
	require.EqualValues(t, 20, getCheckpoint(t, pool, r).Seq)
	put(2, 30)
	put(3, 40)
	require.EqualValues(t, 40, getCheckpoint(t, pool, r).Seq)
}

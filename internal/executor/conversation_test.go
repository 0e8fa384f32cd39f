package executor_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// answered is the events of a step that answers a frame with some texts, each
// in deltas; without any text the step is taken back.
func answered(step int64, frameID string, texts ...string) []event.Event {
	events := []event.Event{event.RunStepStartedV1{Step: step, FrameID: frameID, Attempt: 1}}
	for i, text := range texts {
		id := fmt.Sprintf("text-%d-%d", step, i)
		events = append(events, event.MessageStartedV1{PartID: id})
		for word := range strings.SplitSeq(text, " ") {
			events = append(events, event.MessageDeltaV1{PartID: id, Delta: word})
		}
		events = append(events, event.MessageFinishedV1{PartID: id, Text: text})
	}
	if len(texts) == 0 {
		return append(events, event.StepDiscardedV1{Step: step, FromSeq: 1, ToSeq: 1, Reason: "model_failed"})
	}
	return append(events, event.RunStepFinishedV1{Step: step, FinishReason: "stop"})
}

// However frames were answered, not answered, or accepted ahead of answers, and
// in however many runs of the thread, reading backwards shows what reading the
// whole thread would show the end of.
func TestTheWindowIsTheEndOfTheWholeConversation(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	rapid.Check(t, func(rt *rapid.T) {
		thread := runtest.Envelope().ThreadID
		var whole []string
		var last db.Run
		var frame string
		for i := range rapid.IntRange(1, 6).Draw(rt, "runs") {
			e := runtest.Envelope()
			e.ThreadID = thread
			last = runtest.Start(t, pool, e)
			frames := rapid.IntRange(1, 12).Draw(rt, "frames")
			ahead := rapid.IntRange(0, frames-1).Draw(rt, "ahead") // accepted before anything is answered
			step := int64(0)
			for f := range frames + ahead {
				if f < frames {
					frame = fmt.Sprintf("run %d frame %d", i, f)
					p.Message(t, last, frame, frame)
				}
				if f < ahead {
					continue
				}
				// The frame that has its turn; the newest is not answered yet.
				of := fmt.Sprintf("run %d frame %d", i, f-ahead)
				whole = append(whole, of)
				if f-ahead == frames-1 {
					break
				}
				for range rapid.IntRange(0, 2).Draw(rt, "steps") {
					step++
					var texts []string
					for j := range rapid.IntRange(0, 2).Draw(rt, "texts") {
						texts = append(texts, fmt.Sprintf("answer %d.%d to %s", step, j, of))
					}
					p.Append(t, last, answered(step, of, texts...)...)
					whole = append(whole, texts...)
				}
			}
		}
		config := executor.DefaultConfig()
		config.Window = rapid.SampledFrom([]int{1, 100, 300, 1000, 1 << 20}).Draw(rt, "window")
		e := executor.New(config, pool, p.Watch, p.Leases, predict.NewCaller(model.NewScript(), runtest.NewProcess(t, pool).Metrics), executor.Tools{}, runtest.NewProcess(t, pool).Metrics)
		row, err := db.New(pool).FrameGet(t.Context(), db.FrameGetParams{RunKey: last.RunKey, FrameID: frame})
		require.NoError(rt, err)
		messages, err := e.Conversation(t.Context(), last, row)
		require.NoError(rt, err)
		var got []string
		for _, m := range messages {
			got = append(got, m.Content)
		}
		left, kept := config.Window, 0
		for _, text := range slices.Backward(whole) {
			if left -= len(text); kept > 0 && left < 0 {
				break
			}
			kept++
		}
		require.Equal(rt, whole[len(whole)-kept:], got)
	})
}

// meter counts what a process reads from the database.
type meter struct{ bytes atomic.Int64 }

type meteredConn struct {
	net.Conn
	m *meter
}

func (c meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.m.bytes.Add(int64(n))
	return n, err
}

const measured = "measured"

// cost is what one turn reads: bytes that the process is sent, and rows that
// the server visits for them.
type cost struct{ bytes, rows int64 }

// measure answers one frame in a process of its own.
func measure(t *testing.T, pool *pgxpool.Pool, r db.Run, frameID string, turn func(p *runtest.Process)) cost {
	t.Helper()
	before := visited(t, pool)
	m := &meter{}
	c := pool.Config()
	c.ConnConfig.RuntimeParams["application_name"] = measured
	dial := c.ConnConfig.DialFunc
	c.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return meteredConn{conn, m}, err
	}
	own, err := pgxpool.NewWithConfig(t.Context(), c)
	require.NoError(t, err)
	t.Run(frameID, func(t *testing.T) {
		p := work(t, own, model.NewScript(model.Say("well")), func(c *executor.Config) {
			c.Tick, c.Window, c.Limits = time.Hour, 4<<10, run.Limits{}
		})
		p.Message(t, r, frameID, "and now?")
		turn(p)
	})
	own.Close()
	return cost{m.bytes.Load(), visited(t, pool) - before}
}

// visited counts the rows of all tables that were read so far, once the
// measured sessions have told of theirs.
func visited(t *testing.T, pool *pgxpool.Pool) int64 {
	t.Helper()
	require.Eventually(t, func() bool {
		var n int
		err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()", measured).Scan(&n)
		return err == nil && n == 0
	}, 20*time.Second, 10*time.Millisecond)
	for _, c := range pool.AcquireAllIdle(t.Context()) {
		_, err := c.Exec(t.Context(), "SELECT pg_stat_force_next_flush()")
		c.Release()
		require.NoError(t, err)
	}
	var rows int64
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables").Scan(&rows))
	return rows
}

// requireFlat wants a turn late in a long life to read as much as an early one.
func requireFlat(t *testing.T, early, late cost) {
	t.Helper()
	t.Logf("turn 10 reads %d bytes, %d rows; turn 1,000 reads %d bytes, %d rows", early.bytes, early.rows, late.bytes, late.rows)
	require.Positive(t, early.rows)
	require.Less(t, float64(late.bytes), 1.5*float64(early.bytes))
	require.Less(t, float64(late.rows), 1.5*float64(early.rows))
}

const long = 1000

var paragraph = strings.TrimSpace(strings.Repeat("word ", 120))

func TestATurnOfALongRunReadsAsMuchAsOneOfAShortRun(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	cost := func(turns int) cost {
		p := runtest.NewProcess(t, pool)
		e := runtest.Envelope()
		e.KeepOpen = true
		r := runtest.Start(t, pool, e)
		p.Append(t, r, event.RunStartedV1{MessageID: "m"})
		for i := range turns {
			frameID := fmt.Sprint("f", i+1)
			p.Message(t, r, frameID, "what next?")
			_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: func(runlog.Head) (runlog.Change, error) {
				return runlog.Change{Events: answered(int64(i+1), frameID, paragraph), FramePosition: 1}, nil
			}})
			require.NoError(t, err)
		}
		_, err := pool.Exec(t.Context(), "ANALYZE")
		require.NoError(t, err)
		turn := func(n int) func(p *runtest.Process) {
			return func(p *runtest.Process) { waitAnswered(t, p, r, int64(n)) }
		}
		measure(t, pool, r, "without a checkpoint", turn(turns+1))
		return measure(t, pool, r, "with a checkpoint", turn(turns+2))
	}
	requireFlat(t, cost(10), cost(long))
}

func TestATurnOfALongThreadReadsAsMuchAsOneOfAShortThread(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	cost := func(runs int) cost {
		p := runtest.NewProcess(t, pool)
		thread := runtest.Envelope().ThreadID
		next := func() db.Run {
			e := runtest.Envelope()
			e.ThreadID = thread
			return runtest.Start(t, pool, e)
		}
		var g errgroup.Group
		g.SetLimit(8)
		for range runs {
			g.Go(func() error {
				r := next()
				if _, err := run.AppendFrame(t.Context(), pool, p.Log, r, runtest.UserMessage("frame-1", "what next?")); err != nil {
					return err
				}
				_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: func(h runlog.Head) (runlog.Change, error) {
					events := append([]event.Event{event.RunStartedV1{MessageID: "m"}}, answered(1, "frame-1", paragraph)...)
					return run.Finish(r, h, runlog.Change{Events: events, FramePosition: 1}, run.End{Status: "completed", ReasonClass: "completed"})
				}})
				return err
			})
		}
		require.NoError(t, g.Wait())
		_, err := pool.Exec(t.Context(), "ANALYZE")
		require.NoError(t, err)
		r := next()
		return measure(t, pool, r, "frame-1", func(p *runtest.Process) { finished(t, p, r) })
	}
	requireFlat(t, cost(10), cost(long))
}

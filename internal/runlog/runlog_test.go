package runlog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func delta(s string) event.Event { return event.MessageDeltaV1{PartID: "p", Delta: s} }

func TestAppendsOfManyWritersAreNumberedWithoutGapsAndChained(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	a, b := runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)
	runs := []db.Run{runtest.Run(t, pool), runtest.Run(t, pool)}

	var wg sync.WaitGroup
	for w, p := range []*runtest.Process{a, b, a, b} {
		for _, r := range runs {
			wg.Go(func() {
				for i := range 25 {
					_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
						Decide: runlog.Append(delta(fmt.Sprint(w, i)), delta("x"))})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	for _, r := range runs {
		n, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
		require.NoError(t, err)
		require.EqualValues(t, 1+4*25*2, n)
	}
}

func TestAnEpochThatIsNotTheHeadsWritesNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		return runlog.Fence(t.Context(), tx, r.RunKey, 7)
	}))

	for _, epoch := range []int64{1, 6, 8} {
		_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Epoch: epoch, Decide: runlog.Append(delta("no"))})
		require.ErrorIs(t, err, runlog.ErrFenced)
	}
	_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Epoch: 7, Decide: runlog.Append(delta("yes"))})
	require.NoError(t, err)
	require.Equal(t, []string{"run.accepted", "message.delta"}, runtest.Types(t, pool, r))
}

func TestAnExpectedSeqIsAPrecondition(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	at := func(seq int64) error {
		_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, ExpectSeq: &seq, Decide: runlog.Append(delta("x"))})
		return err
	}
	require.ErrorIs(t, at(0), runlog.ErrSeq)
	require.NoError(t, at(1))
	require.ErrorIs(t, at(1), runlog.ErrSeq)
}

func TestNothingFollowsTheTerminalStatus(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	end := func(runlog.Head) (runlog.Change, error) {
		return runlog.Change{Events: []event.Event{event.StreamClosedV1{}}, Status: "failed"}, nil
	}
	_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: end})
	require.NoError(t, err)
	_, err = p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: end})
	require.ErrorIs(t, err, runlog.ErrFinished)
}

// One unit whose row the database refuses must not take its neighbours along.
func TestAUnitThatFailsFailsAlone(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	good, bad := runtest.Run(t, pool), runtest.Run(t, pool)
	broken := func(q *db.Queries, _ int64) error {
		return q.FrameInsert(context.Background(), db.FrameInsertParams{RunKey: bad.RunKey, FrameSeq: 1, FrameID: "f", FrameType: "t",
			Payload: []byte("not json"), PayloadHash: "h"})
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: good.RunKey, RunID: good.RunID, Decide: runlog.Append(delta("x"))})
			if err != nil {
				t.Error("the neighbour failed:", err)
			}
		})
		wg.Go(func() {
			_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: bad.RunKey, RunID: bad.RunID, Decide: func(runlog.Head) (runlog.Change, error) {
				return runlog.Change{Events: []event.Event{delta("x")}, Rows: []runlog.Row{broken}}, nil
			}})
			if err == nil {
				t.Error("the broken unit was accepted")
			}
		})
	}
	wg.Wait()
	n, err := runlog.Verify(t.Context(), pool, good.RunKey, good.RunID)
	require.NoError(t, err)
	require.EqualValues(t, 21, n)
	require.Equal(t, []string{"run.accepted"}, runtest.Types(t, pool, bad))
}

func TestAUnitThatPanicsFailsAlone(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: func(runlog.Head) (runlog.Change, error) { panic("as asked") }})
	require.ErrorContains(t, err, "as asked")
	_, err = p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: runlog.Append(delta("x"))})
	require.NoError(t, err)
}

// A server that ends our session in the middle leaves the outcome unknown: the
// unit is not sent again, because it may have been committed.
func TestALostConnectionLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: func(runlog.Head) (runlog.Change, error) {
		// The lane is in its transaction and holds the head.
		_, err := pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE relation = 'run_heads'::regclass AND mode = 'RowShareLock' AND pid <> pg_backend_pid()
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		require.NoError(t, err)
		return runlog.Change{Events: []event.Event{delta("x")}}, nil
	}})
	require.ErrorIs(t, err, runlog.ErrUnknown)
	_, err = p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: runlog.Append(delta("next"))})
	require.NoError(t, err)
	n, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
}

// A unit that is refused because of what another of its batch was about to write
// decides again when that was not written: it is not told of what never was.
func TestAUnitIsNotRefusedForWhatWasNeverWritten(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	entered, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	queue := func(expect *int64, decide func(runlog.Head) (runlog.Change, error), told func(error)) {
		waiting := p.Log.Waiting(r.RunKey)
		wg.Go(func() {
			_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, ExpectSeq: expect, Decide: decide})
			told(err)
		})
		if expect == nil {
			return
		}
		require.Eventually(t, func() bool { return p.Log.Waiting(r.RunKey) > waiting }, 10*time.Second, time.Millisecond)
	}
	// Holds the lane until the others wait in it together.
	queue(nil, func(runlog.Head) (runlog.Change, error) {
		close(entered)
		<-leave
		return runlog.Change{}, errors.New("nothing")
	}, func(error) {})
	<-entered
	one := int64(1)
	queue(&one, func(runlog.Head) (runlog.Change, error) {
		_, err := pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE relation = 'run_heads'::regclass AND mode = 'RowShareLock' AND pid <> pg_backend_pid()
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
		return runlog.Change{Events: []event.Event{delta("cut off")}}, err
	}, func(err error) {
		if !errors.Is(err, runlog.ErrUnknown) {
			t.Error("the first unit was not cut off:", err)
		}
	})
	queue(&one, runlog.Append(delta("second")), func(err error) {
		if err != nil {
			t.Error("the head was at 1 all the time:", err)
		}
	})
	close(leave)
	wg.Wait()
	require.Equal(t, []string{"run.accepted", "message.delta"}, runtest.Types(t, pool, r))
}

func TestAWithdrawnUnitWritesNothing(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	r := runtest.Run(t, pool)
	ctx, cancel := context.WithCancel(t.Context())
	entered, leave := make(chan struct{}), make(chan struct{})
	go func() {
		// Holds the lane, so that the next unit has to wait in the queue.
		_, _ = p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: func(runlog.Head) (runlog.Change, error) {
			close(entered)
			<-leave
			return runlog.Change{}, errors.New("nothing")
		}})
	}()
	<-entered
	cancel()
	_, err := p.Log.Commit(ctx, runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: runlog.Append(delta("late"))})
	require.ErrorIs(t, err, context.Canceled)
	close(leave)
	_, err = p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: runlog.Append(delta("next"))})
	require.NoError(t, err)
	require.Len(t, runtest.Types(t, pool, r), 2)
}

func TestVerifyNamesTheFirstBadEvent(t *testing.T) {
	t.Parallel()
	for name, tamper := range map[string]string{
		"payload":   `UPDATE run_log_deltas SET payload = '{"delta":"y","part_id":"p"}' WHERE seq = 3`,
		"type":      `UPDATE run_log_deltas SET event_type = 'message.started' WHERE seq = 3`,
		"missing":   `DELETE FROM run_log_deltas WHERE seq = 3`,
		"cut off":   `DELETE FROM run_log_deltas WHERE seq >= 3`,
		"reordered": `UPDATE run_log_deltas SET seq = seq + 100 WHERE seq = 3`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			p := runtest.NewProcess(t, pool)
			r := runtest.Run(t, pool)
			_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID,
				Decide: runlog.Append(delta("a"), delta("b"), delta("c"))})
			require.NoError(t, err)
			_, err = pool.Exec(t.Context(), tamper)
			require.NoError(t, err)
			_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
			var broken *runlog.ChainError
			require.ErrorAs(t, err, &broken)
			if name == "cut off" {
				require.EqualValues(t, 4, broken.Seq)
			} else {
				require.EqualValues(t, 3, broken.Seq)
			}
		})
	}
}

// For any sizes of batches of any writers, the log is 1..n and verifies.
func TestAnyInterleavingGivesOneChain(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	rapid.Check(t, func(rt *rapid.T) {
		r := runtest.Run(t, pool)
		sizes := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 6).Draw(rt, "sizes")
		total := 1
		var wg sync.WaitGroup
		for _, n := range sizes {
			total += n
			wg.Go(func() {
				events := make([]event.Event, n)
				for i := range events {
					events[i] = delta(fmt.Sprint(i))
				}
				if _, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Decide: runlog.Append(events...)}); err != nil {
					rt.Error(err)
				}
			})
		}
		wg.Wait()
		n, err := runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
		if err != nil || int(n) != total {
			rt.Fatalf("%d events, %d wanted: %v", n, total, err)
		}
	})
}

// The two questions that the log's indexes must answer are answered without
// reading whole tables.
func TestTheLogsQuestionsUseIndexes(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	for question, sql := range map[string]string{
		"a thread's events by time": `SELECT e.* FROM runs r JOIN run_events e USING (run_key) WHERE r.thread_id = 't' ORDER BY r.inserted_at, e.seq`,
		"a run's events by time":    `SELECT * FROM run_events WHERE run_id = 'r' ORDER BY created_at`,
	} {
		rows, err := pool.Query(t.Context(), `EXPLAIN `+sql)
		require.NoError(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.NotContains(t, fmt.Sprint(plan), "Seq Scan", question)
	}
}

// A run whose head somebody keeps locked does not hold up the runs that share
// its batch, and its own unit is refused by a name.
func TestALockedHeadHoldsUpItsOwnRunOnly(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	impatient, err := pg.Open(t.Context(), pg.Config{URL: pool.Config().ConnString(), MaxConns: 3, LockTimeout: 100 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(impatient.Close)
	p := runtest.NewProcess(t, impatient)
	locked, free := runtest.Run(t, pool), runtest.Run(t, pool)

	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = runlog.LockHead(t.Context(), tx, locked.RunKey)
	require.NoError(t, err)
	refusals := make(chan error, 1)
	go func() {
		_, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: locked.RunKey, RunID: locked.RunID, Decide: runlog.Append(delta("x"))})
		refusals <- err
	}()
	for range 20 {
		p.Append(t, free, delta("y"))
	}
	require.ErrorIs(t, <-refusals, runlog.ErrLocked)
	require.NoError(t, tx.Rollback(t.Context()))
	require.EqualValues(t, 2, p.Append(t, locked, delta("z")).LastSeq, "what was refused is not there")
}

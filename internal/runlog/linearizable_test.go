package runlog_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// call is one use of a log: an append of some events, perhaps only if the head
// is where it is expected, or, without events, a look at the head.
type call struct {
	id     string
	events int
	expect *int64
}

// answer is what a call was told. An append that was not done has no last.
type answer struct{ first, last int64 }

// logModel is a log of which only the head's seq is known.
var logModel = porcupine.Model{
	Init: func() any { return int64(1) },
	Step: func(state, input, output any) (bool, any) {
		head, in, out := state.(int64), input.(call), output.(answer)
		switch {
		case in.events == 0:
			return out.last == head, head
		case out.last == 0:
			return in.expect != nil && *in.expect != head, head
		}
		ok := (in.expect == nil || *in.expect == head) && out.first == head+1 && out.last == head+int64(in.events)
		return ok, out.last
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// history collects what several clients saw, by one clock.
type history struct {
	begun time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

func (h *history) now() int64 { return time.Since(h.begun).Nanoseconds() }

func (h *history) add(client int, in any, called int64, out any) {
	op := porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: h.now()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// Several processes append to one run, with and without a precondition, while
// their sessions are killed: what they are told is what one log that does one
// thing at a time would have told them. An append whose outcome is not known is
// in the log wholly or not at all.
func TestAppendsAreLinearizable(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := runtest.Run(t, pool)
	h := &history{begun: time.Now()}
	const clients, calls = 6, 60
	processes := []*runtest.Process{runtest.NewProcess(t, pool), runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)}
	killed, kill := make(chan struct{}), make(chan struct{})
	killer, err := pgx.ConnectConfig(t.Context(), pool.Config().ConnConfig)
	require.NoError(t, err)
	go func() {
		defer close(killed)
		for {
			select {
			case <-kill:
				return
			case <-time.After(10 * time.Millisecond):
			}
			if _, err := killer.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'run_heads'::regclass
				AND mode IN ('RowShareLock', 'RowExclusiveLock') AND pid <> pg_backend_pid()
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY random() LIMIT 1`); err != nil {
				t.Error(err)
			}
		}
	}()
	var unknown []porcupine.Operation
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			p := processes[client%len(processes)]
			random := rand.New(rand.NewPCG(uint64(client), 1))
			seen := int64(1)
			for i := range calls {
				in := call{id: fmt.Sprintf("%d.%d", client, i), events: random.IntN(4)}
				at := h.now()
				if in.events == 0 {
					if head, err := runlog.GetHead(t.Context(), pool, r.RunKey); err == nil {
						seen = head.Seq
						h.add(client, in, at, answer{last: seen})
					}
					continue
				}
				if random.IntN(3) > 0 {
					expect := seen
					in.expect = &expect
				}
				ack, err := p.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, ExpectSeq: in.expect,
					Decide: runlog.Append(slices.Repeat([]event.Event{delta(in.id)}, in.events)...)})
				switch {
				case err == nil:
					seen = ack.LastSeq
					h.add(client, in, at, answer{ack.FirstSeq, ack.LastSeq})
				case errors.Is(err, runlog.ErrSeq):
					h.add(client, in, at, answer{})
					// Where it is now, for the next try.
					if head, err := runlog.GetHead(t.Context(), pool, r.RunKey); err == nil {
						seen = head.Seq
					}
				case errors.Is(err, runlog.ErrUnknown):
					h.mu.Lock()
					unknown = append(unknown, porcupine.Operation{ClientId: client, Input: in, Call: at})
					h.mu.Unlock()
				default:
					// The session was killed before anything was written; a
					// refusal by the database would be a fault of the appender.
					var refused *pgconn.PgError
					if errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR" {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	close(kill)
	<-killed
	require.NoError(t, killer.Close(t.Context()))

	in := seqsOf(t, r)
	landed := 0
	for _, op := range unknown {
		seqs := in[op.Input.(call).id]
		if len(seqs) == 0 {
			continue
		}
		landed++
		require.Len(t, seqs, op.Input.(call).events, "half a unit is in the log")
		op.Output, op.Return = answer{seqs[0], seqs[len(seqs)-1]}, h.now()
		h.ops = append(h.ops, op)
	}
	t.Logf("%d calls are certain; %d were cut off, of which %d are in the log", len(h.ops)-landed, len(unknown), landed)
	require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(logModel, h.ops, time.Minute))
	_, err = runlog.Verify(t.Context(), pool, r.RunKey, r.RunID)
	require.NoError(t, err)
}

// seqsOf says where each call's events are.
func seqsOf(t *testing.T, r db.Run) map[string][]int64 {
	t.Helper()
	seqs := map[string][]int64{}
	require.NoError(t, runlog.Each(t.Context(), dbtest.New(t), r.RunKey, 0, func(row db.RunLog) error {
		if row.EventType == event.TypeMessageDelta {
			e, err := runlog.Decode(row)
			if err != nil {
				return err
			}
			id := e.(event.MessageDeltaV1).Delta
			seqs[id] = append(seqs[id], row.Seq)
		}
		return nil
	}))
	return seqs
}

// The model itself refuses histories that no log has.
func TestTheLogModelRefusesWhatNoLogDoes(t *testing.T) {
	t.Parallel()
	at := func(seq int64) *int64 { return &seq }
	for name, ops := range map[string][]porcupine.Operation{
		"one seq twice": {
			{ClientId: 0, Input: call{events: 1}, Call: 0, Output: answer{2, 2}, Return: 10},
			{ClientId: 1, Input: call{events: 1}, Call: 0, Output: answer{2, 2}, Return: 10},
		},
		"a precondition that did not hold": {
			{ClientId: 0, Input: call{events: 2}, Call: 0, Output: answer{2, 3}, Return: 10},
			{ClientId: 1, Input: call{events: 1, expect: at(1)}, Call: 20, Output: answer{4, 4}, Return: 30},
		},
		"a refusal without a cause": {
			{ClientId: 0, Input: call{events: 1, expect: at(1)}, Call: 0, Output: answer{}, Return: 10},
		},
		"a head that goes back": {
			{ClientId: 0, Input: call{events: 1}, Call: 0, Output: answer{2, 2}, Return: 10},
			{ClientId: 0, Input: call{}, Call: 20, Output: answer{last: 1}, Return: 30},
		},
	} {
		require.False(t, porcupine.CheckOperations(logModel, ops), name)
	}
}

package lease_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// call is one use of a lease, by the holder of an epoch.
type call struct {
	verb  string // acquire, renew, write, release, expire
	epoch int64
}

// reply says whether it was done and, of acquire, under which epoch.
type reply struct {
	done  bool
	epoch int64
}

// leaseState is what there is to know of a lease.
type leaseState struct {
	epoch int64
	live  bool
}

var leaseModel = porcupine.Model{
	Init: func() any { return leaseState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(leaseState), input.(call), output.(reply)
		mine := in.epoch == s.epoch
		switch in.verb {
		case "acquire":
			if !out.done {
				return s.live, s
			}
			return !s.live && out.epoch == s.epoch+1, leaseState{out.epoch, true}
		case "renew":
			return out.done == (mine && s.live), s
		case "write":
			return out.done == mine, s
		case "release":
			return true, leaseState{s.epoch, s.live && !mine}
		case "expire":
			return true, leaseState{s.epoch, false}
		}
		return false, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

type history struct {
	begun time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

// do calls f and notes what it was told.
func (h *history) do(client int, in call, f func() reply) reply {
	at := time.Since(h.begun).Nanoseconds()
	out := f()
	h.add(client, in, at, out)
	return out
}

func (h *history) add(client int, in call, at int64, out reply) {
	op := porcupine.Operation{ClientId: client, Input: in, Call: at, Output: out, Return: time.Since(h.begun).Nanoseconds()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// Several processes take, renew, use, lose and release one run's lease at once:
// what they are told is what one lease that knows its epoch and whether it is
// live would have told them.
func TestLeasesAreLinearizable(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	r := runtest.Run(t, pool)
	h := &history{begun: time.Now()}
	var wg sync.WaitGroup
	for client := range 4 {
		p := runtest.NewProcess(t, pool)
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(client), 2))
			for held := 0; held < holdsEach; {
				done, err := turn(t, h, client, p, r, random)
				if err != nil {
					t.Error(err)
					return
				}
				if done {
					held++
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(leaseModel, h.ops, time.Minute))
	held := 0
	for _, op := range h.ops {
		if op.Input.(call).verb == "acquire" && op.Output.(reply).done {
			held++
		}
	}
	t.Logf("%d calls, %d times the lease changed hands", len(h.ops), held)
	require.Equal(t, 4*holdsEach, held)
}

// holdsEach is how often each client holds the lease before it leaves.
const holdsEach = 12

// turn tries to take the lease and, when that is done, uses it for a while.
func turn(t *testing.T, h *history, client int, p *runtest.Process, r db.Run, random *rand.Rand) (held bool, err error) {
	asked := time.Since(h.begun).Nanoseconds()
	var mine, released int64
	err = p.Leases.With(t.Context(), r, func(ctx context.Context, held *lease.Held) error {
		mine = held.Epoch
		h.add(client, call{verb: "acquire"}, asked, reply{true, mine})
		for range random.IntN(6) {
			switch random.IntN(4) {
			case 0:
				if out := h.do(client, call{"renew", mine}, func() reply { return reply{done: renewed(ctx, p)} }); !out.done {
					released = time.Since(h.begun).Nanoseconds()
					return nil
				}
			case 1, 2:
				h.do(client, call{"write", mine}, func() reply {
					_, err := held.Commit(context.WithoutCancel(ctx), note)
					return reply{done: err == nil}
				})
			case 3:
				h.do(client, call{verb: "expire"}, func() reply {
					runtest.Expire(t, p.Pool, r)
					return reply{done: true}
				})
			}
		}
		released = time.Since(h.begun).Nanoseconds()
		return nil
	})
	switch {
	case errors.Is(err, lease.ErrHeld):
		h.add(client, call{verb: "acquire"}, asked, reply{})
		return false, nil
	case err == nil:
		h.add(client, call{"release", mine}, released, reply{done: true})
	}
	return err == nil, err
}

// renewed beats the process's heart once and says whether its lease was renewed.
func renewed(ctx context.Context, p *runtest.Process) bool {
	return p.Leases.Renew(context.WithoutCancel(ctx)) == nil && ctx.Err() == nil
}

func TestTheLeaseModelRefusesWhatNoLeaseDoes(t *testing.T) {
	t.Parallel()
	op := func(client int, in call, at int64, out reply) porcupine.Operation {
		return porcupine.Operation{ClientId: client, Input: in, Call: at, Output: out, Return: at + 1}
	}
	take := func(client int, at, epoch int64) porcupine.Operation {
		return op(client, call{verb: "acquire"}, at, reply{true, epoch})
	}
	for name, ops := range map[string][]porcupine.Operation{
		"two holders":          {take(0, 0, 1), take(1, 10, 2)},
		"an epoch twice":       {take(0, 0, 1), op(0, call{"release", 1}, 10, reply{done: true}), take(1, 20, 1)},
		"an old epoch writes":  {take(0, 0, 1), op(1, call{verb: "expire"}, 10, reply{done: true}), take(1, 20, 2), op(0, call{"write", 1}, 30, reply{done: true})},
		"an expired one lives": {take(0, 0, 1), op(1, call{verb: "expire"}, 10, reply{done: true}), op(0, call{"renew", 1}, 20, reply{done: true})},
		"held by nobody":       {op(0, call{verb: "acquire"}, 0, reply{})},
	} {
		require.False(t, porcupine.CheckOperations(leaseModel, ops), name)
	}
}

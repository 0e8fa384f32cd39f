package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// Two processes that want the same hundred runs at the same moment, and each some
// of them twice: every run has one holder, who may write, and the rest are told
// that it is held.
func TestRunsThatAreTakenTogetherHaveOneHolderEach(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	runs := make([]db.Run, 100)
	for i := range runs {
		runs[i] = runtest.Run(t, pool)
	}
	var (
		mu      sync.Mutex
		holders = map[string]int{}
		asked   sync.WaitGroup
		done    sync.WaitGroup
	)
	all := make(chan struct{}) // closed when everybody was answered
	for _, p := range []*runtest.Process{runtest.NewProcess(t, pool), runtest.NewProcess(t, pool)} {
		for i, r := range append(runs[:len(runs):len(runs)], runs[:20]...) {
			asked.Add(1)
			done.Go(func() {
				once := sync.OnceFunc(asked.Done)
				defer once()
				err := p.Leases.With(t.Context(), r, func(ctx context.Context, h *lease.Held) error {
					mu.Lock()
					holders[r.RunID]++
					mu.Unlock()
					once()
					<-all
					_, err := h.Commit(ctx, note)
					return err
				})
				if err != nil && !errors.Is(err, lease.ErrHeld) {
					t.Errorf("wish %d: %v", i, err)
				}
			})
		}
	}
	asked.Wait()
	close(all)
	done.Wait()
	require.Len(t, holders, len(runs))
	for _, r := range runs {
		require.Equal(t, 1, holders[r.RunID])
		require.Equal(t, []string{"run.accepted", "message.delta"}, runtest.Types(t, pool, r))
	}
}

package runtest

import (
	"context"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
)

// Expire makes a run's lease look as if its holder had been silent too long.
func Expire(t testing.TB, pool *pgxpool.Pool, r db.Run) {
	t.Helper()
	require.NoError(t, db.New(pool).RunLeaseExpire(context.WithoutCancel(t.Context()), r.RunKey))
}

// holds are the leases taken by Hold, with what lets them go.
var holds sync.Map // *lease.Held -> func()

// Hold takes a run's lease and keeps it until LetGo. ok is false when somebody
// holds it.
func Hold(t testing.TB, p *Process, r db.Run) (h *lease.Held, ok bool) {
	t.Helper()
	taken, leave, left := make(chan *lease.Held, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		err := p.Leases.With(t.Context(), r, func(_ context.Context, h *lease.Held) error {
			taken <- h
			<-leave
			return nil
		})
		if err != nil {
			close(taken)
		}
	}()
	h, ok = <-taken
	if ok {
		holds.Store(h, func() { close(leave); <-left })
	}
	return h, ok
}

// LetGo ends a Hold.
func LetGo(h *lease.Held) {
	if leave, ok := holds.LoadAndDelete(h); ok {
		leave.(func())()
	}
}

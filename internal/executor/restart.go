package executor

import (
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

var errPanic = errors.New("panic")

// causeOf says why a session ended early, in a closed set of words.
func causeOf(err error) string {
	var database *pgconn.PgError
	switch {
	case errors.Is(err, errPanic):
		return "panic"
	case errors.Is(err, errHung):
		return "hang"
	case errors.Is(err, lease.ErrLost):
		return "lease_lost"
	case errors.As(err, &database), errors.Is(err, runlog.ErrUnknown), pg.Outage(err):
		return "database"
	}
	return "other"
}

// restarts remembers the runs whose sessions failed in this process, and when
// each may begin again.
type restarts struct {
	delay, longest time.Duration

	mu   sync.Mutex
	runs map[uuid.UUID]restart
}

type restart struct {
	delay time.Duration
	until time.Time
}

func newRestarts(delay, longest time.Duration) restarts {
	return restarts{delay: delay, longest: longest, runs: map[uuid.UUID]restart{}}
}

// failed notes a failure without progress and says how long the run waits.
func (r *restarts) failed(key uuid.UUID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	next := restart{delay: min(r.delay, r.longest)}
	if last, again := r.runs[key]; again {
		next.delay = min(2*last.delay, r.longest)
	}
	next.until = now.Add(next.delay)
	r.runs[key] = next
	return next.delay
}

// forget makes the next failure the first.
func (r *restarts) forget(key uuid.UUID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.runs, key)
}

func (r *restarts) waits(key uuid.UUID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.runs[key].until)
}

// waiting counts the runs that wait. One that has long been free to begin and
// did not fail again here went on elsewhere, and is forgotten.
func (r *restarts) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, n := time.Now(), 0
	for key, run := range r.runs {
		switch {
		case now.Before(run.until):
			n++
		case now.Sub(run.until) > 2*r.longest:
			delete(r.runs, key)
		}
	}
	return n
}

package tool

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Retention says how long what policy decided is kept.
type Retention struct {
	Pool *pgxpool.Pool
	// Evaluations is how long after a run's end at the least, an hour or more. As
	// long as anything of a run's log is kept, so are the evaluations that it
	// refers to.
	Evaluations time.Duration
	// Events is the window of the logs; with 0 nothing ever goes.
	Events time.Duration
}

const (
	prunedRuns     = 500 // whose evaluations one commit lets go of
	leastRetention = time.Hour
)

// Prune is one pass of a sweep: it lets go of the evaluations and refusals of runs
// whose logs are gone, in batches, and says how many evaluations went. It is safe
// on every node at once.
func (r Retention) Prune(ctx context.Context) (n int64, err error) {
	if r.Events == 0 {
		return 0, nil
	}
	age := max(r.Evaluations, leastRetention)
	until := beganBefore(time.Now().Add(-max(age, r.Events)))
	for more := true; more; {
		err := pgx.BeginFunc(ctx, r.Pool, func(tx pgx.Tx) error {
			q := db.New(tx)
			if more, err = q.DsPolicyEvaluationLockPrune(ctx); err != nil || !more {
				return err // or another process is at it
			}
			gone, err := q.DsPolicyEvaluationPrune(ctx, db.DsPolicyEvaluationPruneParams{
				UntilKey: until, Age: age, MaxRuns: prunedRuns,
			})
			n, more = n+gone.Evaluations, gone.Runs == prunedRuns
			return err
		})
		if err != nil {
			return n, fmt.Errorf("prune evaluations: %w", err)
		}
	}
	return n, nil
}

// beganBefore is the key that those of runs that began before a moment are below.
func beganBefore(t time.Time) (key uuid.UUID) {
	binary.BigEndian.PutUint64(key[:8], uint64(max(0, t.UnixMilli()))<<16)
	return key
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// world is what all measurements share, and the processes of the present one.
type world struct {
	binary   string
	provider *provider
	db       *rig.Database

	mu  sync.Mutex
	all []*rig.Process
}

func (w *world) launch(ctx context.Context, ttl time.Duration, name, databaseURL string) (*rig.Process, error) {
	p, err := rig.Launch(ctx, w.binary, name, databaseURL,
		"RUNTIME_LEASE_TTL="+ttl.String(), "RUNTIME_LOG_LEVEL=info",
		"MODEL_PROVIDER=openai", "MODEL_BASE_URL="+w.provider.URL, "MODEL_NAME=scripted")
	if err == nil {
		w.mu.Lock()
		w.all = append(w.all, p)
		w.mu.Unlock()
	}
	return p, err
}

// endAll kills every process.
func (w *world) endAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.all {
		p.End()
	}
	w.all = nil
}

// pick is a process that lives.
func (w *world) pick() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var living []*rig.Process
	for _, p := range w.all {
		if p.Alive() {
			living = append(living, p)
		}
	}
	if len(living) == 0 {
		return "http://127.0.0.1:1" // nobody answers there
	}
	return living[rand.IntN(len(living))].API
}

// now is the database's time.
func (w *world) now(ctx context.Context) (at time.Time, err error) {
	err = w.db.Pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&at)
	return at, err
}

// begin starts runs through some processes in turn, and waits until the model
// speaks in all of them. A run's text is its id.
func (w *world) begin(ctx context.Context, n int, through ...*rig.Process) ([]string, error) {
	ids := make([]string, n)
	var g errgroup.Group
	g.SetLimit(8)
	for i := range ids {
		ids[i] = uuid.NewString()
		g.Go(func() error { return begin(ctx, through[i%len(through)].API, ids[i]) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return ids, w.until(ctx, "the model speaks in every run", func() (bool, error) {
		for _, id := range ids {
			if !w.provider.speaking(id) {
				return false, nil
			}
		}
		return true, nil
	})
}

func begin(ctx context.Context, base, id string) error {
	status, b, err := rig.Ask(ctx, http.MethodPost, base, "/runs", "", map[string]any{
		"runId": id, "threadId": id, "userId": rig.UserID, "authenticatedSession": true,
	})
	if err == nil && status == http.StatusAccepted {
		status, b, err = rig.Ask(ctx, http.MethodPost, base, "/runs/"+id+"/frames", id, map[string]any{
			"frameId": uuid.NewString(), "type": "user_message", "payload": map[string]any{"text": id},
		})
	}
	if err == nil && status != http.StatusAccepted {
		err = fmt.Errorf("%d %s", status, b)
	}
	if err != nil {
		return fmt.Errorf("start a run: %w", err)
	}
	return nil
}

// patience is how long anything that is waited for may take, a TTL aside.
const patience = time.Minute

// until waits until something holds.
func (w *world) until(ctx context.Context, what string, holds func() (bool, error)) error {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	for {
		done, err := holds()
		if err != nil || done {
			return err
		}
		if err := rig.Pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("wait until %s: %w", what, err)
		}
	}
}

// cancel cancels a run through a process and says when that was acknowledged.
func cancel(ctx context.Context, base, id string) (acknowledged time.Time, err error) {
	status, b, err := rig.Ask(ctx, http.MethodPost, base, "/runs/"+id+"/cancel", id, map[string]any{"reason": "enough"})
	if err == nil && status != http.StatusAccepted && status != http.StatusOK {
		err = fmt.Errorf("%d %s", status, b)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("cancel %s: %w", id, err)
	}
	return time.Now(), nil
}

// finish cancels runs and waits until they have ended.
func (w *world) finish(ctx context.Context, ids []string) error {
	var g errgroup.Group
	g.SetLimit(8)
	for _, id := range ids {
		g.Go(func() error {
			var last error // a process that has just met an outage may say 503
			err := w.until(ctx, "a run is canceled", func() (bool, error) {
				_, last = cancel(ctx, w.pick(), id)
				return last == nil, nil
			})
			return errors.Join(err, last)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err := w.firsts(ctx, ids, "run.finished", time.Time{})
	return err
}

// firsts waits until every run has an event of a type after a moment, and says
// when the first of them was written.
func (w *world) firsts(ctx context.Context, ids []string, eventType string, after time.Time) (map[string]time.Time, error) {
	var at map[string]time.Time
	err := w.until(ctx, "every run has its "+eventType, func() (bool, error) {
		var err error
		at, err = w.moments(ctx, `SELECT run_id, min(l.inserted_at) FROM run_log l JOIN runs USING (run_key)
			WHERE run_id = ANY($1) AND event_type = $2 AND l.inserted_at > $3 GROUP BY run_id`, ids, eventType, after)
		return len(at) == len(ids), err
	})
	return at, err
}

// moments is a query's answer of run ids and times.
func (w *world) moments(ctx context.Context, query string, args ...any) (map[string]time.Time, error) {
	rows, err := w.db.Pool.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	at := map[string]time.Time{}
	var id string
	var t time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &t}, func() error {
		at[id] = t
		return nil
	})
	return at, err
}

// heldBy are those of some runs that a process executes; one at the least.
func (w *world) heldBy(ctx context.Context, p *rig.Process, among []string) ([]string, error) {
	ends, err := w.moments(ctx, `SELECT run_id, lease_expires_at FROM run_leases JOIN runs USING (run_key)
		WHERE run_id = ANY($1) AND lease_owner = $2 AND NOT released`, among, p.Owner)
	if err == nil && len(ends) == 0 {
		err = fmt.Errorf("%s executes none of %d runs", p.Name, len(among))
	}
	return slices.Collect(maps.Keys(ends)), err
}

// leases are when the leases of some runs end that one process holds. All of
// them must be its.
func (w *world) leases(ctx context.Context, ids []string, owner string) (map[string]time.Time, error) {
	ends, err := w.moments(ctx, `SELECT run_id, lease_expires_at FROM run_leases JOIN runs USING (run_key)
		WHERE run_id = ANY($1) AND lease_owner = $2 AND NOT released`, ids, owner)
	if err == nil && len(ends) != len(ids) {
		err = errors.New("one process was to hold every run, and does not")
	}
	return ends, err
}

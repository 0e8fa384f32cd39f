package stream

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

const (
	// gatherAtOnce is how many questions are on their way at once.
	gatherAtOnce = 2
	// gatherRuns is how many runs one question is about at the most.
	gatherRuns = 64
	// gatherTime is how long a question may take.
	gatherTime = 10 * time.Second
)

// gatherer reads the news of many runs with few questions: those that want to
// read while the questions on their way are answered share the next one.
type gatherer struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	asking  int
	waiting []*wish
}

// wish is one reader's: the events after a place.
type wish struct {
	place runlog.Place
	rows  []db.RunLog
	err   error
	told  chan struct{} // closed when rows and err are there
}

// alone reads a page with a question of its own. That is for who is far behind
// and reads page after page: there is nothing to share, and nobody to wait for.
func (g *gatherer) alone(ctx context.Context, key uuid.UUID, seq int64) ([]db.RunLog, error) {
	return runlog.After(ctx, g.pool, key, seq, pageEvents)
}

// after reads a page of a run's events, or returns when ctx ends.
func (g *gatherer) after(ctx context.Context, key uuid.UUID, seq int64) ([]db.RunLog, error) {
	w := &wish{place: runlog.Place{RunKey: key, Seq: seq}, told: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	if g.asking < gatherAtOnce {
		g.asking++
		go g.ask()
	}
	g.mu.Unlock()
	select {
	case <-w.told:
		return w.rows, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask asks for as long as somebody waits.
func (g *gatherer) ask() {
	for {
		g.mu.Lock()
		some := g.take()
		if len(some) == 0 {
			g.asking--
			g.mu.Unlock()
			return
		}
		g.mu.Unlock()
		g.answer(some)
	}
}

// take is the wishes of the next question, none about the same run; g.mu is held.
func (g *gatherer) take() (some []*wish) {
	var later []*wish
	runs := map[uuid.UUID]bool{}
	for _, w := range g.waiting {
		if len(some) == gatherRuns || runs[w.place.RunKey] {
			later = append(later, w)
			continue
		}
		runs[w.place.RunKey] = true
		some = append(some, w)
	}
	g.waiting = later
	return some
}

func (g *gatherer) answer(some []*wish) {
	ctx, stop := context.WithTimeout(context.Background(), gatherTime)
	defer stop()
	if len(some) == 1 {
		w := some[0]
		w.rows, w.err = g.alone(ctx, w.place.RunKey, w.place.Seq)
		close(w.told)
		return
	}
	places := make([]runlog.Place, len(some))
	for i, w := range some {
		places[i] = w.place
	}
	pages, err := runlog.AfterEach(ctx, g.pool, places, pageEvents)
	for i, w := range some {
		if w.err = err; err == nil {
			w.rows = pages[i]
		}
		close(w.told)
	}
}

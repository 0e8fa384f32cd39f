package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Config says how streams behave. Zero values mean the defaults.
type Config struct {
	// Heartbeat is the longest silence; then a comment is sent. Default 10 s.
	Heartbeat time.Duration
	// WriteTimeout is how long a reader may take over what one write gives it,
	// 64 kB at the most or one event. Then it is cut off. Default 10 s.
	WriteTimeout time.Duration
	// Retry is how long a client is told to wait before it reconnects. Default 1 s.
	Retry time.Duration
	// DrainSpread is the time over which the clients of a process that drains
	// are told to come back. Default 5 s.
	DrainSpread time.Duration
	// ExpiryGrace is how long a stream goes on after the token that opened it has
	// expired. With WriteTimeout it is less than a minute. Default 45 s.
	ExpiryGrace time.Duration
	// MaxReadersPerRun and MaxReaders bound what is open at once, for one run
	// and in all. Defaults 64 and 10,000.
	MaxReadersPerRun, MaxReaders int
	// KeepBytes is how much of a run's newest events is kept in memory while
	// somebody follows it. Default 256 kB.
	KeepBytes int
}

func (c Config) withDefaults() Config {
	fill(&c.Heartbeat, 10*time.Second)
	fill(&c.WriteTimeout, 10*time.Second)
	fill(&c.Retry, time.Second)
	fill(&c.DrainSpread, 5*time.Second)
	fill(&c.ExpiryGrace, 45*time.Second)
	fill(&c.MaxReadersPerRun, 64)
	fill(&c.MaxReaders, 10_000)
	fill(&c.KeepBytes, 256<<10)
	return c
}

func fill[T int | time.Duration](v *T, byDefault T) {
	if *v <= 0 {
		*v = byDefault
	}
}

var (
	// ErrEnded says that the run has ended and the cursor is at its end: there
	// is nothing to resume, now or later.
	ErrEnded = errors.New("the stream has ended")
	// ErrBeyondHead says that the run is live and the cursor is a seq that it
	// has not reached: the client has it from another run.
	ErrBeyondHead = errors.New("the cursor is beyond the newest event")
	// ErrTooManyReaders says that the run, or the process, has as many readers
	// as it takes.
	ErrTooManyReaders = errors.New("too many readers")
	// ErrDraining says that this process takes no more streams. An EventSource
	// gives up on an error status and not on a broken connection.
	ErrDraining = errors.New("the process is shutting down")
)

// StaleError says that events after the cursor are no longer kept. A client
// starts again from Floor, or from a snapshot.
type StaleError struct {
	Floor int64 // the smallest cursor that can be resumed from
	Head  int64 // the seq of the newest event
}

func (e *StaleError) Error() string {
	return fmt.Sprintf("the events after the cursor are no longer kept; the oldest cursor is %d", e.Floor)
}

// Handler opens the streams of one process.
type Handler struct {
	cfg     Config
	tails   *tails
	metrics metrics

	detached sync.WaitGroup // streams that have taken their connection over

	mu       sync.Mutex
	open     int
	perRun   map[uuid.UUID]int
	draining chan struct{} // closed when the process drains
}

// New makes a handler that reads logs through pool and is woken by watch. Its
// metrics are registered with m, so a process makes one.
func New(pool *pgxpool.Pool, watch *runlog.Watch, cfg Config, m *telemetry.Metrics) *Handler {
	cfg = cfg.withDefaults()
	return &Handler{
		cfg: cfg, metrics: newMetrics(m),
		tails:    &tails{logs: &gatherer{pool: pool}, watch: watch, keepBytes: cfg.KeepBytes, all: map[uuid.UUID]*tail{}, byID: map[string]*tail{}},
		perRun:   map[uuid.UUID]int{},
		draining: make(chan struct{}),
	}
}

// Shutdown breaks every stream off and refuses new ones. It does not wait:
// http.Server.Shutdown does for streams that have a request, Wait for the others.
func (h *Handler) Shutdown() {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.draining:
	default:
		close(h.draining)
	}
}

// Open begins a stream of the events after cursor, a seq from 0. head is the
// run's head, read after the request came. Nothing is written yet: what cannot
// be served is ErrEnded, ErrBeyondHead, ErrTooManyReaders, ErrDraining or a
// *StaleError. The stream ends with ctx, the request's, at the latest.
func (h *Handler) Open(ctx context.Context, r db.Run, head runlog.Head, cursor int64) (*Stream, error) {
	switch {
	case cursor < head.Floor():
		return nil, &StaleError{Floor: head.Floor(), Head: head.Seq}
	case cursor >= head.Seq && runlog.Terminal(head.Status):
		return nil, ErrEnded
	case cursor > head.Seq:
		return nil, ErrBeyondHead
	}
	return h.begin(ctx, r, head.Seq, cursor, !runlog.Terminal(head.Status))
}

// Followed tells of a run that others read at its end in this process already,
// when nothing that follows the cursor need be asked of the database: the run as
// they found it, whose id, owner and thread never change, and a seq that its
// log has reached. The caller decides whether the run may be read.
func (h *Handler) Followed(runID string, cursor int64) (r db.Run, head int64, ok bool) {
	return h.tails.followed(runID, cursor)
}

// OpenFollowed is Open for a run that is Followed. Its errors are ErrTooManyReaders
// and ErrDraining.
func (h *Handler) OpenFollowed(ctx context.Context, r db.Run, head, cursor int64) (*Stream, error) {
	return h.begin(ctx, r, head, cursor, true)
}

func (h *Handler) begin(ctx context.Context, r db.Run, head, cursor int64, live bool) (*Stream, error) {
	if err := h.take(r.RunKey); err != nil {
		return nil, err
	}
	// A request that fails before its stream is served gives the place back too.
	release := context.AfterFunc(ctx, func() { h.give(r.RunKey) })
	return &Stream{
		h: h, run: &r, key: r.RunKey, runID: r.RunID, live: live, head: head, cursor: cursor, opened: time.Now(), release: release,
	}, nil
}

func (h *Handler) take(key uuid.UUID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	select {
	case <-h.draining:
		return ErrDraining
	default:
	}
	if h.open >= h.cfg.MaxReaders || h.perRun[key] >= h.cfg.MaxReadersPerRun {
		return ErrTooManyReaders
	}
	h.open++
	h.perRun[key]++
	h.metrics.open.Inc()
	return nil
}

func (h *Handler) give(key uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open--
	if h.perRun[key]--; h.perRun[key] == 0 {
		delete(h.perRun, key)
	}
	h.metrics.open.Dec()
}

package executor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Config bounds an executor.
type Config struct {
	// MaxRuns is how many runs are driven at once.
	MaxRuns int
	// Tick is how often the database is asked for work that no notification told.
	Tick time.Duration
	// MaxLosses is how many executors in a row may be lost without progress
	// before the run is failed.
	MaxLosses int64
	// MaxLostFor is how long executors may be lost one after another without
	// progress, from the first loss, before the run is failed. It counts from
	// the second loss on: whatever stopped the first, the run is taken up once.
	MaxLostFor time.Duration
	// MaxAttempts is how often a step is tried when its model call breaks.
	MaxAttempts int64
	// Limits are the caps of a run that names none.
	Limits run.Limits
	// Window bounds the earlier conversation that a model is shown, in bytes.
	Window int
	// ThreadRuns is how many earlier runs of the thread are looked at.
	ThreadRuns int
	// CheckpointSteps and CheckpointEvents are how many steps or events may
	// follow a checkpoint before the end of a step saves another.
	CheckpointSteps, CheckpointEvents int64
}

// DefaultConfig is what a small machine can do.
func DefaultConfig() Config {
	return Config{
		MaxRuns: 256, Tick: time.Second, MaxLosses: 3, MaxLostFor: time.Hour, MaxAttempts: 3,
		Window: 48 << 10, ThreadRuns: 20, CheckpointSteps: 8, CheckpointEvents: 1024,
		Limits: run.Limits{MaxSteps: 500, MaxWallClockMs: (24 * time.Hour).Milliseconds(), MaxTokens: 5_000_000, MaxModelCalls: 500},
	}
}

// Executor drives runs.
type Executor struct {
	Config  Config
	Pool    *pgxpool.Pool
	Watch   *runlog.Watch
	Leases  *lease.Keeper
	Predict *predict.Caller

	mu       sync.Mutex
	sessions map[uuid.UUID]*session
	wg       sync.WaitGroup

	steps       *prometheus.CounterVec
	finished    *prometheus.CounterVec
	checkpoints *prometheus.CounterVec
	panics      prometheus.Counter
	active      prometheus.Gauge
}

// New makes an executor.
func New(c Config, pool *pgxpool.Pool, watch *runlog.Watch, leases *lease.Keeper, p *predict.Caller, m *telemetry.Metrics) *Executor {
	return &Executor{
		Config: c, Pool: pool, Watch: watch, Leases: leases, Predict: p, sessions: map[uuid.UUID]*session{},
		steps:       m.Counter(telemetry.ExecutorSteps),
		finished:    m.Counter(telemetry.RunsFinished),
		checkpoints: m.Counter(telemetry.CheckpointReads),
		panics:      m.Counter(telemetry.ExecutorPanics).WithLabelValues(),
		active:      m.Gauge(telemetry.ExecutorActive).WithLabelValues(),
	}
}

// Run drives runs until ctx ends, then lets the sessions put their pens down.
func (e *Executor) Run(ctx context.Context) error {
	work := e.Watch.Work()
	defer work.Close()
	defer e.wg.Wait()
	tick := time.NewTicker(e.Config.Tick)
	defer tick.Stop()
	for {
		if err := e.Once(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the executor could not look for work", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-work.C:
			e.tell(work.Keys())
		case <-tick.C:
			e.tellCanceled(ctx)
		}
	}
}

// tell passes news of runs on to the sessions that drive them.
func (e *Executor) tell(keys []uuid.UUID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range keys {
		if s := e.sessions[k]; s != nil {
			s.ring()
		}
	}
}

// tellCanceled catches cancels whose notification was lost.
func (e *Executor) tellCanceled(ctx context.Context) {
	keys := e.Leases.Keys()
	if len(keys) == 0 {
		return
	}
	canceled, err := runlog.CanceledAmong(ctx, e.Pool, keys)
	if err != nil {
		slog.WarnContext(ctx, "the executor could not look for cancels", "error", err.Error())
		return
	}
	e.tell(canceled)
}

// Once takes the runs that have something to do, as far as there is room.
func (e *Executor) Once(ctx context.Context) error {
	room := e.room()
	if room <= 0 {
		return nil
	}
	keys, err := run.Runnable(ctx, e.Pool, room)
	if err != nil {
		return err
	}
	for _, key := range keys {
		e.begin(ctx, key)
	}
	return nil
}

func (e *Executor) room() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Config.MaxRuns - len(e.sessions)
}

// begin drives one run in its own goroutine, unless it is driven already.
func (e *Executor) begin(ctx context.Context, key uuid.UUID) {
	s := &session{e: e, bell: make(chan struct{}, 1)}
	e.mu.Lock()
	if e.sessions[key] != nil {
		e.mu.Unlock()
		return
	}
	e.sessions[key] = s
	e.mu.Unlock()
	e.active.Inc()
	e.wg.Go(func() {
		err := e.drive(ctx, key, s)
		e.end(key)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			// The tick tries again: what failed may fail at once.
			slog.ErrorContext(ctx, "a session ended early; the run goes on with the next", "run_key", key, "error", err.Error())
		default:
			// A frame that came while the lease was given back rang for nobody.
			e.Watch.Wake(nil, []uuid.UUID{key})
		}
	})
}

func (e *Executor) end(key uuid.UUID) {
	e.mu.Lock()
	delete(e.sessions, key)
	e.mu.Unlock()
	e.active.Dec()
}

// drive holds the run for one session. A panic harms this run alone.
func (e *Executor) drive(ctx context.Context, key uuid.UUID, s *session) (err error) {
	defer func() {
		if p := recover(); p != nil {
			e.panics.Inc()
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	r, err := run.ByKey(ctx, e.Pool, key)
	if err != nil {
		return err
	}
	err = e.Leases.With(ctx, r, func(ctx context.Context, h *lease.Held) error {
		s.run, s.held, s.head = r, h, h.Head
		return s.drive(ctx)
	})
	if errors.Is(err, lease.ErrHeld) || errors.Is(err, lease.ErrLost) {
		return nil
	}
	return err
}

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

	"github.com/openagentsinc/openagents-runtime/internal/hook"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/loop"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
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
	// HangGrace is how long a model call may go on after it was told to end,
	// before its session gives it up.
	HangGrace time.Duration
	// RestartDelay is how long a run that failed its session waits for the next
	// one in this process. Every failure without progress doubles it, up to
	// MaxRestartDelay.
	RestartDelay, MaxRestartDelay time.Duration
	// Loops says what counts as a loop.
	Loops loop.Config
	// ToolDrain is how long a call that must not be made twice may go on when the
	// process stops.
	ToolDrain time.Duration
	// Replay bounds the lines of earlier tool calls.
	Replay Replay
}

// DefaultConfig is what a small machine can do.
func DefaultConfig() Config {
	return Config{
		MaxRuns: 256, Tick: time.Second, MaxLosses: 3, MaxLostFor: time.Hour, MaxAttempts: 3,
		Window: 48 << 10, ThreadRuns: 20, CheckpointSteps: 8, CheckpointEvents: 1024,
		HangGrace: 2 * time.Second, RestartDelay: 500 * time.Millisecond, MaxRestartDelay: 30 * time.Second, Loops: loop.Defaults(),
		ToolDrain: 8 * time.Second, Replay: Replay{Items: 20, Preview: 280, Bytes: 3500, Runs: 3},
		Limits: run.Limits{MaxSteps: 500, MaxWallClockMs: (24 * time.Hour).Milliseconds(), MaxTokens: 5_000_000, MaxModelCalls: 500},
	}
}

// Tools is what an executor carries tools out with. What is nil is made: a
// catalog without tools, a runner of it, the policy of a service without a file,
// no hooks.
type Tools struct {
	Catalog *tool.Catalog
	Runner  *tool.Runner
	Policy  *policy.Rules
	Rates   tool.Rates
	Hooks   *hook.Registry
}

func (t Tools) complete(m *telemetry.Metrics) Tools {
	if t.Catalog == nil {
		var err error
		if t.Catalog, err = tool.NewCatalog(); err != nil {
			panic("a catalog without tools: " + err.Error())
		}
	}
	if t.Runner == nil {
		t.Runner = tool.NewRunner(tool.Config{}, t.Catalog, m)
	}
	if t.Policy == nil {
		t.Policy = policy.Default()
	}
	return t
}

// Executor drives runs.
type Executor struct {
	Config  Config
	Pool    *pgxpool.Pool
	Watch   *runlog.Watch
	Leases  *lease.Keeper
	Predict *predict.Caller
	Tools   Tools

	mu       sync.Mutex
	sessions map[uuid.UUID]*session
	restarts restarts
	suspects suspects
	wg       sync.WaitGroup
	warned   sync.Once // of what the service's tool policy names and nothing is

	steps       *prometheus.CounterVec
	finished    *prometheus.CounterVec
	checkpoints *prometheus.CounterVec
	failures    *prometheus.CounterVec
	loopsSeen   *prometheus.CounterVec
	panics      prometheus.Counter
	active      prometheus.Gauge
}

// New makes an executor.
func New(c Config, pool *pgxpool.Pool, watch *runlog.Watch, leases *lease.Keeper, p *predict.Caller, t Tools, m *telemetry.Metrics) *Executor {
	return &Executor{
		Config: c, Pool: pool, Watch: watch, Leases: leases, Predict: p, Tools: t.complete(m), sessions: map[uuid.UUID]*session{},
		restarts:    newRestarts(c.RestartDelay, c.MaxRestartDelay),
		steps:       m.Counter(telemetry.ExecutorSteps),
		finished:    m.Counter(telemetry.RunsFinished),
		checkpoints: m.Counter(telemetry.CheckpointReads),
		failures:    m.Counter(telemetry.ExecutorFailures),
		loopsSeen:   m.Counter(telemetry.ExecutorLoops),
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
			e.tellNews(ctx)
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

// tellNews catches cancels and frames whose notification was lost.
func (e *Executor) tellNews(ctx context.Context) {
	var keys []uuid.UUID
	var seen []int64
	e.mu.Lock()
	for key, s := range e.sessions {
		keys, seen = append(keys, key), append(seen, s.seen.Load())
	}
	e.mu.Unlock()
	if len(keys) == 0 {
		return
	}
	news, err := runlog.NewsAmong(ctx, e.Pool, keys, seen)
	if err != nil {
		slog.WarnContext(ctx, "the executor could not look for cancels and frames", "error", err.Error())
		return
	}
	e.tell(news)
}

// Once takes the runs that have something to do, as far as there is room.
func (e *Executor) Once(ctx context.Context) error {
	room := e.room()
	if room <= 0 {
		return nil
	}
	// Those that wait for their restart must not stand in the way of the others.
	runs, err := run.Runnable(ctx, e.Pool, room+e.restarts.waiting(), e.suspects.mostLosses())
	if err != nil {
		return err
	}
	for _, r := range runs {
		if room <= 0 || e.restarts.waits(r.RunKey) || !e.suspects.admit(r) {
			continue
		}
		if e.begin(ctx, r.RunKey) {
			room--
		} else {
			e.suspects.clear(r.RunKey)
		}
	}
	return nil
}

func (e *Executor) room() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Config.MaxRuns - len(e.sessions)
}

// begin drives one run in its own goroutine, unless it is driven already.
func (e *Executor) begin(ctx context.Context, key uuid.UUID) bool {
	s := newSession(e)
	e.mu.Lock()
	if e.sessions[key] != nil {
		e.mu.Unlock()
		return false
	}
	e.sessions[key] = s
	e.mu.Unlock()
	e.active.Inc()
	e.wg.Go(func() {
		err := e.drive(ctx, key, s)
		if s.advanced || err == nil && s.held != nil {
			e.restarts.forget(key)
		}
		if err != nil && ctx.Err() == nil {
			// The tick tries again, later and later: what failed may fail at once. What
			// was handed over after an outage may go on.
			var delay time.Duration
			if !s.released {
				delay = e.restarts.failed(key)
			}
			e.failures.WithLabelValues(causeOf(err)).Inc()
			slog.ErrorContext(telemetry.WithTrace(ctx, s.trace), "a session ended early; the run goes on with the next", "run_key", key,
				"cause", causeOf(err), "delay_ms", delay.Milliseconds(), "error", err.Error())
		}
		e.end(key)
		if (err == nil || s.released) && ctx.Err() == nil {
			// A frame that came while the lease was given back rang for nobody.
			e.Watch.Wake(nil, []uuid.UUID{key})
		}
	})
	return true
}

func (e *Executor) end(key uuid.UUID) {
	// Before the run may begin again: it may be a suspect then.
	e.suspects.clear(key)
	e.mu.Lock()
	delete(e.sessions, key)
	e.mu.Unlock()
	e.active.Dec()
}

// drive holds the run for one session. A panic harms this run alone.
func (e *Executor) drive(ctx context.Context, key uuid.UUID, s *session) (err error) {
	defer e.contain(&err)
	r, err := run.ByKey(ctx, e.Pool, key)
	if err != nil {
		return err
	}
	s.trace = traceOf(r.Traceparent, r.Tracestate, r.RequestID)
	ctx = telemetry.WithTrace(ctx, s.trace)
	err = e.Leases.With(ctx, r, func(ctx context.Context, h *lease.Held) error {
		s.run, s.held = r, h
		s.follow(h.Head)
		s.seen.Store(h.Head.FrameCount)
		err := s.driveSafely(ctx)
		if !s.released && (pg.Outage(err) || errors.Is(err, runlog.ErrUnknown)) {
			s.outlast(ctx)
		}
		if ctx.Err() != nil && !errors.Is(context.Cause(ctx), lease.ErrLost) && !s.released {
			if late := s.handOver(ctx); late != nil {
				slog.WarnContext(ctx, "a run was not handed over; its lease is given back without a word", "run_id", r.RunID, "error", late.Error())
			}
		}
		return err
	})
	switch {
	case errors.Is(err, lease.ErrHeld):
		return nil
	case errors.Is(err, lease.ErrLost):
		e.failures.WithLabelValues(causeOf(err)).Inc()
		return nil
	}
	s.afterRun(ctx)
	return err
}

// contain makes an error of a panic.
func (e *Executor) contain(err *error) {
	if p := recover(); p != nil {
		e.panics.Inc()
		*err = fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
	}
}

// Package janitor calls named sweeps on a schedule.
package janitor

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Sweep is one thing to be done again and again. Every process does it, so
// Once is safe to run in several at once.
type Sweep struct {
	Name string
	// Every is about how long after one pass the next begins.
	Every time.Duration
	// Once makes one pass and says how many things it changed.
	Once func(context.Context) (int64, error)
}

// Janitor makes the passes of a process.
type Janitor struct {
	sweeps  []Sweep
	seconds prometheus.ObserverVec
	passes  *prometheus.CounterVec
	changed *prometheus.CounterVec
}

// New makes a janitor. Its metrics are registered with m, so a process makes one.
func New(m *telemetry.Metrics, sweeps ...Sweep) *Janitor {
	j := &Janitor{
		sweeps:  sweeps,
		seconds: m.Seconds(telemetry.SweepSeconds),
		passes:  m.Counter(telemetry.SweepPasses),
		changed: m.Counter(telemetry.SweepChanges),
	}
	// A sweep that has not made a pass yet is seen as such, and not missed.
	for _, s := range sweeps {
		j.seconds.With(prometheus.Labels{string(telemetry.Sweep): s.Name})
		j.changed.WithLabelValues(s.Name)
		for _, outcome := range []string{"ok", "error", "panic"} {
			j.passes.WithLabelValues(s.Name, outcome)
		}
	}
	return j
}

// soon is the longest that a first pass waits: what should be there before the
// work begins is there soon, and processes that start together do not sweep
// together.
const soon = 2 * time.Second

// Run sweeps until ctx ends. One sweep that fails, panics or takes long does not
// keep the others from theirs.
func (j *Janitor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range j.sweeps {
		wg.Go(func() { j.repeat(ctx, s) })
	}
	wg.Wait()
	return nil
}

func (j *Janitor) repeat(ctx context.Context, s Sweep) {
	t := time.NewTimer(rand.N(min(s.Every, soon)))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := j.Once(ctx, s); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "a sweep failed", "sweep", s.Name, "error", err.Error())
		}
		// A tenth more or less keeps processes apart.
		t.Reset(s.Every*9/10 + rand.N(s.Every/5+1))
	}
}

// Once makes one pass of a sweep and counts it.
func (j *Janitor) Once(ctx context.Context, s Sweep) (err error) {
	begun, n, outcome := time.Now(), int64(0), "ok"
	defer func() {
		switch p := recover(); {
		case p != nil:
			outcome, err = "panic", fmt.Errorf("%v\n%s", p, debug.Stack())
		case err != nil:
			outcome = "error"
		}
		j.seconds.With(prometheus.Labels{string(telemetry.Sweep): s.Name}).Observe(time.Since(begun).Seconds())
		j.passes.WithLabelValues(s.Name, outcome).Inc()
		j.changed.WithLabelValues(s.Name).Add(float64(n))
	}()
	n, err = s.Once(ctx)
	return err
}

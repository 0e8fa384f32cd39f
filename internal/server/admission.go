package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// AdmissionConfig bounds what is let in. Zero turns a bound off.
type AdmissionConfig struct {
	// MaxWaitingFrames is how many unanswered frames a run may have.
	MaxWaitingFrames int
	// MaxRunsPerOwner is how many runs of one owner may be at work.
	MaxRunsPerOwner int
	// MaxInFlight is how many requests that bring work are handled at once at the
	// most. The service takes fewer while they would only wait for each other.
	MaxInFlight int
	// OverdueRuns is how many runs may wait for an executor longer than MaxWait.
	OverdueRuns int
	MaxWait     time.Duration
	// MaxQueue is how full the appender's queue may be, from 0 to 1.
	MaxQueue float64
	// MaxConnWait is how long requests may wait for a connection, on average.
	MaxConnWait time.Duration
}

// DefaultAdmission is what a small machine can take.
func DefaultAdmission() AdmissionConfig {
	return AdmissionConfig{
		MaxWaitingFrames: 100, MaxInFlight: 512, OverdueRuns: 16, MaxWait: 10 * time.Second,
		MaxQueue: 0.5, MaxConnWait: 250 * time.Millisecond,
	}
}

// Validate reports a bound that cannot work.
func (c AdmissionConfig) Validate() error {
	if c.MaxWaitingFrames < 0 || c.MaxRunsPerOwner < 0 || c.MaxInFlight < 0 || c.OverdueRuns < 0 ||
		c.MaxWait < 0 || c.MaxQueue < 0 || c.MaxQueue > 1 || c.MaxConnWait < 0 {
		return errors.New("admission: a bound is negative, or the share of the queue above 1")
	}
	return nil
}

// Admission refuses work that the service cannot take now, so that what it has
// taken stays fast. It decides by what a tick has found out and by counts of
// this process: a request costs no query. Reads and cancels are never refused.
type Admission struct {
	config AdmissionConfig
	pool   *pgxpool.Pool // of the tick
	served *pgxpool.Pool // of the requests
	log    *runlog.Appender

	inFlight atomic.Int64           // requests that bring work, those included whose body is still to come
	limiter  *limiter               // of those that have come; nil bounds nothing
	asked    atomic.Bool            // since the last tick
	behind   atomic.Pointer[reason] // what the tick found; nil is well
	refused  *prometheus.CounterVec

	waits struct { // the serving pool's, at the last tick
		acquires int64
		waited   time.Duration
	}

	mu     sync.Mutex
	owners map[run.Owner]int // runs at work, as far as this process knows
	bring  map[run.Owner]int // requests in flight that bring work
}

// reason is why work is refused: a word for the metric, and a sentence.
type reason struct{ word, sentence string }

var (
	tooManyInFlight = &reason{"in_flight", "this process handles as many requests as it can"}
	queueIsFull     = &reason{"queue", "too many writes wait for the log"}
	runsAreOverdue  = &reason{"overdue", "runs wait too long for an executor"}
	connsAreScarce  = &reason{"connections", "requests wait too long for the database"}
)

// NewAdmission makes an admission for requests that are served from a pool and
// written by an appender. The tick asks through a pool of its own.
func NewAdmission(c AdmissionConfig, tick, served *pgxpool.Pool, log *runlog.Appender, m *telemetry.Metrics) *Admission {
	a := &Admission{config: c, pool: tick, served: served, log: log, refused: m.Counter(telemetry.AdmissionRefusals)}
	if c.MaxInFlight > 0 {
		a.limiter = newLimiter(c.MaxInFlight)
	}
	return a
}

// admissionTick is how old what a decision is based on may be.
const admissionTick = time.Second

// Run looks once a second, until ctx ends.
func (a *Admission) Run(ctx context.Context) error {
	t := time.NewTicker(admissionTick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := a.Once(ctx); err != nil && ctx.Err() == nil {
				slog.WarnContext(ctx, "the admission could not look at the backlog", "error", err.Error())
			}
		}
	}
}

// Once finds out how far the service is behind. While nobody brings work it
// asks nothing.
func (a *Admission) Once(ctx context.Context) error {
	if !a.asked.Swap(false) && a.behind.Load() == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, admissionTick)
	defer stop()
	scarce := a.connsScarce()
	overdue := 0
	if a.config.OverdueRuns > 0 && a.config.MaxWait > 0 {
		var err error
		if overdue, err = run.Overdue(ctx, a.pool, a.config.MaxWait, a.config.OverdueRuns); err != nil {
			return err
		}
	}
	switch {
	case scarce:
		a.behind.Store(connsAreScarce)
	case a.config.OverdueRuns > 0 && overdue >= a.config.OverdueRuns:
		a.behind.Store(runsAreOverdue)
	default:
		a.behind.Store(nil)
	}
	if a.config.MaxRunsPerOwner == 0 {
		return nil
	}
	owners, err := run.AtWorkByOwner(ctx, a.pool)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owners = owners
	return nil
}

// connsScarce says whether requests have waited long for connections since the
// last tick.
func (a *Admission) connsScarce() bool {
	s := a.served.Stat()
	acquires, waited := s.AcquireCount()-a.waits.acquires, s.EmptyAcquireWaitTime()-a.waits.waited
	a.waits.acquires, a.waits.waited = s.AcquireCount(), s.EmptyAcquireWaitTime()
	return a.config.MaxConnWait > 0 && acquires > 0 && waited/time.Duration(acquires) > a.config.MaxConnWait
}

// bringsWork are the operations that may be refused.
var bringsWork = map[string]bool{"startRun": true, "appendFrame": true, "executeTool": true}

// enter lets a request in, or refuses it with overloaded. leave is called when
// it has been answered.
func (a *Admission) enter(operation string) (leave func(), err error) {
	if a == nil || !bringsWork[operation] {
		return func() {}, nil
	}
	a.asked.Store(true)
	why := a.behind.Load()
	if why == nil && a.config.MaxQueue > 0 && a.log.Load() > a.config.MaxQueue {
		why = queueIsFull
	}
	if why == nil && a.limiter != nil && a.limiter.full() {
		why = tooManyInFlight
	}
	if n := a.inFlight.Add(1); why == nil && a.config.MaxInFlight > 0 && n > int64(a.config.MaxInFlight) {
		why = tooManyInFlight
	}
	if why != nil {
		a.inFlight.Add(-1)
		return nil, a.overloaded(why)
	}
	return func() { a.inFlight.Add(-1) }, nil
}

func (a *Admission) overloaded(why *reason) error {
	a.refused.WithLabelValues(why.word).Inc()
	return fault.New(api.Overloaded, "the service is behind its work: %s; send the request again later", why.sentence)
}

// place lets in a request whose body is there, or refuses it with overloaded,
// or with owner_busy when the owner that it claims has its share already: the
// caller is still to be checked, which costs more. worked is called when the
// caller is known to be who it says, leave when the request has been answered.
func (a *Admission) place(operation string, claimed run.Owner) (worked, leave func(), err error) {
	if a == nil || !bringsWork[operation] || a.limiter == nil {
		return func() {}, func() {}, nil
	}
	if err := a.ownerFull(claimed); err != nil {
		return nil, nil, err
	}
	if !a.limiter.enter() {
		return nil, nil, a.overloaded(tooManyInFlight)
	}
	var begun time.Time
	return func() { begun = time.Now() }, func() {
		now := time.Now()
		took := time.Duration(0)
		if !begun.IsZero() {
			took = now.Sub(begun)
		}
		a.limiter.leave(took, now)
	}, nil
}

// ownerFull refuses an owner who has half of what may be in flight.
func (a *Admission) ownerFull(owner run.Owner) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ownerFullLocked(owner)
}

func (a *Admission) ownerFullLocked(owner run.Owner) error {
	most := a.limiter.half()
	if a.bring[owner] < most {
		return nil
	}
	a.refused.WithLabelValues("owner_in_flight").Inc()
	return fault.New(api.OwnerBusy, "%d requests of this owner are being handled; send the next when some are answered", most).
		With("running", most).With("maxRunning", most)
}

// share lets an owner's request in, or refuses it when the owner has half of
// what may be in flight: whoever ignores Retry-After leaves room for the others.
// leave is called when it has been answered.
func (a *Admission) share(operation string, owner run.Owner) (leave func(), err error) {
	if a == nil || !bringsWork[operation] || a.limiter == nil {
		return func() {}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.ownerFullLocked(owner); err != nil {
		return nil, err
	}
	if a.bring == nil {
		a.bring = map[run.Owner]int{}
	}
	a.bring[owner]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.bring[owner]--; a.bring[owner] == 0 {
			delete(a.bring, owner)
		}
	}, nil
}

// newRun refuses a run of an owner who has too many at work. One that was
// started before is let through.
func (a *Admission) newRun(ctx context.Context, q db.DBTX, e run.Envelope) error {
	if a == nil {
		return nil
	}
	refusal := a.ownerBusy(e.Owner())
	if refusal == nil {
		return nil
	}
	if _, err := run.Get(ctx, q, e.Owner(), e.RunID); err == nil {
		return nil
	}
	a.refused.WithLabelValues("owner").Inc()
	return refusal
}

// frame adds to a frame what may refuse it. Call accepted when it is in the log.
func (a *Admission) frame(f *run.Frame, owner run.Owner) (accepted func()) {
	if a == nil {
		return func() {}
	}
	begins := false
	f.Admit = func(h runlog.Head) error {
		waiting := h.FrameCount - h.FramePosition
		begins = waiting == 0
		if most := int64(a.config.MaxWaitingFrames); most > 0 && waiting >= most {
			a.refused.WithLabelValues("frames").Inc()
			return fault.New(api.TooManyFrames, "the run has %d unanswered frames; send the next when some are answered", waiting).
				With("waiting", waiting).With("maxWaiting", most)
		}
		if !begins {
			return nil
		}
		if err := a.ownerBusy(owner); err != nil {
			a.refused.WithLabelValues("owner").Inc()
			return err
		}
		return nil
	}
	return func() {
		if begins {
			a.began(owner)
		}
	}
}

func (a *Admission) ownerBusy(owner run.Owner) error {
	most := a.config.MaxRunsPerOwner
	if most == 0 {
		return nil
	}
	a.mu.Lock()
	n := a.owners[owner]
	a.mu.Unlock()
	if n < most {
		return nil
	}
	return fault.New(api.OwnerBusy, "%d runs of this owner are at work; start another when one is done", n).
		With("running", n).With("maxRunning", most)
}

// began counts a run that is at work since the last tick.
func (a *Admission) began(owner run.Owner) {
	if a.config.MaxRunsPerOwner == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.owners == nil {
		a.owners = map[run.Owner]int{}
	}
	a.owners[owner]++
}

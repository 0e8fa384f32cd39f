package tool

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sony/gobreaker/v2"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Config bounds what a process's runner does; zero values are the defaults.
type Config struct {
	// Global, PerOwner, PerProvider and PerRun are how many calls are made at
	// once: 512, 64, 128 and, for runs that do not say, 8.
	Global, PerOwner, PerProvider, PerRun int
	// Attempts is how many are made at a safe_retry call: 3.
	Attempts int
	// FirstWait is about how long the second attempt waits, 200 ms; the third
	// waits twice as long.
	FirstWait time.Duration
	// Grace is how long a tool may take to return after its context has ended: 2 s.
	Grace time.Duration
	// MaxOutput bounds the stored output of tools that do not say, in bytes: 64 KiB.
	MaxOutput int
	// BreakerFailures in a row make a breaker open, 5, for BreakerOpen, 30 s.
	BreakerFailures int
	BreakerOpen     time.Duration
}

const (
	mostOutput  = 1 << 20  // stored, whatever a tool says
	mostAnswer  = 16 << 20 // taken from a tool
	reconciling = 10 * time.Second
)

func (c Config) orDefaults() Config {
	c.Global, c.PerOwner = cmp.Or(c.Global, 512), cmp.Or(c.PerOwner, 64)
	c.PerProvider, c.PerRun = cmp.Or(c.PerProvider, 128), cmp.Or(c.PerRun, 8)
	c.Attempts, c.FirstWait = cmp.Or(c.Attempts, 3), cmp.Or(c.FirstWait, 200*time.Millisecond)
	c.Grace, c.MaxOutput = cmp.Or(c.Grace, 2*time.Second), cmp.Or(c.MaxOutput, 64<<10)
	c.BreakerFailures, c.BreakerOpen = cmp.Or(c.BreakerFailures, 5), cmp.Or(c.BreakerOpen, 30*time.Second)
	return c
}

// Runner makes attempts at calls. It knows no database: what happens is told by
// its answers. A process has one.
type Runner struct {
	c        Config
	catalog  *Catalog
	limits   *limits
	breakers *breakers

	calls, attempts, abandoned, full *prometheus.CounterVec
	seconds                          *prometheus.HistogramVec
	running                          prometheus.Gauge
	late                             prometheus.Counter
}

// NewRunner makes a runner of a catalog's tools. Its metrics are registered with
// m, so a process makes one.
func NewRunner(c Config, catalog *Catalog, m *telemetry.Metrics) *Runner {
	c = c.orDefaults()
	return &Runner{
		c: c, catalog: catalog, limits: newLimits(),
		breakers: &breakers{failures: c.BreakerFailures, rest: c.BreakerOpen, state: m.Gauge(telemetry.ToolBreaker),
			of: map[string]*gobreaker.CircuitBreaker[Result]{}},
		calls: m.Counter(telemetry.ToolCalls), attempts: m.Counter(telemetry.ToolAttempts),
		abandoned: m.Counter(telemetry.ToolAbandoned), full: m.Counter(telemetry.ToolFull),
		seconds: m.Seconds(telemetry.ToolSeconds), running: m.Gauge(telemetry.ToolRunning).WithLabelValues(),
		late: m.Counter(telemetry.ToolLate).WithLabelValues(),
	}
}

// Acquire takes a place for a call within the limits of its run (perRun; 0 is the
// default), owner, tool, provider and process, or says that there is none. It
// never waits. release may be called more than once.
func (r *Runner) Acquire(runKey uuid.UUID, owner string, s Spec, perRun int) (release func(), ok bool) {
	if s.Kind == Client {
		return func() {}, true // the caller of the API does the work
	}
	release, full := r.limits.take(
		place{"run", runKey.String(), cmp.Or(perRun, r.c.PerRun)}, place{"owner", owner, r.c.PerOwner},
		place{"tool", s.Name, s.Parallel}, place{"provider", s.Provider, r.c.PerProvider}, place{"global", "", r.c.Global})
	if full != "" {
		r.full.WithLabelValues(full).Inc()
		return nil, false
	}
	return release, true
}

// Freed is a channel that is closed when a place becomes free. Take it before
// Acquire, and wait for it when there was no room: a place that becomes free in
// between is not missed then.
func (r *Runner) Freed() <-chan struct{} { return r.limits.next() }

// Breakers are the states of the providers' circuit breakers in this process:
// closed, half_open or open. A provider that was not asked yet is not among them;
// it counts as closed.
func (r *Runner) Breakers() map[string]string { return r.breakers.states() }

// CountLate counts a result that changed nothing.
func (r *Runner) CountLate() { r.late.Inc() }

// Do makes a call: attempts within the tool's timeout, again when the tool is
// safe to retry and says so, through the provider's breaker, then the fallback.
// It returns soon after ctx has ended, whatever the tool does. progress gets what
// there is to show, redacted and bounded and not too often, from the goroutine of
// Do.
func (r *Runner) Do(ctx context.Context, call Call, spec Spec, progress func(json.RawMessage) error) Outcome {
	began := time.Now()
	r.running.Inc()
	defer r.running.Dec()
	m := newMeter(progress)
	var o Outcome
	if e := r.catalog.entry(spec.Name); e == nil || e.tool == nil {
		o = Outcome{State: Failed, Err: notFound(spec.Name), Provider: spec.Provider}
	} else if o = r.primary(ctx, call, e, m); o.Err != nil {
		o = r.fallback(ctx, call, e, o, m)
	}
	o.Latency = time.Since(began)
	r.seconds.WithLabelValues(spec.Provider).Observe(o.Latency.Seconds())
	r.calls.WithLabelValues(spec.Provider, o.State).Inc()
	return o
}

// primary calls a tool, and asks what became of a call whose outcome is not known
// when it must not be made again.
func (r *Runner) primary(ctx context.Context, call Call, e *entry, m *meter) Outcome {
	tries := 1
	if e.spec.Boundary == SafeRetry {
		tries = r.c.Attempts
	}
	o := r.try(ctx, call, e, m, tries)
	if o.Err == nil || !o.Err.Unknown || e.spec.Boundary != Reconcile || o.State == Canceled {
		return o
	}
	if found, known := r.reconcile(ctx, call, e); known {
		found.Attempts = o.Attempts
		return found
	}
	o.Err.Message = "It is not known whether the call had its effect: " + o.Err.Message
	o.Err.Class, o.Err.ReasonCode, o.Err.Retryable = ClassOutcomeUnknown, reasonUnknown, false
	return o
}

// try makes up to so many attempts.
func (r *Runner) try(ctx context.Context, call Call, e *entry, m *meter, tries int) Outcome {
	var (
		made  int
		first = max(call.Attempt, 1)
		last  failure
		spent Result // the last attempt's, whatever came of it
	)
	res, err := backoff.Retry(ctx, func() (Result, error) {
		if ctx.Err() != nil {
			last.state, last.err = ended(ctx)
			return Result{}, backoff.Permanent(last.err)
		}
		last = failure{state: Failed}
		res, failed := r.breakers.call(e.spec.Provider, func() (Result, *Error) {
			call.Attempt = first + made
			made++
			res, f := r.attempt(ctx, call, e, m)
			spent = res
			if f == nil {
				return res, nil
			}
			last = *f
			return res, f.err
		})
		if last.err = failed; failed == nil {
			return res, nil
		}
		switch {
		case !failed.Retryable || last.state != Failed:
			return res, backoff.Permanent(failed)
		case failed.RetryAfter > 0:
			return res, &backoff.RetryAfterError{Duration: failed.RetryAfter}
		}
		return res, failed
	}, backoff.WithMaxTries(uint(tries)), backoff.WithBackOff(&backoff.ExponentialBackOff{
		InitialInterval: r.c.FirstWait, RandomizationFactor: .5, Multiplier: 2, MaxInterval: 10 * r.c.FirstWait,
	}), backoff.WithMaxElapsedTime(patience(ctx, e.spec, tries)))
	o := outcomeOf(e, spent)
	o.Attempts = made
	switch {
	case err == nil:
		return r.settle(o, e, res.Output)
	case ctx.Err() != nil && last.state == Failed: // while it waited for the next attempt
		o.State, o.Err = ended(ctx)
	default:
		o.State, o.Err = last.state, last.err
	}
	return o
}

// outcomeOf is what an answer says of its provider and its money.
func outcomeOf(e *entry, res Result) Outcome {
	return Outcome{Provider: e.spec.Provider, CorrelationID: res.CorrelationID, Paid: res.Paid, PaidSats: res.PaidSats, Proof: res.Proof}
}

// patience is how long all attempts together may take: as long as each may, and
// not beyond the caller's deadline.
func patience(ctx context.Context, s Spec, tries int) time.Duration {
	all := time.Duration(tries) * s.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		all = max(1, min(all, time.Until(deadline)))
	}
	return all
}

// settle makes the outcome of an answer: whole hash, schema, redaction, bound.
func (r *Runner) settle(o Outcome, e *entry, output json.RawMessage) Outcome {
	invalid := func(err *Error) Outcome {
		o.State, o.Err = Failed, err
		o.Err.ReasonCode = cmp.Or(o.Err.ReasonCode, reasonProvider)
		o.Err.Message = "The call was made. " + o.Err.Message
		return o
	}
	if len(output) > mostAnswer {
		return invalid(&Error{Class: ClassOutput, Message: "Its answer has more than 16 MiB."})
	}
	whole, err := canonical(output)
	if err != nil {
		return invalid(&Error{Class: ClassOutput, Message: "Its answer is no JSON value."})
	}
	o.OutputHash = canon.Hash(whole)
	if wrong := e.checkOutput(whole); wrong != nil {
		return invalid(wrong)
	}
	limit := min(cmp.Or(e.spec.MaxOutput, r.c.MaxOutput), mostOutput)
	if o.Output, o.Truncated, err = shown(whole, limit); err != nil {
		return invalid(&Error{Class: ClassOutput, Message: "Its answer cannot be stored."})
	}
	o.State = Succeeded
	return o
}

// fallback asks another tool when this one's provider failed: if the caller said
// that policy lets it, the input fits, there is room, and the first call is known
// to have had no effect or may be made twice.
func (r *Runner) fallback(ctx context.Context, call Call, e *entry, o Outcome, m *meter) Outcome {
	blamed := o.Err.ProviderFault || o.Err.Class == ClassCircuitOpen
	other := r.catalog.entry(e.spec.Fallback)
	if !call.MayFallBack || !blamed || o.Err.Unknown || other == nil || other.tool == nil || ctx.Err() != nil ||
		other.checkInput(call.Input) != nil {
		return o
	}
	release, full := r.limits.take(place{"tool", other.spec.Name, other.spec.Parallel},
		place{"provider", other.spec.Provider, r.c.PerProvider})
	if full != "" {
		return o
	}
	defer release()
	call.Tool, call.Attempt = other.spec.Name, max(call.Attempt, 1)+o.Attempts
	second := r.primary(ctx, call, other, m)
	if second.Attempts == 0 { // its provider rests too: nobody was asked
		return o
	}
	second.PrimaryProvider, second.FallbackReason = e.spec.Provider, o.Err.Class
	second.Attempts += o.Attempts
	return second
}

// Reconcile asks a tool's provider what became of an earlier attempt. known is
// false when the tool cannot ask or the provider cannot tell.
func (r *Runner) Reconcile(ctx context.Context, call Call, spec Spec) (o Outcome, known bool) {
	e := r.catalog.entry(spec.Name)
	if e == nil || e.tool == nil {
		return Outcome{}, false
	}
	began := time.Now()
	o, known = r.reconcile(ctx, call, e)
	o.Latency = time.Since(began)
	return o, known
}

func (r *Runner) reconcile(ctx context.Context, call Call, e *entry) (Outcome, bool) {
	asker, able := e.tool.(Reconciler)
	if !able {
		return Outcome{}, false
	}
	within, stop := context.WithTimeout(ctx, reconciling)
	defer stop()
	found := make(chan answer, 1)
	known := false // read once found has answered
	go func() {
		found <- contained(e.spec.Name, func() (res Result, err error) {
			res, known, err = asker.Reconcile(within, call)
			return res, err
		})
	}()
	var a answer
	select {
	case a = <-found:
	case <-within.Done():
		return Outcome{}, false
	}
	o := outcomeOf(e, a.res)
	switch told := (*Error)(nil); {
	case !known:
		return Outcome{}, false
	case a.err == nil:
		return r.settle(o, e, a.res.Output), true
	case errors.As(a.err, &told):
		copied := *told
		o.State, o.Err = Failed, &copied
	default:
		o.State, o.Err = Failed, &Error{Class: ClassFailed, Message: a.err.Error()}
	}
	return o, true
}

// Delivered is the outcome that a client tool's result says, treated as that of
// any other tool. errorText, when it is not empty, says that the call failed.
func (r *Runner) Delivered(v View, t db.ToolTask, frameID string, output json.RawMessage, errorText string) Outcome {
	o := Outcome{Provider: clientProvider}
	e := v.entries[t.ToolName]
	if e == nil {
		e = &entry{spec: Spec{Name: t.ToolName}}
	}
	if errorText != "" {
		o.State, o.Err = Failed, &Error{Class: ClassClient, Message: errorText}
	} else {
		o = r.settle(o, e, output)
	}
	o.FrameID, o.Latency = frameID, age(t)
	r.calls.WithLabelValues(clientProvider, o.State).Inc()
	return o
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

const (
	runsPerTrial = 6
	// leeway is what a trial may take after its fault is over, beside the work.
	leeway = 30 * time.Second
)

// world is what all trials share.
type world struct {
	binary   string
	ttl      time.Duration
	provider *provider
	tools    *toolServer
	db       *database
}

// bound is the latest takeover after a loss: a lease that was just renewed, a
// heartbeat and a tick of the one who takes over, and a second.
func (w *world) bound() time.Duration { return w.ttl + w.ttl/3 + time.Second + time.Second }

// watchStalls commits something small again and again, as a heartbeat does, and
// answers when asked with the longest pause between two commits, and stops.
func (w *world) watchStalls(ctx context.Context) func() time.Duration {
	ctx, stop := context.WithCancel(ctx)
	longest := make(chan time.Duration)
	go func() {
		worst, last := time.Duration(0), time.Now()
		for pause(ctx, 20*time.Millisecond) == nil {
			// A database that is down is a stall like any other.
			_, _ = w.db.pool.Exec(ctx, "SELECT pg_logical_emit_message(true, 'crashtest', '')")
			worst, last = max(worst, time.Since(last)), time.Now()
		}
		longest <- worst
	}()
	return func() time.Duration {
		stop()
		return <-longest
	}
}

// fleet is the processes that clients may ask.
type fleet struct {
	mu    sync.Mutex
	all   []*process
	first *process // asked first, when set
	// poisoned is how many processes a poisoned frame has killed.
	poisoned int
}

func (f *fleet) add(p *process) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, p)
}

func (f *fleet) living() []*process {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*process
	for _, p := range f.all {
		if p.alive() {
			out = append(out, p)
		}
	}
	return out
}

// pick is a process to ask: the first one when that is wanted and it lives,
// else any.
func (f *fleet) pick(rng *rand.Rand, first bool) string {
	if first && f.first != nil && f.first.alive() {
		return f.first.api
	}
	living := f.living()
	if len(living) == 0 {
		return "http://127.0.0.1:1" // nobody answers there
	}
	return living[rng.IntN(len(living))].api
}

// end kills every process.
func (f *fleet) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.all {
		p.end()
	}
}

// loss is a lease whose holder was hurt.
type loss struct {
	epoch   int64
	expires time.Time // as it stood after the holder was hurt
	at      time.Time // when it was hurt
}

// trial is one fault and the runs that it meets.
type trial struct {
	w      *world
	fault  fault
	rng    *rand.Rand // of the trial's own goroutine
	fleet  *fleet
	victim *process
	other  *process
	runs   []*client
	losses map[string]loss // by run id
	rig    *rigged         // what was done to the database, if anything
	// notified counts the notifications that were hurt, rudeness the streams
	// that were left in the middle.
	notified *atomic.Int64
	started  sync.WaitGroup // by clients, whose first frames wait for all of them
	rudeness atomic.Int64
	// sent counts the clients that have sent all they send by themselves; answers
	// is closed when they may bring results of tools and decide.
	sent    atomic.Int64
	answers chan struct{}
	// over is when a fault was over that no single loss can be timed by.
	over time.Time
	// woken is when a stopped victim was continued.
	woken time.Time
	// stall is the longest that a commit of ours took meanwhile, when the fault
	// was not the database's own.
	stall   time.Duration
	excused []string
}

// client is the caller of one run, and what it remembers.
type client struct {
	runID    string
	keepOpen bool
	// canceler sends a cancel at a random moment, poisoned a frame that kills
	// whoever executes it, and of many senders each sends every frame.
	canceler, poisoned, many bool
	rng                      *rand.Rand
	tools                    []string // that its frames are answered with
	accepted                 []string // frame ids that were acknowledged
	refused                  []string // frame ids that came after the run's end
	stream                   *follower
	err                      error
}

// result is what came of a trial.
type result struct {
	missed     bool // the fault met nobody
	runs, met  int  // of the trial, and those among them whom the fault met
	takeovers  []time.Duration
	violations []string
	logs       []string // of the runs that are not as they should be
	lateCalls  int
	excused    []string // what was late on a machine that stood still
}

// conduct runs one trial: processes, clients, fault, end, audit.
func conduct(ctx context.Context, w *world, f fault, seed uint64) (res result, err error) {
	w = w.of(f)
	t := &trial{w: w, fault: f, rng: rand.New(rand.NewPCG(seed, 1)), fleet: &fleet{}, losses: map[string]loss{}, answers: make(chan struct{})}
	if !f.unanswered {
		close(t.answers)
	}
	defer func() { err = errors.Join(err, t.clean()) }()
	if err := t.prepare(ctx); err != nil {
		return res, err
	}
	if err := t.launchVictim(ctx); err != nil {
		return res, err
	}
	// The victim gets nearly every run when the others come after the clients.
	if early := f.spread || !f.hoard && t.rng.IntN(2) == 0; early {
		if err := t.launchOthers(ctx); err != nil {
			return res, err
		}
	}
	working, stop := context.WithCancel(ctx)
	defer stop()
	stalls := t.w.watchStalls(ctx)
	var wg sync.WaitGroup
	for n := range f.size() {
		c := &client{runID: uuid.NewString(), rng: rand.New(rand.NewPCG(t.rng.Uint64(), 2))}
		c.canceler, c.many, c.poisoned, c.tools = f.canceled, f.senders, f.poison && n == 0, f.tools
		c.keepOpen = (c.rng.IntN(3) == 0 || c.many) && !c.poisoned
		c.stream = &follower{runID: c.runID, fleet: t.fleet, rng: rand.New(rand.NewPCG(t.rng.Uint64(), 3)), steps: make(chan struct{}, 1000), wanted: make(chan want, 1000), over: make(chan struct{})}
		t.runs = append(t.runs, c)
		t.started.Add(1)
		wg.Go(func() { c.err = t.send(working, c) })
		wg.Go(func() { c.stream.follow(working) })
	}
	if t.other == nil {
		err = t.launchOthers(ctx)
	}
	if err == nil {
		err = f.strike(ctx, t)
	}
	missed := errors.Is(err, errMissed) || err == nil && f.takeovers == timed && !f.idle && len(t.losses) == 0
	if err != nil && !missed {
		stop()
		wg.Wait()
		stalls()
		return res, fmt.Errorf("%s: %w", f.name, err)
	}
	late := time.AfterFunc(leeway, stop)
	wg.Wait()
	late.Stop()
	missed = missed || f.rude && t.rudeness.Load() < 3
	if f.proof != nil && !missed {
		proved, err := f.proof(ctx, t)
		if err != nil {
			return res, err
		}
		missed = !proved
	}
	t.stall = t.stoodStill()
	if stall := stalls(); f.takeovers != loose {
		t.stall = max(t.stall, stall)
	}
	res, err = t.audit(ctx)
	if len(res.violations) > 0 {
		res.logs = append(res.logs, t.fleet.complaints()...)
	}
	res.missed, res.runs, res.met = missed, len(t.runs), len(t.runs)
	if f.takeovers == timed {
		res.met = max(1, len(t.losses)) // one that held nothing was hurt all the same
	}
	return res, err
}

func (t *trial) launchVictim(ctx context.Context) (err error) {
	var env []string
	if t.fault.env != nil {
		env = t.fault.env(t.rng)
	}
	if t.victim, err = launch(ctx, t.w, "victim", env...); err != nil {
		return err
	}
	t.fleet.add(t.victim)
	if t.fault.viaVictim {
		t.fleet.first = t.victim
	}
	return nil
}

// launchOthers starts one more process, or two.
func (t *trial) launchOthers(ctx context.Context) error {
	others := 1 + t.rng.IntN(2)
	if t.fault.others > 0 {
		others = t.fault.others
	}
	for n := range others {
		var env []string
		if t.fault.otherEnv != nil && n == 0 {
			env = t.fault.otherEnv(t.rng)
		}
		p, err := launch(ctx, t.w, fmt.Sprintf("other %d", n+1), env...)
		if err != nil {
			return err
		}
		t.other = p
		t.fleet.add(p)
	}
	return nil
}

// replace starts another process where one has died, half the time.
func (t *trial) replace(ctx context.Context) error {
	if t.rng.IntN(2) == 0 {
		return nil
	}
	return t.add(ctx)
}

// add starts one more process.
func (t *trial) add(ctx context.Context) error {
	p, err := launch(ctx, t.w, "replacement")
	if err != nil {
		return err
	}
	t.fleet.add(p)
	return nil
}

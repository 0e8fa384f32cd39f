// Package loop sees when a run's frames go round without progress.
package loop

import (
	"errors"
	"fmt"
	"slices"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// Detector names what saw a loop.
type Detector string

// The detectors, in the order in which they are asked.
const (
	// GlobalCircuitBreaker counts frames of tools that brought nothing new, in
	// whatever order. It cannot be turned off, and it is always critical.
	GlobalCircuitBreaker Detector = "global_circuit_breaker"
	// KnownPoll counts polls of a command one after another that found the same.
	KnownPoll Detector = "known_poll_no_progress"
	// PingPong counts two frames that follow one another again and again.
	PingPong Detector = "ping_pong"
	// GenericRepeat counts the same frame one after another.
	GenericRepeat Detector = "generic_repeat"
)

// Level says how far a loop has come.
type Level string

// The levels: after a warning the run goes on, at critical it ends.
const (
	Warning  Level = "warning"
	Critical Level = "critical"
)

// ReasonCode is why a run ends that goes round.
const ReasonCode = "loop_detected.no_progress"

// Config says what counts as a loop.
type Config struct {
	// Window is how many frames are remembered.
	Window int
	// Warning and Critical are the counts at which a detector warns and ends.
	Warning, Critical int
	// Breaker is the count at which the global circuit breaker ends.
	Breaker int
	// Volatile are members of a payload, at any depth, that change from frame to
	// frame and mean nothing.
	Volatile []string
	// Spoken are types of frames that may well be the same, such as a person's
	// "go on": they go round only when the answers are the same too.
	Spoken []string
	// Regular are types of frames that repeat by their nature and never count.
	Regular []string
	// Off are detectors that are not asked.
	Off []Detector
}

// Defaults are the thresholds that suit most runs.
func Defaults() Config {
	return Config{
		Window: 60, Warning: 10, Critical: 20, Breaker: 30,
		Volatile: []string{
			"timestamp", "time", "at", "created_at", "createdAt", "updated_at", "updatedAt", "date",
			"request_id", "requestId", "trace_id", "traceId", "traceparent", "nonce",
			"duration_ms", "durationMs", "latency_ms", "latencyMs", "elapsed_ms", "elapsedMs",
		},
		Spoken:  []string{"user_message"},
		Regular: []string{"tick"},
	}
}

// Validate reports a configuration that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Warning < 1 || c.Critical <= c.Warning || c.Breaker <= c.Critical:
		return errors.New("loop: the counts must grow from warning over critical to breaker")
	case c.Window < c.Breaker+1:
		return errors.New("loop: the window must hold more frames than the breaker counts")
	case slices.Contains(c.Off, GlobalCircuitBreaker):
		return errors.New("loop: the global circuit breaker cannot be turned off")
	}
	return nil
}

// Finding is a loop.
type Finding struct {
	Detector Detector
	Level    Level
	Count    int
	// Reason is a sentence for people.
	Reason string
}

// Window is the newest frames of one run.
type Window struct {
	config  Config
	entries []entry
	warned  map[Detector]bool
}

// entry is one frame, as far as detectors ask.
type entry struct {
	signature canon.Digest
	poll      canon.Digest // of a known poll, otherwise zero
	tool      bool
	spoken    bool
	outcome   string // what was answered; "" is not known yet
	repeats   bool   // whether the window knew its signature already
}

// New makes an empty window.
func New(c Config) *Window { return &Window{config: c, warned: map[Detector]bool{}} }

// Add takes a run's next frame and says whether it goes round. A detector warns
// once for a streak, and is critical from its critical count on. An error says
// that the payload has no canonical form.
func (w *Window) Add(frameType string, payload map[string]any) (*Finding, error) {
	if slices.Contains(w.config.Regular, frameType) {
		return nil, nil
	}
	e, err := w.entryOf(frameType, payload)
	if err != nil {
		return nil, err
	}
	e.repeats = slices.ContainsFunc(w.entries, func(old entry) bool { return old.signature == e.signature })
	w.entries = append(w.entries, e)
	if extra := len(w.entries) - w.config.Window; extra > 0 {
		w.entries = slices.Delete(w.entries, 0, extra)
	}
	var warning *Finding
	for _, d := range w.detectors() {
		f := w.judge(d)
		switch {
		case f == nil:
		case f.Level == Critical:
			return f, nil
		case warning == nil:
			warning = f
		}
	}
	return warning, nil
}

// Answered notes what was answered to the newest frame.
func (w *Window) Answered(text string) {
	if n := len(w.entries); n > 0 && w.entries[n-1].outcome == "" {
		w.entries[n-1].outcome = canon.Hash([]byte(text))
	}
}

// detector counts what it looks for, and says it in words.
type detector struct {
	name  Detector
	count func(*Window) int
	words string
}

var all = []detector{
	{GlobalCircuitBreaker, (*Window).withoutProgress, "the tools have brought nothing new %d times"},
	{KnownPoll, (*Window).polls, "a command was polled and found the same %d times"},
	{PingPong, (*Window).alternations, "two frames follow one another without progress, %d in a row"},
	{GenericRepeat, (*Window).repeats, "the same frame came %d times in a row"},
}

func (w *Window) detectors() []detector {
	return slices.DeleteFunc(slices.Clone(all), func(d detector) bool { return slices.Contains(w.config.Off, d.name) })
}

// judge asks one detector, and remembers whether it has warned of the streak.
func (w *Window) judge(d detector) *Finding {
	n := d.count(w)
	f := &Finding{Detector: d.name, Count: n, Reason: fmt.Sprintf(d.words, n)}
	critical := w.config.Critical
	if d.name == GlobalCircuitBreaker {
		critical = w.config.Breaker
	}
	switch {
	case n >= critical:
		f.Level = Critical
		return f
	case d.name == GlobalCircuitBreaker:
		return nil
	case n < w.config.Warning:
		delete(w.warned, d.name)
		return nil
	case w.warned[d.name]:
		return nil
	}
	w.warned[d.name] = true
	f.Level = Warning
	return f
}

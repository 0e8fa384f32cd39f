package tool

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"
)

// Progress is shown at most so often, and at most so much of it.
const (
	progressEvery = 250 * time.Millisecond
	progressTimes = 64       // of one call
	progressBytes = 16 << 10 // stored, of one
	progressGiven = 1 << 20  // taken from a tool, of one
)

var (
	errOver     = errors.New("the call is over")
	errProgress = errors.New("progress is one JSON value of at most 1 MiB")
)

// meter passes a call's progress on: of what comes too fast the latest counts.
// The tool never waits for it.
type meter struct {
	show func(json.RawMessage) error // of Do's caller
	bell chan struct{}
	next time.Time // from when on something may be shown
	left int

	mu      sync.Mutex
	attempt int // whose progress counts
	latest  json.RawMessage
	broken  error // what show said
}

func newMeter(show func(json.RawMessage) error) *meter {
	return &meter{show: show, bell: make(chan struct{}, 1), left: progressTimes}
}

// open begins an attempt: its progress function, and what silences it.
func (m *meter) open() (progress func(json.RawMessage) error, silence func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attempt++
	mine := m.attempt
	return func(raw json.RawMessage) error { return m.put(mine, raw) }, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.latest = nil
		if m.attempt == mine {
			m.attempt++
		}
	}
}

func (m *meter) put(attempt int, raw json.RawMessage) error {
	if len(raw) > progressGiven || !json.Valid(raw) {
		return errProgress
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.attempt != attempt:
		return errOver
	case m.broken != nil:
		return m.broken
	}
	m.latest = slices.Clone(raw)
	select {
	case m.bell <- struct{}{}:
	default:
	}
	return nil
}

// flush shows the latest. Only Do's goroutine calls it.
func (m *meter) flush() {
	m.mu.Lock()
	raw := m.latest
	m.latest = nil
	m.mu.Unlock()
	if raw == nil || m.left == 0 {
		return
	}
	out, _, err := shown(raw, progressBytes)
	if err == nil {
		m.left--
		err = m.show(out)
	}
	m.next = time.Now().Add(progressEvery)
	if err != nil {
		m.mu.Lock()
		m.broken = err
		m.mu.Unlock()
	}
}

package runlog

import (
	"crypto/rand"
	"sync"

	"github.com/google/uuid"
)

// Watch wakes those who follow logs. A wake-up says only that a log may have
// grown; a lost one costs latency, because followers also look on a tick.
type Watch struct {
	// sender marks the notifications of this process, which need not wake it
	// again.
	sender string

	mu   sync.Mutex
	runs map[uuid.UUID]map[*Subscription]struct{}
	work map[*Subscription]struct{}
}

// Subscription is one follower's bell. C holds at most one wake-up.
type Subscription struct {
	C     chan struct{}
	watch *Watch
	key   uuid.UUID // uuid.Nil for one that follows work

	mu   sync.Mutex
	keys map[uuid.UUID]struct{} // which runs have work, for a subscription to work
}

// NewWatch makes a watch with no followers.
func NewWatch() *Watch {
	return &Watch{sender: rand.Text()[:8], runs: map[uuid.UUID]map[*Subscription]struct{}{}, work: map[*Subscription]struct{}{}}
}

// Run follows one run.
func (w *Watch) Run(key uuid.UUID) *Subscription {
	s := &Subscription{C: make(chan struct{}, 1), watch: w, key: key}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runs[key] == nil {
		w.runs[key] = map[*Subscription]struct{}{}
	}
	w.runs[key][s] = struct{}{}
	return s
}

// Work follows every run that gets something to do, a frame or a cancel; Keys
// tells which.
func (w *Watch) Work() *Subscription {
	s := &Subscription{C: make(chan struct{}, 1), watch: w, keys: map[uuid.UUID]struct{}{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.work[s] = struct{}{}
	return s
}

// Close ends the subscription.
func (s *Subscription) Close() {
	w := s.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.keys != nil {
		delete(w.work, s)
		return
	}
	delete(w.runs[s.key], s)
	if len(w.runs[s.key]) == 0 {
		delete(w.runs, s.key)
	}
}

// Keys are the runs that rang since the last call.
func (s *Subscription) Keys() []uuid.UUID {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]uuid.UUID, 0, len(s.keys))
	for k := range s.keys {
		out = append(out, k)
	}
	clear(s.keys)
	return out
}

func (s *Subscription) ring(keys ...uuid.UUID) {
	if s.keys != nil {
		s.mu.Lock()
		for _, k := range keys {
			s.keys[k] = struct{}{}
		}
		s.mu.Unlock()
	}
	select {
	case s.C <- struct{}{}:
	default:
	}
}

// Wake wakes the followers of runs whose log has grown, and, for those among
// them that have work, the executors.
func (w *Watch) Wake(grown, work []uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range grown {
		for s := range w.runs[k] {
			s.ring()
		}
	}
	if len(work) > 0 {
		for s := range w.work {
			s.ring(work...)
		}
	}
}

// WakeAll wakes everybody, after a gap in the notifications.
func (w *Watch) WakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, subs := range w.runs {
		for s := range subs {
			s.ring()
		}
	}
	for s := range w.work {
		s.ring()
	}
}

// Followed are the runs that somebody follows.
func (w *Watch) Followed() []uuid.UUID {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]uuid.UUID, 0, len(w.runs))
	for k := range w.runs {
		out = append(out, k)
	}
	return out
}

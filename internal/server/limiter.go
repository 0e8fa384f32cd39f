package server

import (
	"sync"
	"time"
)

const (
	// limitCalm is how many requests are handled at once before anything is
	// known of how fast they are.
	limitCalm = 64
	// limitLeast is how many are handled at once however slow they are.
	limitLeast = 8
	// limitSlow is how long a request may take on average before fewer than
	// limitCalm are handled at once.
	limitSlow = 250 * time.Millisecond
	// limitWindow is what one decision is based on.
	limitWindow = 100 * time.Millisecond
	// limitDrift is which part of it a window may add to how fast the service is
	// when it is calm: it may have become slower for good, and this lets it double
	// in ten minutes.
	limitDrift = 10_000
)

// limiter bounds how many requests are handled at once by how long they take.
// While they take little longer than when the service has nothing else to do, it
// lets more in; when they take much longer they wait for each other, which makes
// them slower and not more.
type limiter struct {
	mu       sync.Mutex
	most     int // the bound's own bound
	limit    int
	inFlight int

	calm   time.Duration // how long a request takes when little else is handled
	begun  time.Time     // the window
	took   time.Duration // by all that were answered in the window
	done   int
	filled bool // the limit was reached in the window
}

func newLimiter(most int) *limiter { return &limiter{most: most, limit: min(most, limitCalm)} }

// full says whether the next request would be refused.
func (l *limiter) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inFlight >= l.limit
}

// half is what one of many may have.
func (l *limiter) half() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(1, l.limit/2)
}

// enter takes a place, or says that there is none.
func (l *limiter) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight >= l.limit {
		l.filled = true
		return false
	}
	l.inFlight++
	l.filled = l.filled || 2*l.inFlight > l.limit
	return true
}

// leave gives the place back. took is how long the work took, 0 if there was none.
func (l *limiter) leave(took time.Duration, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	if took > 0 {
		l.took += took
		l.done++
	}
	if l.begun.IsZero() {
		l.begun = now
	}
	if now.Sub(l.begun) < limitWindow || l.done == 0 {
		return
	}
	l.decide(l.took / time.Duration(l.done))
	l.begun, l.took, l.done, l.filled = now, 0, 0, false
}

// decide moves the limit after a window in which requests took so long.
func (l *limiter) decide(mean time.Duration) {
	if l.calm == 0 || mean < l.calm {
		l.calm = mean
	} else {
		l.calm += min(mean-l.calm, l.calm) / limitDrift
	}
	usual := min(l.most, limitCalm)
	switch {
	case mean > limitSlow:
		l.limit = max(min(l.most, limitLeast), l.limit*9/10)
	case l.limit < usual || l.filled && mean < 2*l.calm:
		l.limit = min(l.most, l.limit+1+l.limit/16)
	case mean > 4*l.calm:
		l.limit = max(usual, l.limit*9/10)
	}
}

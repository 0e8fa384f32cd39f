package tool

import "sync"

// place is something that only so many calls may be at once.
type place struct {
	limit string // run, owner, tool, provider or global
	name  string
	most  int // 0 has no bound
}

// limits counts calls. Nobody waits in it: who finds no room asks again when
// there is some.
type limits struct {
	mu      sync.Mutex
	taken   map[[2]string]int
	freed   chan struct{}
	awaited bool
}

func newLimits() *limits {
	return &limits{taken: map[[2]string]int{}, freed: make(chan struct{})}
}

// take takes a place in all of some limits or in none, and says which one is full.
// The answer lets go of them, once however often it is called.
func (l *limits) take(places ...place) (release func(), full string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range places {
		if p.most > 0 && l.taken[[2]string{p.limit, p.name}] >= p.most {
			return nil, p.limit
		}
	}
	for _, p := range places {
		l.taken[[2]string{p.limit, p.name}]++
	}
	return sync.OnceFunc(func() { l.leave(places) }), ""
}

func (l *limits) leave(places []place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range places {
		key := [2]string{p.limit, p.name}
		if l.taken[key]--; l.taken[key] == 0 {
			delete(l.taken, key)
		}
	}
	if l.awaited {
		close(l.freed)
		l.freed, l.awaited = make(chan struct{}), false
	}
}

// next is closed when a place is let go of after this.
func (l *limits) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.awaited = true
	return l.freed
}

// count says how many places of a limit are taken.
func (l *limits) count(limit, name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken[[2]string{limit, name}]
}

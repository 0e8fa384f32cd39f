package loop

import "github.com/openagentsinc/openagents-runtime/internal/canon"

// withoutProgress counts the tools' frames in the window that were known
// before; each that brought something new takes one back, so that a call which
// is new and its "done" which is not are no loop.
func (w *Window) withoutProgress() int {
	n := 0
	for _, e := range w.entries {
		switch {
		case !e.tool:
		case e.repeats:
			n++
		default:
			n--
		}
	}
	return max(0, n)
}

// polls counts the newest frames that are the same known poll.
func (w *Window) polls() int {
	newest := w.entries[len(w.entries)-1]
	if newest.poll == (canon.Digest{}) {
		return 0
	}
	return w.streak(1, func(a, _ entry) bool { return a.poll == newest.poll })
}

// repeats counts the newest frames that are the same.
func (w *Window) repeats() int { return w.streak(1, same) }

// alternations counts the newest frames that are two, one after the other.
func (w *Window) alternations() int {
	n := len(w.entries)
	if n < 2 || w.entries[n-1].signature == w.entries[n-2].signature {
		return 0
	}
	return w.streak(2, same)
}

// streak counts the newest frames of which each fits the one so many before it.
// The first ones, which have none to fit, belong to it.
func (w *Window) streak(distance int, fits func(a, b entry) bool) int {
	n := len(w.entries)
	i := n - 1
	for i-distance >= 0 && fits(w.entries[i-distance], w.entries[i]) {
		i--
	}
	return min(n, n-1-i+distance)
}

// same says whether two frames are the same, and, for those that are spoken,
// whether they were answered alike; an answer that is not there yet may be.
func same(a, b entry) bool {
	if a.signature != b.signature {
		return false
	}
	return !a.spoken || a.outcome == b.outcome || a.outcome == "" || b.outcome == ""
}

package model

import (
	"context"
	"sync"
	"time"
)

// watchdog cancels a context when the stage it watches takes too long. One
// stage is watched at a time; watching the next ends the one before.
type watchdog struct {
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	done  bool
}

// watch starts a stage that may take d; a d of 0 or less is not bounded.
func (w *watchdog) watch(d time.Duration, late *Error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if d > 0 && !w.done {
		w.timer = time.AfterFunc(d, func() { w.cancel(late) })
	}
}

// rest stops watching until the next stage.
func (w *watchdog) rest() { w.watch(0, nil) }

// end stops watching for good; a stage that starts late is ignored.
func (w *watchdog) end() {
	w.mu.Lock()
	w.done = true
	w.mu.Unlock()
	w.rest()
}

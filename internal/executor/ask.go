package executor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
)

// errHung says that a model did not return when it was told to.
var errHung = errors.New("the model call does not end")

// ask makes the call in a goroutine of its own. What was said is in the log when
// it returns. A call that panics fails the session, and so does one that goes on
// long after its context has ended: it is left behind, and heard no more.
func (s *session) ask(ctx context.Context, call *predict.Call, v *voice) (o predict.Outcome, lost, err error) {
	ear := &ear{voice: v}
	answers := make(chan predict.Outcome, 1)
	panics := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				panics <- fmt.Errorf("%w: %v\n%s", errPanic, p, debug.Stack())
			}
		}()
		answers <- s.e.Predict.Run(ctx, call, ear.hear)
	}()
	var late <-chan time.Time
	told := ctx.Done()
	for {
		select {
		case o = <-answers:
			return o, v.close(), nil
		case err := <-panics:
			s.e.panics.Inc()
			return o, v.close(), err
		case <-told:
			told, late = nil, time.After(s.e.Config.HangGrace)
		case <-late:
			ear.shut()
			return o, v.close(), errHung
		}
	}
}

// ear passes on what a model says, until it is shut.
type ear struct {
	voice *voice
	mu    sync.Mutex
	deaf  bool
}

func (e *ear) hear(said model.Event) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.deaf {
		return errHung
	}
	return e.voice.say(said)
}

func (e *ear) shut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deaf = true
}

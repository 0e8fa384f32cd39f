package tool

import (
	"context"
	"sync"
	"time"
)

// clock ends a context when a tool has had its time. While a person is asked it
// stands still.
type clock struct {
	end context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	left  time.Duration // while it stands still
	since time.Time     // it went on
	asked int           // questions that are open
	count int           // that there were
}

// withClock is a context that ends after so long, with the cause
// context.DeadlineExceeded.
func withClock(ctx context.Context, lasts time.Duration) (context.Context, *clock) {
	ctx, end := context.WithCancelCause(ctx)
	c := &clock{end: end, left: lasts, since: time.Now()}
	c.timer = time.AfterFunc(lasts, func() { end(context.DeadlineExceeded) })
	return ctx, c
}

func (c *clock) stop() {
	c.timer.Stop()
	c.end(context.Canceled)
}

// asking is ask with the clock standing still meanwhile, and the questions numbered.
func (c *clock) asking(ask func(context.Context, Question) (Answer, error)) func(context.Context, Question) (Answer, error) {
	return func(ctx context.Context, q Question) (Answer, error) {
		q.Number = c.pause()
		defer c.goOn()
		return ask(ctx, q)
	}
}

// pause stops the clock and returns the number of the question.
func (c *clock) pause() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked++; c.asked == 1 && c.timer.Stop() {
		c.left -= time.Since(c.since)
	}
	c.count++
	return c.count - 1
}

func (c *clock) goOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked--; c.asked == 0 {
		c.since = time.Now()
		c.timer.Reset(max(c.left, time.Millisecond))
	}
}

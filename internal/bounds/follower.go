package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// follower reads a run's stream to its end, through another process whenever
// the stream breaks off, and waits as long as the stream asks for before that.
type follower struct {
	runID string
	pick  func() string

	retry time.Duration // that the stream asks for

	mu       sync.Mutex
	cursor   int64
	arrivals []time.Time // of the blocks
	gaps     []string
	done     bool
}

func (f *follower) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.once(ctx)
		if errors.Is(err, rig.ErrDone) {
			f.mu.Lock()
			f.done = true
			f.mu.Unlock()
			return
		}
		if rig.Pause(ctx, f.retry) != nil {
			return
		}
	}
}

func (f *follower) once(ctx context.Context) error {
	req, err := rig.Request(ctx, http.MethodGet, f.pick(), "/runs/"+f.runID+"/stream", f.runID, nil)
	if err != nil {
		return err
	}
	if f.cursor > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(f.cursor, 10))
	}
	res, err := rig.Wire.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return rig.ReadStream(res.Body, f.take, func(d time.Duration) { f.retry = d })
}

func (f *follower) take(b rig.Block) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.Seq != f.cursor+1 {
		f.gaps = append(f.gaps, fmt.Sprintf("after %d comes %d", f.cursor, b.Seq))
	}
	f.cursor = b.Seq
	f.arrivals = append(f.arrivals, time.Now())
}

// newest is when the last block came; zero before the first.
func (f *follower) newest() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.arrivals) == 0 {
		return time.Time{}
	}
	return f.arrivals[len(f.arrivals)-1]
}

// firstAfter is when the first block after a moment came; zero when none has.
func (f *follower) firstAfter(moment time.Time) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.arrivals {
		if at.After(moment) {
			return at
		}
	}
	return time.Time{}
}

// wrong says what the stream lost or repeated.
func (f *follower) wrong() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case len(f.gaps) > 0:
		return fmt.Errorf("the stream of run %s: %s", f.runID, f.gaps[0])
	case !f.done:
		return fmt.Errorf("the stream of run %s has no [DONE]; it is at %d", f.runID, f.cursor)
	}
	return nil
}

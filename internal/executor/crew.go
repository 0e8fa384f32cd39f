package executor

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// crew is the tool calls that are at work in a session.
type crew struct {
	wg *sync.WaitGroup
	// ended rings when a job has ended.
	ended chan struct{}
	// resultsUntil is the frame_seq up to which clients' results were taken.
	resultsUntil int64

	mu   sync.Mutex
	jobs map[string]*job // by tool_call_id
	// whole are inputs as the model gave them; what is stored is redacted.
	whole map[string]json.RawMessage
	// known says that open and frames are what the last look found, and nothing
	// has happened since.
	known   bool
	open    openCalls
	frames  int64           // accepted when it was looked
	seq     int64           // of the head when it was looked
	touched bool            // the run has had a tool call
	freed   <-chan struct{} // is closed when there is room for a call that waits for it
}

// job is one call at work.
type job struct {
	boundary tool.Boundary
	ofStep   bool // the open step asked for its call
	stop     context.CancelCauseFunc
	handed   bool // its call goes on elsewhere, unless it has ended by itself
}

// openCalls counts a run's calls that have not ended.
type openCalls struct {
	ofStep, others int  // asked for by the open steps, and by the API
	atWork         bool // this session works on one, or one waits for room
	asked          bool // one waits for a person
}

func newCrew() crew {
	return crew{wg: &sync.WaitGroup{}, ended: make(chan struct{}, 1), jobs: map[string]*job{}, whole: map[string]json.RawMessage{}}
}

func (c *crew) job(id string) *job {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.jobs[id]
}

// add takes a job in.
func (c *crew) add(id string, j *job) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.jobs[id] = j
	c.wg.Add(1)
}

// done takes a job out.
func (c *crew) done(id string) {
	c.mu.Lock()
	delete(c.jobs, id)
	c.known = false
	c.mu.Unlock()
	select {
	case c.ended <- struct{}{}:
	default:
	}
	c.wg.Done()
}

// quiet says that the end of a job is nothing to act on: no call waits for room,
// and another job is at work that the run waits for. Calls that the API asked for
// hold no step up.
func (c *crew) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.freed != nil {
		return false
	}
	for _, j := range c.jobs {
		if j.ofStep || c.open.ofStep == 0 {
			return true
		}
	}
	return false
}

// working are the calls that jobs work on.
func (c *crew) working() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]bool, len(c.jobs))
	for id := range c.jobs {
		all[id] = true
	}
	return all
}

// stop tells the jobs that are meant to end.
func (c *crew) stop(meant func(id string) bool, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, j := range c.jobs {
		if meant(id) {
			j.stop(cause)
		}
	}
}

// wait returns when no job is at work: they end soon after they were told to.
func (c *crew) wait() { c.wg.Wait() }

// any says whether a job is at work.
func (c *crew) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.jobs) > 0
}

// hand stops jobs whose calls are to go on elsewhere.
func (c *crew) hand(meant func(*job) bool, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range c.jobs {
		if meant(j) {
			j.handed = true
			j.stop(cause)
		}
	}
}

func handedCause(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), lease.ErrLost) {
		return tool.Cause("lease_lost", "Another process goes on with the run.")
	}
	return tool.Cause("handed_over", "The session ends; the call goes on in the next.")
}

// handedOver says whether a call's outcome is left to the next session.
func (c *crew) handedOver(j *job) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return j.handed
}

// keep remembers an input as the model gave it.
func (c *crew) keep(id string, input json.RawMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.whole[id] = input
	c.known, c.touched = false, true
}

func (c *crew) wholeInput(id string) (json.RawMessage, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	input, ok := c.whole[id]
	return input, ok
}

func (c *crew) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.whole, id)
}

// suspect makes the next look a real one.
func (c *crew) suspect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.freed = false, nil
}

// note remembers what a look found.
func (c *crew) note(open openCalls, h runlog.Head, freed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.frames, c.seq, c.freed = open, h.FrameCount, h.Seq, freed
	c.touched = c.touched || open != openCalls{}
	// What is at work, or waits for somebody, is looked at again each time.
	c.known = open == openCalls{}
}

// idle says that the last look found nothing open, and that nothing can have
// been added since.
func (c *crew) idle(h runlog.Head) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known && c.frames == h.FrameCount
}

// lookedAt is the seq of the head at the last look.
func (c *crew) lookedAt() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seq
}

// mayHaveOpen says whether the run may have open calls.
func (c *crew) mayHaveOpen(h runlog.Head) bool { return !c.idle(h) }

// hasOpen says whether calls are known to be open.
func (c *crew) hasOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open != openCalls{}
}

func (c *crew) wasTouched() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.touched
}

// room is closed when there is room for a call that waits for it.
func (c *crew) room() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.freed
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// follower reads a run's stream through one process after another, resuming
// from the last id, until [DONE]. It also hangs up by itself now and then.
type follower struct {
	runID  string
	fleet  *fleet
	rng    *rand.Rand
	steps  chan struct{} // one for each finished step
	wanted chan want     // what the run wants of its caller
	blocks []rig.Block
	wrong  []string
	done   bool
	over   chan struct{} // closed then
}

func (f *follower) cursor() int64 {
	if len(f.blocks) == 0 {
		return 0
	}
	return f.blocks[len(f.blocks)-1].Seq
}

func (f *follower) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.once(ctx)
		if errors.Is(err, rig.ErrDone) {
			f.done = true
			close(f.over)
			return
		}
		if pause(ctx, time.Duration(20+f.rng.IntN(80))*time.Millisecond) != nil {
			return
		}
	}
}

// once reads until the connection ends, or for a moment.
func (f *follower) once(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Duration(300+f.rng.IntN(1500))*time.Millisecond)
	defer stop()
	req, err := rig.Request(ctx, http.MethodGet, f.fleet.pick(f.rng, false), "/runs/"+f.runID+"/stream", f.runID, nil)
	if err != nil {
		return err
	}
	if f.cursor() > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(f.cursor(), 10))
	}
	res, err := rig.Wire.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return rig.ReadBlocks(res.Body, f.take)
	case http.StatusNoContent, http.StatusBadRequest, http.StatusGone:
		// Nothing to resume before [DONE] came, or a cursor that we were given
		// and that is not known now.
		f.wrong = append(f.wrong, fmt.Sprintf("resuming after %d is answered %d", f.cursor(), res.StatusCode))
	}
	return fmt.Errorf("status %d", res.StatusCode)
}

func (f *follower) take(b rig.Block) {
	if b.Seq != f.cursor()+1 {
		f.wrong = append(f.wrong, fmt.Sprintf("after %d comes %d", f.cursor(), b.Seq))
	}
	f.blocks = append(f.blocks, b)
	if strings.Contains(b.Text, `"type":"finish-step"`) {
		f.steps <- struct{}{}
	}
	for _, kind := range wants {
		if found := kind.says.FindStringSubmatch(b.Text); found != nil {
			f.wanted <- want{kind.of, found[1]}
		}
	}
}

// want is a tool call that the caller carries out, or a question that a person
// decides.
type want struct{ of, id string }

const (
	wantsResult   = "result"
	wantsDecision = "decision"
)

var wants = []struct {
	of   string
	says *regexp.Regexp
}{
	{wantsResult, regexp.MustCompile(`"type":"tool-input-available","toolCallId":"([^"]+)","toolName":"` + asks + `"`)},
	{wantsDecision, regexp.MustCompile(`"type":"data-approval","id":"([^"]+)".*"state":"pending"`)},
}

// undisturbed is a run's whole stream in one read, from the first process that
// serves it: one whose clock is wrong refuses.
func undisturbed(ctx context.Context, f *fleet, runID string) ([]rig.Block, error) {
	var last error
	for _, p := range f.living() {
		all, err := readWhole(ctx, p.api, runID)
		if err == nil {
			return all, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no process gives an undisturbed read: %w", last)
}

func readWhole(ctx context.Context, base, runID string) ([]rig.Block, error) {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	req, err := rig.Request(ctx, http.MethodGet, base, "/runs/"+runID+"/stream", runID, nil)
	if err != nil {
		return nil, err
	}
	res, err := rig.Wire.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", res.StatusCode)
	}
	var all []rig.Block
	if err := rig.ReadBlocks(res.Body, func(b rig.Block) { all = append(all, b) }); !errors.Is(err, rig.ErrDone) {
		return all, err
	}
	return all, nil
}

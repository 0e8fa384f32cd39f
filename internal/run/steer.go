package run

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// Mode says what happens to a frame that finds its run at work.
type Mode string

// The modes of a frame.
const (
	// Enqueue lets the frame wait its turn.
	Enqueue Mode = "enqueue"
	// Steer has the next step answer the frame with all before it.
	Steer Mode = "steer"
	// Interrupt is Steer, and ends the step at work at once.
	Interrupt Mode = "interrupt"
	// Reject refuses the frame.
	Reject Mode = "reject"
)

var errBusy = errors.New("the run is at work")

// AtWork says whether a run has something to do: frames that are not answered,
// or a cancel.
func AtWork(h runlog.Head) bool {
	return !runlog.Terminal(h.Status) && (h.FrameCount > h.FramePosition || h.CancelRequested)
}

// ToAnswer are the frames that the next step after a position answers, in their
// order: the first that waits, and every one up to the last that steers or
// interrupts. None wait when it is empty.
func ToAnswer(ctx context.Context, q db.DBTX, key uuid.UUID, position int64) ([]db.Frame, error) {
	frames, err := db.New(q).FrameListToAnswer(ctx, db.FrameListToAnswerParams{RunKey: key, AfterSeq: position})
	if err != nil {
		return nil, fmt.Errorf("frames to answer: %w", err)
	}
	return frames, nil
}

// Interrupted says whether a frame after a position wants the step at work to end.
func Interrupted(ctx context.Context, q db.DBTX, key uuid.UUID, position int64) (bool, error) {
	yes, err := db.New(q).FrameInterrupts(ctx, db.FrameInterruptsParams{RunKey: key, AfterSeq: position})
	if err != nil {
		return false, fmt.Errorf("look for an interrupt: %w", err)
	}
	return yes, nil
}

// FrameByID gets a frame that is there.
func FrameByID(ctx context.Context, q db.DBTX, key uuid.UUID, frameID string) (db.Frame, error) {
	f, err := db.New(q).FrameGet(ctx, db.FrameGetParams{RunKey: key, FrameID: frameID})
	if err != nil {
		return f, fmt.Errorf("get frame %s: %w", frameID, err)
	}
	return f, nil
}

// Newest are at most limit frames up to a position, newest first.
func Newest(ctx context.Context, q db.DBTX, key uuid.UUID, position int64, limit int) ([]db.FrameListRecentRow, error) {
	frames, err := db.New(q).FrameListRecent(ctx, db.FrameListRecentParams{RunKey: key, Position: position, MaxFrames: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("newest frames: %w", err)
	}
	return frames, nil
}

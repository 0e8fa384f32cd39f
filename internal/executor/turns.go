package executor

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// turn is a frame and what was answered to it, the newest answer first.
type turn struct {
	frameSeq int64
	frame    message
	hidden   bool // the frame belongs to a tool call
	answers  []answer
}

const (
	lastFrame = math.MaxInt64 - 1 // a frame_seq after every other
	firstPage = 8                 // rows that are read of a run at first
	maxPage   = 256
)

// reader reads a run's turns backwards: its frames by their numbers, and its
// answers, which stand in the log in the order in which the frames were
// executed. Each page is twice the one before, so that what is read in vain is
// in proportion to what is used.
type reader struct {
	key uuid.UUID

	frames     []db.FrameListNewestRow // read and not yet told, newest first
	frameSeq   int64                   // older ones are not read
	framePage  int
	framesOver bool

	answers     []answer // read and not yet told, newest first
	seq         int64    // older events are not read
	page        int
	answersOver bool
	texts       []string // finished in a step whose start is not read
	rounds      openRounds

	told   map[string]bool // frames, by frame_id
	hidden map[string]bool // those that belong to tool calls
}

// answer is what one step said, newest first.
type answer struct {
	frameID string
	step    int64
	texts   []string
}

// newReader begins with a frame.
func newReader(key uuid.UUID, frameSeq int64) *reader {
	return &reader{key: key, frameSeq: frameSeq + 1, framePage: firstPage, seq: math.MaxInt64, page: firstPage, told: map[string]bool{}, hidden: map[string]bool{}}
}

// next tells the next older turn.
func (r *reader) next(ctx context.Context, q db.DBTX) (turn, bool, error) {
	if len(r.frames) == 0 {
		if err := fillFrames(ctx, q, []*reader{r}); err != nil {
			return turn{}, false, err
		}
	}
	if len(r.frames) == 0 {
		return turn{}, false, nil
	}
	f := r.frames[0]
	r.frames = r.frames[1:]
	r.told[f.FrameID] = true
	t := turn{frameSeq: f.FrameSeq, hidden: r.hidden[f.FrameID]}
	var err error
	if t.frame, err = frameMessage(f); err != nil {
		return turn{}, false, err
	}
	for {
		for len(r.answers) == 0 && !r.answersOver {
			if err := fillAnswers(ctx, q, []*reader{r}); err != nil {
				return turn{}, false, err
			}
		}
		// The answer to an older frame waits until that frame is told.
		if len(r.answers) == 0 || !r.told[r.answers[0].frameID] {
			return t, true, nil
		}
		t.answers = append(t.answers, r.answers[0])
		r.answers = r.answers[1:]
	}
}

// fillFrames reads the next page of each reader's frames.
func fillFrames(ctx context.Context, q db.DBTX, readers []*reader) error {
	var keys []uuid.UUID
	var before []int64
	limit, of := 0, map[uuid.UUID]*reader{}
	for _, r := range readers {
		if !r.framesOver {
			keys, before = append(keys, r.key), append(before, r.frameSeq)
			limit, of[r.key] = r.framePage, r
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := run.NewestFrames(ctx, q, keys, before, limit)
	if err != nil {
		return err
	}
	for _, row := range rows {
		r := of[row.RunKey]
		r.frames, r.frameSeq = append(r.frames, row), row.FrameSeq
	}
	for _, r := range of {
		r.framesOver = len(r.frames) < limit
		r.framePage = min(2*limit, maxPage)
		if err := r.hide(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// hide finds the frames of the page that belong to tool calls: the model sees
// the calls.
func (r *reader) hide(ctx context.Context, q db.DBTX) error {
	named := map[string][]db.FrameListNewestRow{}
	for _, f := range r.frames {
		if id := namesCall(f.FrameType, f.Payload); id != "" {
			named[id] = append(named[id], f)
		}
	}
	if len(named) == 0 {
		return nil
	}
	tasks, err := tool.ByIDs(ctx, q, r.key, slices.Sorted(maps.Keys(named)))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		for _, f := range named[t.ToolCallID] {
			r.hidden[f.FrameID] = belongs(f.FrameID, f.FrameType, t)
		}
	}
	return nil
}

// fillAnswers reads the next page of each reader's answers.
func fillAnswers(ctx context.Context, q db.DBTX, readers []*reader) error {
	var keys []uuid.UUID
	var before []int64
	limit, of, count := 0, map[uuid.UUID]*reader{}, map[uuid.UUID]int{}
	for _, r := range readers {
		if !r.answersOver {
			keys, before = append(keys, r.key), append(before, r.seq)
			limit, of[r.key] = r.page, r
		}
	}
	if len(keys) == 0 {
		return nil
	}
	rows, err := runlog.NewestOfTypes(ctx, q, keys, before, limit, event.TypeRunStepStarted, event.TypeMessageFinished)
	if err != nil {
		return err
	}
	for _, row := range rows {
		e, err := runlog.Decode(row)
		if err != nil {
			return fmt.Errorf("read a run's turns: %w", err)
		}
		r := of[row.RunKey]
		r.seq, count[r.key] = row.Seq, count[r.key]+1
		r.add(e)
	}
	for _, r := range of {
		r.answersOver = count[r.key] < limit
		r.page = min(2*limit, maxPage)
	}
	return nil
}

func (r *reader) add(e event.Event) {
	switch e := e.(type) {
	case event.MessageFinishedV1:
		r.texts = append(r.texts, e.Text)
	case event.RunStepStartedV1:
		if len(r.texts) > 0 || len(r.rounds.calls[e.Step]) > 0 {
			r.answers = append(r.answers, answer{e.FrameID, e.Step, r.texts})
			r.texts = nil
		}
	}
}

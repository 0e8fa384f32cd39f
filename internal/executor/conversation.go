package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/run"
)

type message = ds.MessageV1

// bytesPerToken fills about half of a model's context window: a token of
// English is about four bytes, and the answer needs room too.
const bytesPerToken = 2

// conversation is what the model is shown to answer a frame: the frame last,
// and before it what fits of the run's and then of the thread's earlier turns.
// They are read backwards until the window is full, so that a turn costs the
// same however long the run and the thread are. The caller sends the newest
// text alone.
//
// The calls of the steps that belong to the open frames are shown as messages of
// tools, the newest steps that fit. What the descriptions of tools take, in bytes,
// is taken from the window, as far as a quarter of it is left.
func (s *session) conversation(ctx context.Context, frame db.Frame, rounds openRounds, tools int) ([]message, error) {
	w := window{bytes: s.e.Config.Window, s: s, position: math.MaxInt64}
	if tokens := s.e.Predict.Model.Info().ContextTokens; tokens > 0 {
		w.bytes = min(w.bytes, tokens*bytesPerToken)
	}
	w.bytes = max(w.bytes-tools, w.bytes/4)
	if len(rounds.calls) > 0 {
		w.position, w.rounds = s.now().FramePosition, w.bytes*roundShare/5
	}
	own := newReader(s.run.RunKey, frame.FrameSeq)
	own.rounds = rounds
	if err := w.read(ctx, s.e.Pool, own); err != nil {
		return nil, err
	}
	if !own.told[frame.FrameID] {
		return nil, fmt.Errorf("frame %s is not among its run's frames", frame.FrameID)
	}
	if err := s.readThread(ctx, &w); err != nil {
		return nil, err
	}
	slices.Reverse(w.newest)
	return w.newest, nil
}

// readThread goes on with the thread's earlier runs, each time with twice as
// many at once.
func (s *session) readThread(ctx context.Context, w *window) error {
	if w.full {
		return nil
	}
	runs, err := run.OfThread(ctx, s.e.Pool, run.Owner(s.run.Owner), s.run.ThreadID, &s.run.RunKey, s.e.Config.ThreadRuns)
	if err != nil {
		return err
	}
	for n := 1; len(runs) > 0 && !w.full; n *= 2 {
		n = min(n, len(runs))
		var readers []*reader
		for _, r := range runs[:n] {
			readers = append(readers, newReader(r.RunKey, lastFrame))
		}
		if err := w.read(ctx, s.e.Pool, readers...); err != nil {
			return err
		}
		runs = runs[n:]
	}
	return nil
}

// maxMessages is the most that the signature's input takes.
const maxMessages = 1000

// window is what a model is shown, newest first, while it is being filled.
type window struct {
	newest []message
	bytes  int // that are left
	full   bool

	s        *session
	position int64 // frames after it are open, and are shown whatever they take
	rounds   int   // bytes that the rounds of the open frames may still take
}

// add takes the next older message, if it fits; the newest always does.
func (w *window) add(m message) {
	w.bytes -= len(m.Content)
	if len(w.newest) > 0 && (w.bytes < 0 || len(w.newest) >= maxMessages) {
		w.full = true
	}
	if !w.full {
		w.newest = append(w.newest, m)
	}
}

// addRound takes a step with its calls, if it fits; the newest always does.
func (w *window) addRound(a answer, rounds openRounds) {
	calls := rounds.calls[a.step]
	var said []string
	for _, text := range slices.Backward(a.texts) {
		said = append(said, text)
	}
	messages := w.s.roundMessages(strings.Join(said, "\n\n"), calls, w.rounds)
	size := 0
	for _, m := range messages {
		size += len(m.Content)
		for _, c := range m.ToolCalls {
			arguments, err := json.Marshal(c.Arguments)
			if err == nil { // it was read from JSON
				size += len(arguments)
			}
		}
	}
	if len(rounds.shown) > 0 && (size > w.rounds || len(w.newest)+len(messages) > maxMessages/2) {
		w.rounds = 0
		return
	}
	w.rounds, w.bytes = w.rounds-size, w.bytes-size
	for _, t := range calls {
		rounds.shown[t.ToolCallID] = true
	}
	delete(rounds.calls, a.step) // an attempt that was taken back has the same number
	slices.Reverse(messages)
	w.newest = append(w.newest, messages...)
}

// read adds the turns of some runs, the newest run first, until there is no
// more or the window is full.
func (w *window) read(ctx context.Context, q db.DBTX, readers ...*reader) error {
	if err := fillFrames(ctx, q, readers); err != nil {
		return err
	}
	if err := fillAnswers(ctx, q, readers); err != nil {
		return err
	}
	for _, r := range readers {
		for !w.full {
			t, found, err := r.next(ctx, q)
			if err != nil {
				return err
			}
			if !found {
				break
			}
			w.turn(t, r.rounds)
		}
	}
	return nil
}

// turn adds a frame and what was answered to it.
func (w *window) turn(t turn, rounds openRounds) {
	for _, a := range t.answers {
		if len(rounds.calls[a.step]) > 0 {
			w.addRound(a, rounds)
			continue
		}
		for _, text := range a.texts {
			w.add(message{Role: ds.MessageV1RoleAssistant, Content: text})
		}
	}
	switch {
	case t.hidden:
	case t.frameSeq > w.position:
		w.newest, w.bytes = append(w.newest, t.frame), w.bytes-len(t.frame.Content)
	default:
		w.add(t.frame)
	}
}

func frameMessage(f db.FrameListNewestRow) (message, error) {
	var payload map[string]any
	if err := json.Unmarshal(f.Payload, &payload); err != nil {
		return message{}, fmt.Errorf("frame %s: %w", f.FrameID, err)
	}
	if text, ok := payload["text"].(string); ok && f.FrameType == "user_message" {
		return message{Role: ds.MessageV1RoleUser, Content: text}, nil
	}
	content, err := json.Marshal(map[string]any{"type": f.FrameType, "payload": payload})
	if err != nil {
		return message{}, fmt.Errorf("frame %s: %w", f.FrameID, err)
	}
	return message{Role: ds.MessageV1RoleEvent, Content: string(content)}, nil
}

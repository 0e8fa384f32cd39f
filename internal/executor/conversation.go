package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

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
func (s *session) conversation(ctx context.Context, frame db.Frame) ([]message, error) {
	w := window{bytes: s.e.Config.Window}
	if tokens := s.e.Predict.Model.Info().ContextTokens; tokens > 0 {
		w.bytes = min(w.bytes, tokens*bytesPerToken)
	}
	own := newReader(s.run.RunKey, frame.FrameSeq)
	if err := w.read(ctx, s.e.Pool, own); err != nil {
		return nil, err
	}
	if len(w.newest) == 0 {
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
}

// add takes the next older message, if it fits; the newest always does.
func (w *window) add(m message) {
	w.bytes -= len(m.Content)
	if len(w.newest) > 0 && (w.bytes < 0 || len(w.newest) == maxMessages) {
		w.full = true
	}
	if !w.full {
		w.newest = append(w.newest, m)
	}
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
			for _, text := range t.answers {
				w.add(message{Role: ds.MessageV1RoleAssistant, Content: text})
			}
			w.add(t.frame)
		}
	}
	return nil
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

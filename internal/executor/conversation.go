package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

type message = ds.MessageV1

// conversation is what the model is shown to answer a frame: a bounded window
// of the thread's earlier runs and of this run, read from their logs, and the
// frame last. The caller sends the newest text alone.
func (s *session) conversation(ctx context.Context, frame db.Frame) ([]message, error) {
	earlier, err := run.EarlierOfThread(ctx, s.e.Pool, s.run, s.e.Config.ThreadRuns)
	if err != nil {
		return nil, err
	}
	keys := make([]uuid.UUID, 0, len(earlier)+1)
	for _, r := range earlier {
		keys = append(keys, r.RunKey)
	}
	keys = append(keys, s.run.RunKey)
	rows, err := runlog.OfTypes(ctx, s.e.Pool, keys,
		event.TypeFrameAppended, event.TypeRunStepStarted, event.TypeMessageFinished)
	if err != nil {
		return nil, err
	}
	turns := map[uuid.UUID]*turns{}
	for _, row := range rows {
		t := turns[row.RunKey]
		if t == nil {
			t = newTurns()
			turns[row.RunKey] = t
		}
		e, err := runlog.Decode(row)
		if err != nil {
			return nil, err
		}
		if err := t.add(e); err != nil {
			return nil, err
		}
	}
	var all []message
	for _, key := range keys {
		if t := turns[key]; t != nil {
			until := int64(len(t.frames))
			if key == s.run.RunKey {
				until = frame.FrameSeq
			}
			all = append(all, t.messages(until)...)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("frame %s is not in its run's log", frame.FrameID)
	}
	bytes := s.e.Config.Window
	if tokens := s.e.Predict.Model.Info().ContextTokens; tokens > 0 {
		bytes = min(bytes, tokens*bytesPerToken)
	}
	return window(all, bytes), nil
}

// bytesPerToken fills about half of a model's context window: a token of
// English is about four bytes, and the answer needs room too.
const bytesPerToken = 2

// turns are a run's frames, each with what was answered to it.
type turns struct {
	frames  []event.FrameAppendedV1
	answers map[string][]string // by frame_id
	current string              // the frame of the step that is being read
}

func newTurns() *turns { return &turns{answers: map[string][]string{}} }

func (t *turns) add(e event.Event) error {
	switch e := e.(type) {
	case event.FrameAppendedV1:
		t.frames = append(t.frames, e)
	case event.RunStepStartedV1:
		t.current = e.FrameID
	case event.MessageFinishedV1:
		t.answers[t.current] = append(t.answers[t.current], e.Text)
	}
	return nil
}

// messages are the turns up to a frame; that frame comes last, unanswered or not.
func (t *turns) messages(until int64) []message {
	var out []message
	for _, f := range t.frames[:min(until, int64(len(t.frames)))] {
		out = append(out, frameMessage(f))
		for _, text := range t.answers[f.FrameID] {
			out = append(out, message{Role: ds.MessageV1RoleAssistant, Content: text})
		}
	}
	return out
}

func frameMessage(f event.FrameAppendedV1) message {
	if text, ok := f.Payload["text"].(string); ok && f.FrameType == "user_message" {
		return message{Role: ds.MessageV1RoleUser, Content: text}
	}
	// A map of JSON values always encodes.
	content, _ := json.Marshal(map[string]any{"type": f.FrameType, "payload": f.Payload})
	return message{Role: ds.MessageV1RoleEvent, Content: string(content)}
}

// maxMessages is the most that the signature's input takes.
const maxMessages = 1000

// window keeps the newest messages that fit, and always the last one.
func window(all []message, bytes int) []message {
	kept := 0
	for _, m := range slices.Backward(all) {
		bytes -= len(m.Content)
		if kept > 0 && (bytes < 0 || kept == maxMessages) {
			break
		}
		kept++
	}
	return all[len(all)-kept:]
}

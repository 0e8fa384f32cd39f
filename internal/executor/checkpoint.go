package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// stateVersion is the version of state. A checkpoint of any other is not read:
// the log says the same.
const stateVersion = 2

// state is a past as a checkpoint holds it.
type state struct {
	Started   bool       `json:"started"`
	Steps     int64      `json:"steps"`
	Usage     ds.UsageV1 `json:"usage"`
	ToolCalls int64      `json:"tool_calls"`
	Rounds    *rounds    `json:"rounds,omitempty"`
	Open      *openState `json:"open,omitempty"`
}

type openState struct {
	Step       int64    `json:"step"`
	Attempt    int64    `json:"attempt"`
	FrameID    string   `json:"frame_id"`
	FromSeq    int64    `json:"from_seq"`
	Texts      []string `json:"texts"`
	Reasonings []string `json:"reasonings"`
}

// saved says what the newest checkpoint of a run covers; zero when there is none.
type saved struct{ steps, seq int64 }

func (p past) state() state {
	s := state{Started: p.started, Steps: p.steps, Usage: p.usage, ToolCalls: p.toolCalls, Rounds: p.rounds}
	if o := p.open; o != nil {
		s.Open = &openState{o.step, o.attempt, o.frameID, o.fromSeq,
			slices.Sorted(maps.Keys(o.texts)), slices.Sorted(maps.Keys(o.reasonings))}
	}
	return s
}

func (s state) past() past {
	p := past{started: s.Started, steps: s.Steps, usage: s.Usage, toolCalls: s.ToolCalls, rounds: s.Rounds}
	if o := s.Open; o != nil {
		p.open = &openStep{step: o.Step, attempt: o.Attempt, frameID: o.FrameID, fromSeq: o.FromSeq,
			texts: setOf(o.Texts), reasonings: setOf(o.Reasonings)}
	}
	return p
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, n := range names {
		set[n] = true
	}
	return set
}

// checkpoint is the row that saves what the run has come to with the step that
// ends, when the last one is old enough; events is how many of the commit's
// events that takes in, and after what they come to.
func (s *session) checkpoint(h runlog.Head, events int, after past) ([]runlog.Row, error) {
	s.saving = s.saved
	now := saved{steps: s.past.steps, seq: h.Seq + int64(events)}
	c := s.e.Config
	if now.steps-s.saved.steps < c.CheckpointSteps && now.seq-s.saved.seq < c.CheckpointEvents {
		return nil, nil
	}
	content, err := json.Marshal(after.state())
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	s.saving = now
	return []runlog.Row{func(q *db.Queries, firstSeq int64) error {
		return q.CheckpointPut(context.Background(), db.CheckpointPutParams{
			RunKey: s.run.RunKey, StateVersion: stateVersion, Seq: firstSeq + int64(events) - 1,
			State: content, LeaseEpoch: s.held.Epoch,
		})
	}}, nil
}

// readCheckpoint reads the run's checkpoint. One that cannot be used is counted
// and is as good as none.
func (e *Executor) readCheckpoint(ctx context.Context, key uuid.UUID, head int64) (past, saved, error) {
	row, err := db.New(e.Pool).CheckpointGet(ctx, key)
	if errors.Is(err, pgx.ErrNoRows) {
		e.checkpoints.WithLabelValues("none").Inc()
		return past{}, saved{}, nil
	}
	if err != nil {
		return past{}, saved{}, fmt.Errorf("read a checkpoint: %w", err)
	}
	if row.StateVersion != stateVersion {
		e.checkpoints.WithLabelValues("unknown_version").Inc()
		return past{}, saved{}, nil
	}
	p, err := pastOf(row, head)
	if err != nil {
		e.checkpoints.WithLabelValues("corrupt").Inc()
		slog.WarnContext(ctx, "a checkpoint is not used; the run's log is read whole", "run_key", key, "error", err.Error())
		return past{}, saved{}, nil
	}
	e.checkpoints.WithLabelValues("used").Inc()
	return p, saved{steps: p.steps, seq: row.Seq}, nil
}

// pastOf reads a checkpoint of today's version, refusing what no log can say.
func pastOf(row db.Checkpoint, head int64) (past, error) {
	var s state
	d := json.NewDecoder(bytes.NewReader(row.State))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return past{}, err
	}
	if row.Seq < 1 || row.Seq > head {
		return past{}, fmt.Errorf("it is at seq %d, the log ends at %d", row.Seq, head)
	}
	if s.ToolCalls < 0 || s.Rounds != nil && (s.Rounds.First < 1 || s.Rounds.Last < s.Rounds.First || s.Rounds.Last > s.Steps) {
		return past{}, errors.New("its tool calls are of no log")
	}
	if s.Steps < 0 || s.Steps > 0 && !s.Started {
		return past{}, fmt.Errorf("it counts %d steps of a run that has started: %t", s.Steps, s.Started)
	}
	return s.past(), nil
}

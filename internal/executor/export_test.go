package executor

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// StateVersion is the version of the checkpoints that are read.
const StateVersion = stateVersion

// Past is what an executor knows of a run.
type Past = past

// Save gives a past as a checkpoint has it.
func Save(p Past) ([]byte, error) { return json.Marshal(p.state()) }

// Load reads what a checkpoint has of a log that ends at a seq.
func Load(c db.Checkpoint, head int64) (Past, error) { return pastOf(c, head) }

// Fold goes on from a past with some events, whose seqs begin after seq.
func Fold(p Past, seq int64, events []event.Event) Past {
	for i, e := range events {
		p.add(seq+int64(i)+1, e)
	}
	return p
}

// FoldLog gives the past that a log says, up to a seq, without any checkpoint.
func FoldLog(ctx context.Context, pool *pgxpool.Pool, key uuid.UUID, until int64) (Past, error) {
	var p past
	err := runlog.EachOfTypes(ctx, pool, key, 0, pastTypes, func(row db.RunLog) error {
		e, err := runlog.Decode(row)
		if err == nil && row.Seq <= until {
			p.add(row.Seq, e)
		}
		return err
	})
	return p, err
}

// ReadPast gives what an executor takes a run up with, and the seq of the
// checkpoint that it used, 0 for none.
func (e *Executor) ReadPast(ctx context.Context, key uuid.UUID, head int64) (Past, int64, error) {
	p, at, err := e.readPast(ctx, key, head)
	return p, at.seq, err
}

// Conversation is what the model is shown to answer a frame of a run.
func (e *Executor) Conversation(ctx context.Context, r db.Run, f db.Frame) ([]ds.MessageV1, error) {
	s := newSession(e)
	s.run = r
	return s.conversation(ctx, f, openRounds{}, 0)
}

// Session is a holding of a run.
type Session struct{ s *session }

// Holding is a session of a run that is held, which nobody drives.
func (e *Executor) Holding(r db.Run, held *lease.Held) Session {
	s := newSession(e)
	s.run, s.held = r, held
	return Session{s}
}

// Learn is told of a head that was seen beside what the session does.
func (s Session) Learn(h runlog.Head) { s.s.follow(h) }

// BeginStep begins the first step.
func (s Session) BeginStep(ctx context.Context, f db.Frame) (canceled bool, err error) {
	return s.s.beginStep(ctx, f, 1, 1, prepared{})
}

// Say is what a model says in the step, and answers with its last words.
func (s Session) Say(ctx context.Context, deltas ...string) ([]event.Event, error) {
	_, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	v := newVoice(ctx, s.s, 1, 1, stop)
	for _, d := range deltas {
		if err := v.say(model.Event{Kind: model.TextDelta, Delta: d}); err != nil {
			return nil, err
		}
	}
	if err := v.close(); err != nil {
		return nil, err
	}
	return v.lastWords("receipt"), nil
}

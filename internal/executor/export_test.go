package executor

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
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

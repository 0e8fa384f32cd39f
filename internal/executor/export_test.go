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

// PastTypes are the events that a past is made of.
var PastTypes = pastTypes

// Fold gives the state after some events, whose seqs begin after seq, and
// before it the state that from holds.
func Fold(from []byte, seq int64, events []event.Event) ([]byte, error) {
	var p past
	if from != nil {
		var err error
		if p, err = pastOf(db.Checkpoint{Seq: max(seq, 1), State: from}, max(seq, 1)); err != nil {
			return nil, err
		}
	}
	for i, e := range events {
		p.add(seq+int64(i)+1, e)
	}
	return json.Marshal(p.state())
}

// FoldLog gives the state that a log says, up to a seq, without any checkpoint.
func FoldLog(ctx context.Context, pool *pgxpool.Pool, key uuid.UUID, until int64) ([]byte, error) {
	var p past
	err := runlog.EachOfTypes(ctx, pool, key, 0, pastTypes, func(row db.RunLog) error {
		e, err := runlog.Decode(row)
		if err == nil && row.Seq <= until {
			p.add(row.Seq, e)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return json.Marshal(p.state())
}

// ReadPast gives the state that an executor takes a run up with, and the seq of
// the checkpoint that it used, 0 for none.
func (e *Executor) ReadPast(ctx context.Context, key uuid.UUID, head int64) (state []byte, checkpoint int64, err error) {
	p, at, err := e.readPast(ctx, key, head)
	if err != nil {
		return nil, 0, err
	}
	state, err = json.Marshal(p.state())
	return state, at.seq, err
}

// Conversation is what the model is shown to answer a frame of a run.
func (e *Executor) Conversation(ctx context.Context, r db.Run, f db.Frame) ([]ds.MessageV1, error) {
	return (&session{e: e, run: r}).conversation(ctx, f)
}

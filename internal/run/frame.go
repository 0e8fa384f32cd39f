package run

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/crash"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Frame is one idempotent input of a run.
type Frame struct {
	FrameID string          `json:"-"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
	Source  *FrameSource    `json:"source,omitempty"`
	// Mode says what happens when the frame finds its run at work; empty is
	// Enqueue. It is no part of the content.
	Mode Mode `json:"-"`
	// Admit, when set, may refuse a new frame by the head of its run. It may run
	// more than once and must not call out.
	Admit func(runlog.Head) error `json:"-"`
	// With, when set, is written in the same commit after the frame. It sees the
	// head before the frame, may run more than once and must not call out.
	With func(runlog.Head) (runlog.Change, error) `json:"-"`
}

// FrameSource says where a frame comes from.
type FrameSource struct {
	Kind      string `json:"kind"`
	RequestID string `json:"requestId,omitempty"`
}

// Accepted says where a frame stands in the log.
type Accepted struct {
	Replay      bool
	PayloadHash string
	Seq         int64
}

// AppendFrame puts a frame into the run's log, once per frame_id. The same
// frame again is a replay; another content under the same id is frame_conflict;
// a new frame for a run that has ended is run_finished; one that rejects a run
// at work is run_busy. A repeat of a frame is answered without a write, also
// after the run has ended.
func AppendFrame(ctx context.Context, pool db.DBTX, log *runlog.Appender, r db.Run, f Frame) (Accepted, error) {
	hash, err := canon.HashJSON(f)
	if err != nil {
		return Accepted{}, fault.New(api.InvalidRequest, "the frame cannot be hashed: %v", err)
	}
	before, found, err := known(ctx, pool, r.RunKey, f, hash)
	if found || err != nil {
		return before, err
	}
	unit, err := frameUnit(ctx, r, f, hash)
	if err != nil {
		return Accepted{}, err
	}
	ack, err := log.Commit(ctx, unit)
	if err == nil {
		crash.At("frame.appended")
		return Accepted{PayloadHash: hash, Seq: ack.LastSeq}, nil
	}
	if refusesFrame(err) {
		// Perhaps somebody sent the same frame at the same time, and was first.
		if before, found, err := known(ctx, pool, r.RunKey, f, hash); found || err != nil {
			return before, err
		}
	}
	switch {
	case errors.Is(err, runlog.ErrFinished):
		return Accepted{}, fault.New(api.RunFinished, "the run has ended; start a new run for a new frame")
	case errors.Is(err, errBusy):
		return Accepted{}, fault.New(api.RunBusy, "the run is at work and the frame does not want to wait; send it again later, or with another mode")
	}
	return Accepted{}, fmt.Errorf("append frame: %w", err)
}

// refusesFrame says whether an error is a refusal of the frame, and not a
// failure to write it.
func refusesFrame(err error) bool {
	var (
		refused  *pgconn.PgError
		admitted *fault.Error
	)
	return errors.As(err, &refused) && refused.ConstraintName == "frames_id_once" ||
		errors.As(err, &admitted) || errors.Is(err, runlog.ErrFinished) || errors.Is(err, errBusy)
}

// known compares a frame with the one that has its id.
func known(ctx context.Context, q db.DBTX, key uuid.UUID, f Frame, hash string) (Accepted, bool, error) {
	row, err := db.New(q).FrameGet(ctx, db.FrameGetParams{RunKey: key, FrameID: f.FrameID})
	if errors.Is(err, pgx.ErrNoRows) {
		return Accepted{}, false, nil
	}
	if err != nil {
		return Accepted{}, false, fmt.Errorf("append frame: %w", err)
	}
	if row.PayloadHash != hash {
		return Accepted{}, true, fault.New(api.FrameConflict,
			"the frameId %s came before with another type, payload or source; the first has the hash %s", f.FrameID, row.PayloadHash).
			With("payloadHash", row.PayloadHash)
	}
	return Accepted{Replay: true, PayloadHash: hash, Seq: row.EventSeq}, true, nil
}

func frameUnit(ctx context.Context, r db.Run, f Frame, hash string) (runlog.Unit, error) {
	trace := telemetry.TraceFrom(ctx)
	// What is stored has no secrets; the hash is of what was sent, so that a repeat
	// is known.
	stored := redact.JSON(f.Payload)
	var payload map[string]any
	if err := json.Unmarshal(stored, &payload); err != nil {
		return runlog.Unit{}, fault.New(api.InvalidRequest, "payload: must be an object")
	}
	appended := event.FrameAppendedV1{FrameID: f.FrameID, FrameType: f.Type, Payload: payload, PayloadHash: hash}
	var source json.RawMessage
	if f.Source != nil {
		appended.SourceKind, appended.SourceRequestID = nonEmpty(f.Source.Kind), nonEmpty(redact.Text(f.Source.RequestID))
		var err error
		if source, err = json.Marshal(FrameSource{Kind: f.Source.Kind, RequestID: redact.Text(f.Source.RequestID)}); err != nil {
			return runlog.Unit{}, err
		}
	}
	mode := cmp.Or(f.Mode, Enqueue)
	if mode != Enqueue {
		told := event.FrameAppendedV1Mode(mode)
		appended.Mode = &told
	}
	return runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Trace: trace, Decide: func(h runlog.Head) (runlog.Change, error) {
		switch {
		case runlog.Terminal(h.Status):
			return runlog.Change{}, runlog.ErrFinished
		case mode == Reject && AtWork(h):
			return runlog.Change{}, errBusy
		}
		if f.Admit != nil {
			if err := f.Admit(h); err != nil {
				return runlog.Change{}, err
			}
		}
		appended := appended
		appended.FrameSeq = h.FrameCount + 1
		change := runlog.Change{
			Events: []event.Event{appended}, FrameCount: 1,
			Rows: []runlog.Row{func(q *db.Queries, firstSeq int64) error {
				return q.FrameInsert(context.Background(), db.FrameInsertParams{
					RunKey: r.RunKey, FrameSeq: appended.FrameSeq, FrameID: f.FrameID, FrameType: f.Type, Payload: stored,
					PayloadHash: hash, Source: source, Mode: string(mode), EventSeq: firstSeq, Traceparent: nonEmpty(trace.Parent),
					Tracestate: nonEmpty(trace.State), RequestID: nonEmpty(trace.RequestID),
				})
			}},
		}
		if h.FrameCount == h.FramePosition || h.Status == "waiting" {
			change.Rows = append(change.Rows, SetRunnable(r))
		}
		if f.With == nil {
			return change, nil
		}
		with, err := f.With(h)
		change.Events = append(change.Events, with.Events...)
		change.Rows = append(change.Rows, with.Rows...)
		return change, err
	}}, nil
}

// SetRunnable is the row that lets executors find a run that had nothing to do,
// in the commit of what it can go on with. Set Change.Work beside it, unless the
// change has a frame.
func SetRunnable(r db.Run) runlog.Row {
	return func(q *db.Queries, _ int64) error { return q.RunSetRunnable(context.Background(), r.RunKey) }
}

package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Canceled says how a cancel request found the run.
type Canceled struct {
	Status string
	// Requested says that the log holds a cancel request.
	Requested bool
	// Replay says that this request changed nothing.
	Replay bool
}

// Cancel asks a run to stop, durably. Asking twice, or after the end, changes
// nothing. The executor that holds the run, or the next one, ends it.
func Cancel(ctx context.Context, log *runlog.Appender, r db.Run, actor, reason string) (Canceled, error) {
	var out Canceled
	_, err := log.Commit(ctx, runlog.Unit{
		RunKey: r.RunKey, RunID: r.RunID, Trace: telemetry.TraceFrom(ctx),
		Decide: func(h runlog.Head) (runlog.Change, error) {
			out = Canceled{Status: h.Status, Requested: h.CancelRequested, Replay: true}
			if runlog.Terminal(h.Status) || h.CancelRequested {
				return runlog.Change{}, nil
			}
			out = Canceled{Status: "canceling", Requested: true}
			return runlog.Change{
				Events: []event.Event{event.RunCancelRequestedV1{RequestedBy: actor, Reason: nonEmpty(reason)}},
				Status: "canceling", CancelRequested: true, Rows: []runlog.Row{SetStatus(r, "canceling")},
			}, nil
		},
	})
	if err != nil {
		return Canceled{}, fmt.Errorf("cancel run: %w", err)
	}
	return out, nil
}

// SetStatus is the row that follows a change of the head's status.
func SetStatus(r db.Run, status string) runlog.Row {
	return func(q *db.Queries, _ int64) error {
		return q.RunSetStatus(context.Background(), db.RunSetStatusParams{RunKey: r.RunKey, Status: status})
	}
}

// SetWaiting is SetStatus for a run that begins to wait. When most is not 0,
// executors find the run so long after its start, whatever it waits for.
func SetWaiting(r db.Run, most time.Duration) runlog.Row {
	var ms *int64
	if most > 0 {
		n := most.Milliseconds()
		ms = &n
	}
	return func(q *db.Queries, _ int64) error {
		return q.RunSetWaiting(context.Background(), db.RunSetWaitingParams{RunKey: r.RunKey, MostMs: ms})
	}
}

// ErrFramesWait says that a run cannot complete: a frame was accepted meanwhile.
var ErrFramesWait = errors.New("a frame waits")

// End is the one terminal status of a run, and why.
type End struct {
	Status      string // completed, failed or canceled
	ReasonClass string
	Reason      string // a sentence for people
	// FinishReason is why the model stopped, when the run completed.
	FinishReason string
	Usage        ds.UsageV1
}

// Finish is the change that ends a run: terminal row, terminal event and
// stream.closed. It goes into one commit with the lease's release and whatever
// the executor still has to say (first). A run completes only when every
// accepted frame is finished, counting the ones that first finishes; otherwise
// it is ErrFramesWait.
func Finish(r db.Run, h runlog.Head, first runlog.Change, end End) (runlog.Change, error) {
	if end.Status == "completed" && h.FrameCount+first.FrameCount > h.FramePosition+first.FramePosition {
		return runlog.Change{}, ErrFramesWait
	}
	end.Reason = redact.Text(runlog.Storable(end.Reason))
	finished := event.RunFinishedV1{
		Status: event.RunFinishedV1Status(end.Status), ReasonClass: end.ReasonClass, Reason: end.Reason, Usage: end.Usage,
	}
	if end.FinishReason != "" {
		reason := event.RunFinishedV1FinishReason(end.FinishReason)
		finished.FinishReason = &reason
	}
	change := first
	change.Events = append(append([]event.Event{}, first.Events...), finished, event.StreamClosedV1{})
	change.Status = end.Status
	change.Rows = append(append([]runlog.Row{}, first.Rows...), func(q *db.Queries, _ int64) error {
		return q.RunFinish(context.Background(), db.RunFinishParams{
			RunKey: r.RunKey, Status: end.Status, ReasonClass: &end.ReasonClass, Reason: &end.Reason,
		})
	})
	return change, nil
}

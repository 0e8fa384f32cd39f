package server

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

// atOneMoment reads in one snapshot of the database, so that a run's row, head
// and events agree.
func (s *Server) atOneMoment(ctx context.Context, f func(q db.DBTX) error) error {
	return pgx.BeginTxFunc(ctx, s.Pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly},
		func(tx pgx.Tx) error { return f(tx) })
}

func snapshotOf(ctx context.Context, q db.DBTX, r db.Run) (api.Run, error) {
	head, err := runlog.GetHead(ctx, q, r.RunKey)
	if err != nil {
		return api.Run{}, err
	}
	told, err := tellRuns(ctx, q, []db.Run{r})
	if err != nil {
		return api.Run{}, err
	}
	t := told[r.RunKey]
	snapshot := api.Run{
		RunID: r.RunID, ThreadID: r.ThreadID, UserID: r.UserID, GuestScope: r.GuestScope, AutopilotID: r.AutopilotID,
		Status: api.RunStatus(r.Status), ReasonClass: (*api.ReasonClass)(r.ReasonClass), Reason: r.Reason, KeepOpen: r.KeepOpen,
		AcceptedAt: r.InsertedAt.UTC(), StartedAt: utc(r.StartedAt), FinishedAt: utc(r.FinishedAt),
		FramesAccepted: head.FrameCount, FramesFinished: head.FramePosition,
		Floor: head.Floor(), Head: head.Seq, Cursor: head.Seq, Closed: t.closed,
		Usage: t.usage, AssistantMessage: t.assistantMessage(), StreamURL: streamURL(r),
	}
	if r.Status == "waiting" && t.waitsFor != "" {
		snapshot.WaitsFor = (*api.RunWaitsFor)(&t.waitsFor)
	}
	if snapshot.ToolPolicy, err = storedAs[api.ToolPolicy](r.ToolPolicy); err != nil {
		return api.Run{}, err
	}
	if snapshot.Limits, err = storedAs[api.RunLimits](r.Limits); err != nil {
		return api.Run{}, err
	}
	return snapshot, nil
}

// tellRuns folds the logs of some runs. Deltas are read only where a part has
// no finished text.
func tellRuns(ctx context.Context, q db.DBTX, runs []db.Run) (map[uuid.UUID]*tale, error) {
	told := make(map[uuid.UUID]*tale, len(runs))
	keys := make([]uuid.UUID, len(runs))
	for i, r := range runs {
		keys[i], told[r.RunKey] = r.RunKey, &tale{runID: r.RunID, messageID: run.MessageID(r)}
	}
	if err := tell(ctx, q, told, keys, taleTypes...); err != nil {
		return nil, err
	}
	var open []uuid.UUID
	for _, key := range keys {
		if told[key].hasOpenPart() {
			open = append(open, key)
		}
	}
	if len(open) == 0 {
		return told, nil
	}
	return told, tell(ctx, q, told, open, event.TypeMessageDelta)
}

func tell(ctx context.Context, q db.DBTX, told map[uuid.UUID]*tale, keys []uuid.UUID, types ...string) error {
	rows, err := runlog.OfTypes(ctx, q, keys, types...)
	if err != nil {
		return err
	}
	for _, row := range rows {
		e, err := runlog.Decode(row)
		if err != nil {
			return fmt.Errorf("tell a run: %w", err)
		}
		told[row.RunKey].add(row, e)
	}
	return nil
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

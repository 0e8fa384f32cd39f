package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// Get finds a run of the owner's. A run of somebody else and no run at all are
// the same run_not_found.
func Get(ctx context.Context, q db.DBTX, owner Owner, runID string) (db.Run, error) {
	r, err := db.New(q).RunGet(ctx, runID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return r, fmt.Errorf("get run: %w", err)
	}
	if err != nil || !owner.Owns(r) {
		return db.Run{}, fault.New(api.RunNotFound, "no run of yours has this id")
	}
	return r, nil
}

// Filter narrows a list of runs; zero values do not.
type Filter struct {
	ThreadID *string
	Status   *string
	// Before is the key of the last run of the page before.
	Before *uuid.UUID
	Limit  int
}

// List pages through the owner's runs, newest first. next is the key to go on
// after, nil on the last page.
func List(ctx context.Context, q db.DBTX, owner Owner, f Filter) (runs []db.Run, next *uuid.UUID, err error) {
	runs, err = db.New(q).RunListByOwner(ctx, db.RunListByOwnerParams{
		Owner: owner.filter(), ThreadID: f.ThreadID, Status: f.Status, BeforeKey: f.Before, MaxRuns: int32(f.Limit + 1),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list runs: %w", err)
	}
	if len(runs) > f.Limit {
		runs = runs[:f.Limit]
		next = &runs[f.Limit-1].RunKey
	}
	return runs, next, nil
}

// Runnable finds runs that an executor has something to do for, and that
// nobody holds, oldest first. Those of which more than mostLosses holders were
// lost in a row are left out.
func Runnable(ctx context.Context, q db.DBTX, limit int, mostLosses int64) ([]db.RunListRunnableRow, error) {
	runs, err := db.New(q).RunListRunnable(ctx, db.RunListRunnableParams{MostLosses: mostLosses, MaxRuns: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list runnable runs: %w", err)
	}
	return runs, nil
}

// Overdue counts the runs that have waited for an executor longer than a bound,
// up to atMost.
func Overdue(ctx context.Context, q db.DBTX, bound time.Duration, atMost int) (int, error) {
	n, err := db.New(q).RunCountOverdue(ctx, db.RunCountOverdueParams{Bound: bound, AtMost: int32(atMost)})
	if err != nil {
		return 0, fmt.Errorf("count overdue runs: %w", err)
	}
	return int(n), nil
}

// AtWorkByOwner counts each owner's runs that are at work or wait for an executor.
func AtWorkByOwner(ctx context.Context, q db.DBTX) (map[Owner]int, error) {
	rows, err := db.New(q).RunCountByOwner(ctx)
	if err != nil {
		return nil, fmt.Errorf("count runs by owner: %w", err)
	}
	counts := make(map[Owner]int, len(rows))
	for _, r := range rows {
		counts[Owner(r.Owner)] = int(r.Count)
	}
	return counts, nil
}

// ByKey gets a run for its executor.
func ByKey(ctx context.Context, q db.DBTX, key uuid.UUID) (db.Run, error) {
	r, err := db.New(q).RunGetByKey(ctx, key)
	if err != nil {
		return r, fmt.Errorf("get run: %w", err)
	}
	return r, nil
}

// Elapsed is the time since the run was started, by the database's clock; 0
// before that.
func Elapsed(ctx context.Context, q db.DBTX, key uuid.UUID) (time.Duration, error) {
	ms, err := db.New(q).RunElapsed(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("run's elapsed time: %w", err)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// OfThread finds the newest runs of a thread that an owner has, newest first,
// before one of them when it is given.
func OfThread(ctx context.Context, q db.DBTX, owner Owner, threadID string, before *uuid.UUID, limit int) ([]db.Run, error) {
	runs, err := db.New(q).RunListOfThread(ctx, db.RunListOfThreadParams{
		ThreadID: threadID, Owner: string(owner), BeforeKey: before, MaxRuns: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("list the thread's runs: %w", err)
	}
	return runs, nil
}

// NewestFrames reads, for each of some runs, at most limit of its newest frames
// before a frame_seq, by run and newest first.
func NewestFrames(ctx context.Context, q db.DBTX, keys []uuid.UUID, before []int64, limit int) ([]db.FrameListNewestRow, error) {
	frames, err := db.New(q).FrameListNewest(ctx, db.FrameListNewestParams{RunKeys: keys, BeforeSeqs: before, MaxFrames: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list the newest frames: %w", err)
	}
	return frames, nil
}

// MessageID is the id of the run's one assistant message, the same in every
// replay of its stream.
func MessageID(r db.Run) string { return "msg-" + r.RunKey.String() }

// OfTools are at most limit frames after a position that bring a tool's result or
// ask for a tool, in their order.
func OfTools(ctx context.Context, q db.DBTX, key uuid.UUID, position int64, limit int) ([]db.Frame, error) {
	frames, err := db.New(q).FrameListOfTools(ctx, db.FrameListOfToolsParams{RunKey: key, AfterSeq: position, MaxFrames: int32(limit)})
	if err != nil {
		return nil, fmt.Errorf("list the frames of tools: %w", err)
	}
	return frames, nil
}

// Now is the moment by the database's clock, which deadlines are told by.
func Now(ctx context.Context, q db.DBTX) (time.Time, error) {
	now, err := db.New(q).RunNow(ctx)
	if err != nil {
		return now, fmt.Errorf("ask for the time: %w", err)
	}
	return now, nil
}

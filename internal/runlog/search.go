package runlog

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// RunsOfThread are the newest runs of a thread that have one owner, from one of
// them on, at most limit.
func RunsOfThread(ctx context.Context, q db.DBTX, threadID, owner string, from uuid.UUID, limit int) ([]db.RunLogListRunsOfThreadRow, error) {
	runs, err := db.New(q).RunLogListRunsOfThread(ctx, db.RunLogListRunsOfThreadParams{
		ThreadID: threadID, Owner: owner, FromKey: from, MaxRuns: int32(limit),
	})
	if err != nil {
		return nil, fmt.Errorf("list the runs of a thread: %w", err)
	}
	return runs, nil
}

// Search looks at the newest control events of a run from one seq on and before
// another, at most MaxEvents of them, for those whose payload holds every word,
// whatever the case. The last row says how far it came, and need not be a hit;
// there are at most MaxHits rows.
func Search(ctx context.Context, q db.DBTX, s db.RunLogSearchParams) ([]db.RunLogSearchRow, error) {
	rows, err := db.New(q).RunLogSearch(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("search the log: %w", err)
	}
	return rows, nil
}

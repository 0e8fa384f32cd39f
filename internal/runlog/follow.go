package runlog

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// workMark stands before the key of a run that has work.
const workMark = "!"

// Notified wakes the followers whom a notification's payload names: the sender,
// then the runs, comma separated. This process's own were woken by the
// appender. A payload that names no run does no more than that.
func (w *Watch) Notified(payload string) {
	sender, names, _ := strings.Cut(payload, ",")
	if sender == w.sender {
		return
	}
	var grown, work []uuid.UUID
	for s := range strings.SplitSeq(names, ",") {
		name, hasWork := strings.CutPrefix(s, workMark)
		k, err := uuid.Parse(name)
		if err != nil {
			continue
		}
		grown = append(grown, k)
		if hasWork {
			work = append(work, k)
		}
	}
	w.Wake(grown, work)
}

// Tick asks once per interval where the followed logs end, one question for
// all, and wakes the followers of those that have grown: what a lost
// notification missed is late by an interval and not lost.
func (w *Watch) Tick(ctx context.Context, pool *pgxpool.Pool, every time.Duration) error {
	t := time.NewTicker(every)
	defer t.Stop()
	seen := map[uuid.UUID]int64{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := w.tickOnce(ctx, pool, seen); err != nil && ctx.Err() == nil {
				slog.WarnContext(ctx, "the tick could not ask the database", "error", err.Error())
			}
		}
	}
}

func (w *Watch) tickOnce(ctx context.Context, pool *pgxpool.Pool, seen map[uuid.UUID]int64) error {
	keys := w.Followed()
	if len(keys) == 0 {
		clear(seen)
		return nil
	}
	rows, err := db.New(pool).RunHeadListSeqs(ctx, keys)
	if err != nil {
		return err
	}
	now := make(map[uuid.UUID]int64, len(rows))
	var grown []uuid.UUID
	for _, r := range rows {
		now[r.RunKey] = r.LatestSeq
		if seen[r.RunKey] != r.LatestSeq {
			grown = append(grown, r.RunKey)
		}
	}
	clear(seen)
	for k, seq := range now {
		seen[k] = seq
	}
	w.Wake(grown, nil)
	return nil
}

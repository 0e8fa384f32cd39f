package runlog

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Place is a place in a run's log: after an event.
type Place struct {
	RunKey uuid.UUID
	Seq    int64
}

// AfterEach is After for many places at once, each in another run, with one
// question to the database where no deltas were folded. The pages are in the
// order of the places.
func AfterEach(ctx context.Context, q db.DBTX, places []Place, limit int) ([][]db.RunLog, error) {
	ask := db.RunLogListAfterEachParams{MaxEvents: int64(limit)}
	which := make(map[uuid.UUID]int, len(places))
	for i, p := range places {
		which[p.RunKey] = i
		ask.RunKeys, ask.AfterSeqs = append(ask.RunKeys, p.RunKey), append(ask.AfterSeqs, p.Seq)
	}
	rows, err := db.New(q).RunLogListAfterEach(ctx, ask)
	if err != nil {
		return nil, fmt.Errorf("read the logs: %w", err)
	}
	pages := make([][]db.RunLog, len(places))
	for begin := 0; begin < len(rows); {
		end := begin + 1
		for end < len(rows) && rows[end].RunKey == rows[begin].RunKey {
			end++
		}
		i := which[rows[begin].RunKey]
		page := rows[begin:end:end]
		if !whole(page, places[i].Seq, limit) {
			if page, err = After(ctx, q, places[i].RunKey, places[i].Seq, limit); err != nil {
				return nil, err
			}
		}
		pages[i], begin = page, end
	}
	return pages, nil
}

// whole says whether a page has every event after a seq, up to its limit or the
// log's end.
func whole(page []db.RunLog, after int64, limit int) bool {
	return page[len(page)-1].Seq == after+int64(len(page)) && len(page) <= limit
}

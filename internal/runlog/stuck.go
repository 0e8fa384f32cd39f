package runlog

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// stuck are heads that somebody kept locked for longer than a lane waits, and
// since when this lane knows. Their units are not waited for again for a while:
// each would hold up the lane, and with it heads that others wait for.
type stuck map[uuid.UUID]time.Time

const stuckFor = time.Second

// among says whether one of the items' heads was locked a moment ago.
func (s stuck) among(items []*item) bool {
	if len(s) == 0 {
		return false
	}
	for key, since := range s {
		if time.Since(since) > stuckFor {
			delete(s, key)
		}
	}
	for _, it := range items {
		if _, ok := s[it.unit.RunKey]; ok {
			return true
		}
	}
	return false
}

// askFree decides under those heads that nobody else has locked. The units of the
// others are refused with ErrLocked.
func (l *lane) askFree(ctx context.Context, conn *pgx.Conn, items []*item) (*batch, error) {
	b := l.newBatch(map[uuid.UUID]*Head{})
	there, err := db.New(conn).RunHeadListKnown(ctx, keysOf(items))
	if err != nil {
		return b, fmt.Errorf("append: look for the heads: %w", err)
	}
	known := make(map[uuid.UUID]bool, len(there))
	for _, key := range there {
		known[key] = true
	}
	if err := b.lock(ctx, conn, items, false); err != nil {
		return b, rollback(conn, err)
	}
	var free []*item
	for _, it := range items {
		key := it.unit.RunKey
		if b.heads[key] == nil && known[key] {
			l.stuck[key] = time.Now()
			b.out[it] = outcome{err: ErrLocked}
			continue
		}
		free = append(free, it)
	}
	return b, b.decideAndStore(ctx, conn, free)
}

func keysOf(items []*item) []uuid.UUID {
	keys := make([]uuid.UUID, 0, len(items))
	for _, it := range items {
		keys = append(keys, it.unit.RunKey)
	}
	return keys
}

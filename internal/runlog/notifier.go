package runlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// notifier tells other processes which logs have grown, after the commits and
// beside them: a notification inside a commit takes a lock of the whole database
// over the flush. It sends what has gathered since the last time. What it could
// not send when the process dies, the others find by their tick.
type notifier struct {
	pool   *pgxpool.Pool
	sender string
	bell   chan struct{} // holds one ring

	mu    sync.Mutex
	grown map[uuid.UUID]bool // value: has a new frame or cancel
}

const (
	// notifyRest is how long the notifier rests when logs have grown while it
	// sent: it then cannot keep up with single commits, and each notification
	// wakes every process.
	notifyRest    = time.Millisecond
	notifyTimeout = 5 * time.Second
	notifyRetry   = 100 * time.Millisecond // it waits after a failure
)

func newNotifier(pool *pgxpool.Pool, sender string) *notifier {
	return &notifier{pool: pool, sender: sender, bell: make(chan struct{}, 1), grown: map[uuid.UUID]bool{}}
}

// tell notes logs that have grown, and which of them have work.
func (n *notifier) tell(grown []uuid.UUID, work map[uuid.UUID]bool) {
	if len(grown) == 0 {
		return
	}
	n.mu.Lock()
	for _, k := range grown {
		n.grown[k] = n.grown[k] || work[k]
	}
	n.mu.Unlock()
	n.ring()
}

func (n *notifier) ring() {
	select {
	case n.bell <- struct{}{}:
	default:
	}
}

// run sends until quit is closed, and then what is left.
func (n *notifier) run(quit <-chan struct{}) error {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-n.bell:
		case <-quit:
			return n.send(context.Background())
		}
		pause := notifyRest
		if n.send(context.Background()) != nil { // kept for the next time
			pause = notifyRetry
			n.ring()
		} else if len(n.bell) == 0 {
			continue
		}
		rest.Reset(pause)
		select {
		case <-rest.C:
		case <-quit:
			return n.send(context.Background())
		}
	}
}

// send notifies of what has gathered, or keeps it when that fails.
func (n *notifier) send(ctx context.Context) error {
	n.mu.Lock()
	grown := n.grown
	n.grown = map[uuid.UUID]bool{}
	n.mu.Unlock()
	if len(grown) == 0 {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, notifyTimeout)
	defer stop()
	pb := &pgx.Batch{}
	q := db.New(queuer{batch: pb})
	var err error
	for _, payload := range n.payloads(grown) {
		err = errors.Join(err, q.RunHeadNotify(ctx, payload))
	}
	if err == nil {
		err = n.pool.SendBatch(ctx, pb).Close()
	}
	if err == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, work := range grown {
		n.grown[k] = n.grown[k] || work
	}
	return fmt.Errorf("notify other processes: %w", err)
}

// payloads packs the sender and the keys into notifications of less than Postgres' 8,000 bytes.
func (n *notifier) payloads(grown map[uuid.UUID]bool) []string {
	const perPayload = 200 // of a mark, 36 characters and a comma
	names := make([]string, 0, len(grown))
	for k, work := range grown {
		if work {
			names = append(names, workMark+k.String())
		} else {
			names = append(names, k.String())
		}
	}
	var out []string
	for chunk := range slices.Chunk(names, perPayload) {
		out = append(out, n.sender+","+strings.Join(chunk, ","))
	}
	return out
}

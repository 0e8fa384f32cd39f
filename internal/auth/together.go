package auth

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

const (
	// togetherAtOnce is how many statements are on their way at once. With one,
	// a request waits for the one before its own on a service that has nothing
	// else to wait for.
	togetherAtOnce = 4
	// togetherWorth is how many nonces must wait before another statement begins
	// beside one that is on its way.
	togetherWorth = 4
	// togetherMost is how many nonces one statement takes.
	togetherMost = 256
	// togetherTime is how long a statement may take.
	togetherTime = 10 * time.Second
)

// NoncesTogether keeps nonces as PostgresNonces does, those of requests that
// come while as many statements as it has at once are on their way in the next one. A process has one.
type NoncesTogether struct {
	pool *pgxpool.Pool

	mu      sync.Mutex
	busy    int // statements on their way
	waiting []*asked
}

// asked is one request's nonce.
type asked struct {
	hash      []byte
	expiresAt time.Time
	fresh     bool
	err       error
	told      chan struct{} // closed when fresh and err are there
}

// NewNoncesTogether makes a store that no other part of the process has.
func NewNoncesTogether(pool *pgxpool.Pool) *NoncesTogether { return &NoncesTogether{pool: pool} }

func (n *NoncesTogether) Remember(ctx context.Context, hash []byte, expiresAt time.Time) (bool, error) {
	a := &asked{hash: hash, expiresAt: expiresAt, told: make(chan struct{})}
	n.mu.Lock()
	n.waiting = append(n.waiting, a)
	if n.busy == 0 || n.busy < togetherAtOnce && len(n.waiting) >= togetherWorth {
		n.busy++
		go n.work()
	}
	n.mu.Unlock()
	select {
	case <-a.told:
		return a.fresh, a.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// work answers for as long as somebody waits.
func (n *NoncesTogether) work() {
	for {
		n.mu.Lock()
		some := n.waiting[:min(len(n.waiting), togetherMost)]
		n.waiting = n.waiting[len(some):]
		if len(some) == 0 {
			n.busy--
			n.waiting = nil
			n.mu.Unlock()
			return
		}
		n.mu.Unlock()
		err := n.remember(some)
		for _, a := range some {
			a.err = err
			close(a.told)
		}
	}
}

// remember finds out which are fresh. Of equal ones the first may be.
func (n *NoncesTogether) remember(some []*asked) error {
	ctx, stop := context.WithTimeout(context.Background(), togetherTime)
	defer stop()
	if len(some) == 1 {
		fresh, err := PostgresNonces{Pool: n.pool}.Remember(ctx, some[0].hash, some[0].expiresAt)
		some[0].fresh = fresh
		return err
	}
	first := map[string]*asked{}
	var ask db.AuthNonceRememberManyParams
	for _, a := range some {
		if first[string(a.hash)] != nil {
			continue
		}
		first[string(a.hash)] = a
		ask.NonceHashes, ask.ExpireAts = append(ask.NonceHashes, a.hash), append(ask.ExpireAts, a.expiresAt)
	}
	fresh, err := db.New(n.pool).AuthNonceRememberMany(ctx, ask)
	if err != nil {
		return fmt.Errorf("insert into auth_nonces: %w", err)
	}
	for _, hash := range fresh {
		first[string(hash)].fresh = true
	}
	return nil
}

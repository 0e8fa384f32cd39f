package auth

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// NonceStore remembers which tokens were used. All processes that accept one
// keyring and audience share one store.
type NonceStore interface {
	// Remember notes a nonce's hash until expiresAt and says whether it was new.
	Remember(ctx context.Context, hash []byte, expiresAt time.Time) (fresh bool, err error)
}

// PostgresNonces keeps nonces in runtime.auth_nonces. Of two processes that ask
// at once exactly one hears that the nonce is new.
//
// A nonce's commit does not wait for the disk (its visibility to others does not
// depend on that). When the database server itself crashes, nonces of its last
// moments (three times wal_writer_delay, 0.6 s by default) may be forgotten, so a
// token captured then could be used once more before it expires. A request that
// wrote something is not open to this: a later durable commit, such as its own,
// takes the nonce's to disk first.
type PostgresNonces struct {
	Pool *pgxpool.Pool
}

func (p PostgresNonces) Remember(ctx context.Context, hash []byte, expiresAt time.Time) (bool, error) {
	n, err := db.New(p.Pool).AuthNonceRemember(ctx, db.AuthNonceRememberParams{NonceHash: hash, ExpiresAt: expiresAt})
	if err != nil {
		return false, fmt.Errorf("insert into auth_nonces: %w", err)
	}
	return n == 1, nil
}

// Sweep forgets nonces whose tokens have expired and says how many. It may run
// in every process at once.
func (p PostgresNonces) Sweep(ctx context.Context) (int64, error) {
	n, err := db.New(p.Pool).AuthNonceSweep(ctx)
	if err != nil {
		return 0, fmt.Errorf("sweep auth_nonces: %w", err)
	}
	return n, nil
}

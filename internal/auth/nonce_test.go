package auth_test

import (
	"context"
	"crypto/sha256"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func hashOf(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}

// A5: a token used in one process is used in all, also after a restart.
func TestATokenIsGoodOnceInAllProcesses(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	process := func() *auth.Verifier {
		v := verifier(t)
		v.Nonces = auth.PostgresNonces{Pool: pool}
		v.Now = time.Now
		return v
	}
	token, err := auth.Sign(process().Keys, newCall().claims, time.Now())
	require.NoError(t, err)
	r := newCall().Request
	r.Header.Set(auth.SignatureHeader, token)

	const racing = 16
	var all sync.WaitGroup
	answers := make(chan error, racing)
	for range racing {
		v := process()
		all.Go(func() {
			_, err := v.Verify(t.Context(), r)
			answers <- err
		})
	}
	all.Wait()
	close(answers)
	let := 0
	for err := range answers {
		if err == nil {
			let++
			continue
		}
		require.Equal(t, 401, refused(t, err, auth.NonceReplayed).Status())
	}
	require.Equal(t, 1, let)

	_, err = process().Verify(t.Context(), r)
	refused(t, err, auth.NonceReplayed)
}

// A6: nothing but time makes the store forget, however many nonces come.
func TestAFloodOfNoncesPushesNoneOut(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	store := auth.PostgresNonces{Pool: pool}
	fresh, err := store.Remember(t.Context(), hashOf("first"), time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.True(t, fresh)
	_, err = pool.Exec(t.Context(), `INSERT INTO runtime.auth_nonces (nonce_hash, expires_at)
		SELECT sha256(n::text::bytea), clock_timestamp() + interval '1 minute' FROM generate_series(1, 50000) n`)
	require.NoError(t, err)
	swept, err := store.Sweep(t.Context())
	require.NoError(t, err)
	require.Zero(t, swept)
	fresh, err = store.Remember(t.Context(), hashOf("first"), time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.False(t, fresh)
}

func TestSweepForgetsWhatHasExpired(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	store := auth.PostgresNonces{Pool: pool}
	_, err := pool.Exec(t.Context(), `INSERT INTO runtime.auth_nonces (nonce_hash, expires_at)
		VALUES ($1, clock_timestamp() - interval '1 second'), ($2, clock_timestamp() + interval '1 minute')`,
		hashOf("gone"), hashOf("kept"))
	require.NoError(t, err)
	swept, err := store.Sweep(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, swept)
	fresh, err := store.Remember(t.Context(), hashOf("kept"), time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.False(t, fresh)
}

// The database's clock decides: what Sweep may have forgotten is never new.
func TestANonceThatMayBeForgottenIsNotTaken(t *testing.T) {
	t.Parallel()
	store := auth.PostgresNonces{Pool: dbtest.New(t)}
	fresh, err := store.Remember(t.Context(), hashOf("late"), time.Now().Add(-time.Second))
	require.NoError(t, err)
	require.False(t, fresh)
}

// Only the nonce's own commit does not wait for the disk; the connection goes
// back to the pool as it came.
func TestOnlyTheNonceIsCommittedWithoutWaiting(t *testing.T) {
	t.Parallel()
	config, err := pgxpool.ParseConfig(dbtest.URL(t))
	require.NoError(t, err)
	config.MaxConns = 1
	config.ConnConfig.RuntimeParams["synchronous_commit"] = "on"
	config.ConnConfig.RuntimeParams["search_path"] = "runtime"
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	require.NoError(t, err)
	defer pool.Close()
	_, err = pool.Exec(t.Context(), `
		CREATE TABLE at_commit (setting text);
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO at_commit VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER note AFTER INSERT ON runtime.auth_nonces
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()`)
	require.NoError(t, err)

	fresh, err := auth.PostgresNonces{Pool: pool}.Remember(t.Context(), hashOf("one"), time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.True(t, fresh)

	var committed, after string
	require.NoError(t, pool.QueryRow(t.Context(),
		`SELECT setting, current_setting('synchronous_commit') FROM at_commit`).Scan(&committed, &after))
	require.Equal(t, "off", committed)
	require.Equal(t, "on", after)
}

func TestAClosedDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	store := auth.PostgresNonces{Pool: pool}
	pool.Close()
	_, err := store.Remember(t.Context(), hashOf("x"), time.Now().Add(time.Minute))
	require.Error(t, err)
	_, err = store.Sweep(t.Context())
	require.Error(t, err)
}

type forgetful struct{}

func (forgetful) Remember(context.Context, []byte, time.Time) (bool, error) { return true, nil }

func BenchmarkVerify(b *testing.B) {
	v := verifier(b)
	v.Nonces = forgetful{}
	r := newCall().sign(b, v.Keys).Request
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

// Package dbtest gives each test a fresh migrated database.
//
// A package that uses it has
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// The databases are on the server that TEST_DATABASE_URL names, whose role must
// be allowed to create databases, or else on a private server that the test
// binary starts when the first test asks and that ends with it.
package dbtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
)

const (
	setUpTime   = 2 * time.Minute  // a loaded machine creates the cluster and the template
	releaseTime = 10 * time.Second // for connections that a test still holds at its end
	poolConns   = 16
)

// Main runs the package's tests, ends the private server and exits.
func Main(m *testing.M) {
	suite.inMain = true
	code := m.Run()
	if err := suite.stop(); err != nil {
		fmt.Fprintf(os.Stderr, "dbtest: %v\n", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New returns a pool on this test's database, the same at every call. The
// database is dropped when the test passes. When it fails, its rows go to the
// test's log, and on a server that outlives the tests the database is kept.
// Sessions are in a time zone half an hour off, so that a forgotten zone shows.
func New(t testing.TB) *pgxpool.Pool {
	t.Helper()
	d := of(t, migrated)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pool != nil {
		return d.pool
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	pool, err := pg.Open(ctx, pg.Config{URL: d.url, MaxConns: poolConns, AppName: "test"})
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	d.pool = pool
	t.Cleanup(func() { closePool(t, pool) })
	return pool
}

// URL returns the URL of this test's database, the one that New's pool is on.
func URL(t testing.TB) string {
	t.Helper()
	return of(t, migrated).url
}

// EmptyURL returns the URL of a database of this test without any schema of
// ours, the same at every call.
func EmptyURL(t testing.TB) string {
	t.Helper()
	return of(t, empty).url
}

type kind int

const (
	migrated kind = iota
	empty
)

// database is one test's database of one kind.
type database struct {
	name, url string

	mu   sync.Mutex
	pool *pgxpool.Pool
}

type key struct {
	t    testing.TB
	kind kind
}

var (
	databasesMu sync.Mutex
	databases   = map[key]*database{}
)

// of returns the test's database, creating it at the first call.
func of(t testing.TB, k kind) *database {
	t.Helper()
	databasesMu.Lock()
	d, ok := databases[key{t, k}]
	databasesMu.Unlock()
	if ok {
		return d
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	d, err := suite.create(ctx, t.Name(), k)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	databasesMu.Lock()
	databases[key{t, k}] = d
	databasesMu.Unlock()
	t.Cleanup(func() {
		databasesMu.Lock()
		delete(databases, key{t, k})
		databasesMu.Unlock()
		suite.finish(t, d)
	})
	return d
}

// closePool fails the test that still holds a connection, where the pool would
// wait for ever.
func closePool(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	closed := make(chan struct{})
	go func() {
		pool.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(releaseTime):
		t.Errorf("dbtest: %d connections of the pool are still in use at the test's end", pool.Stat().AcquiredConns())
	}
}

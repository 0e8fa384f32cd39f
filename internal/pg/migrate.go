package pg

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

const versionTable = Schema + ".goose_db_version"

// A replica that waits for another's migrations tries once a second. It tries
// rather than waits inside the lock: a waiting statement holds a snapshot, and
// CREATE INDEX CONCURRENTLY waits for every snapshot.
const (
	lockTrySeconds = 1
	lockTries      = 15 * 60
)

// Migrate applies the migrations in files that the database lacks, one
// transaction each, and reports each on progress. Any number of processes may
// call it at once: one applies a migration, the others wait, up to 15 minutes.
// Migrations with an earlier number than the newest applied one are applied too,
// because branches merge in another order than they were begun.
func Migrate(ctx context.Context, databaseURL string, files fs.FS, progress func(string)) (err error) {
	db, err := migrationDB(databaseURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := ensureSchema(ctx, db); err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockTrySeconds, lockTries))
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	p, err := provider(db, files, goose.WithSessionLocker(locker), goose.WithAllowOutofOrder(true))
	if err != nil {
		return err
	}
	for {
		done, err := p.UpByOne(ctx)
		if errors.Is(err, goose.ErrNoNextVersion) {
			return nil
		}
		var failed *goose.PartialError
		if errors.As(err, &failed) {
			return fmt.Errorf("apply %s: %w", path.Base(failed.Failed.Source.Path), failed.Err)
		}
		if err != nil {
			return fmt.Errorf("migrate: %w", err)
		}
		progress(fmt.Sprintf("applied %s in %d ms", path.Base(done.Source.Path), done.Duration.Milliseconds()))
	}
}

// SchemaError says how the database's schema differs from this program's.
type SchemaError struct {
	Pending []string // files that were not applied
	Unknown []int64  // applied versions that this program does not have: it is the older one
}

func (e *SchemaError) Error() string {
	var parts []string
	if len(e.Pending) > 0 {
		parts = append(parts, "pending: "+strings.Join(e.Pending, ", "))
	}
	if len(e.Unknown) > 0 {
		unknown := make([]string, len(e.Unknown))
		for i, v := range e.Unknown {
			unknown[i] = strconv.FormatInt(v, 10)
		}
		parts = append(parts, "applied but unknown to this version: "+strings.Join(unknown, ", "))
	}
	return "the database's schema is not this version's: " + strings.Join(parts, "; ")
}

// Verify compares the database with files and changes nothing. A difference is
// a *SchemaError.
func Verify(ctx context.Context, databaseURL string, files fs.FS) (err error) {
	db, err := migrationDB(databaseURL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := provider(db, files)
	if err != nil {
		return err
	}
	applied, err := appliedVersions(ctx, db)
	if err != nil {
		return err
	}
	var diff SchemaError
	for _, s := range p.ListSources() {
		if !applied[s.Version] {
			diff.Pending = append(diff.Pending, path.Base(s.Path))
		}
		delete(applied, s.Version)
	}
	for v := range applied {
		diff.Unknown = append(diff.Unknown, v)
	}
	slices.Sort(diff.Unknown)
	if len(diff.Pending)+len(diff.Unknown) > 0 {
		return &diff
	}
	return nil
}

// migrationDB opens the database for migrations: no statement timeout, because
// an index may take hours.
func migrationDB(databaseURL string) (*sql.DB, error) {
	pc, err := parse(databaseURL)
	if err != nil {
		return nil, err
	}
	cc := pc.ConnConfig
	prepare(cc, DefaultAppName+" migrate")
	cc.RuntimeParams["statement_timeout"] = "0"
	// Statements of a migration run once each, and DDL outdates cached plans.
	cc.DefaultQueryExecMode = pgx.QueryExecModeExec
	return stdlib.OpenDB(*cc), nil
}

func ensureSchema(ctx context.Context, db *sql.DB) error {
	// Without this question a role that may not create schemas could not
	// migrate a database whose schema was made for it.
	found, err := schemaExists(ctx, db)
	if err != nil || found {
		return err
	}
	if _, err := db.ExecContext(ctx, "CREATE SCHEMA IF NOT EXISTS "+Schema); err != nil {
		// Of two that create it at once, one fails in spite of IF NOT EXISTS.
		if found, again := schemaExists(ctx, db); again == nil && found {
			return nil
		}
		return fmt.Errorf("create the schema %s: %w", Schema, err)
	}
	return nil
}

func schemaExists(ctx context.Context, db *sql.DB) (bool, error) {
	var found bool
	err := db.QueryRowContext(ctx, "SELECT to_regnamespace('"+Schema+"') IS NOT NULL").Scan(&found)
	if err != nil {
		return false, fmt.Errorf("look for the schema %s: %w", Schema, err)
	}
	return found, nil
}

func provider(db *sql.DB, files fs.FS, opts ...goose.ProviderOption) (*goose.Provider, error) {
	opts = append(opts, goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, opts...)
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	return p, nil
}

// appliedVersions reads goose's table itself, because goose would create it.
func appliedVersions(ctx context.Context, db *sql.DB) (map[int64]bool, error) {
	var found bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass('"+versionTable+"') IS NOT NULL").Scan(&found); err != nil {
		return nil, fmt.Errorf("look for applied migrations: %w", err)
	}
	applied := map[int64]bool{}
	if !found {
		return applied, nil
	}
	rows, err := db.QueryContext(ctx, "SELECT version_id FROM "+versionTable+" WHERE is_applied AND version_id > 0")
	if err != nil {
		return nil, fmt.Errorf("read applied migrations: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err below tells
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return nil, fmt.Errorf("read applied migrations: %w", err)
		}
		applied[v] = true
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read applied migrations: %w", err)
	}
	return applied, nil
}

package dbtest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
)

const (
	dumpRows  = 20  // of each table
	dumpWidth = 600 // characters of each row
)

// dump writes the rows of every table of ours to the test's log.
func dump(ctx context.Context, t testing.TB, databaseURL string) (err error) {
	t.Helper()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("read the failed test's database: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	// A partition's rows are shown with the table that it is a part of.
	rows, err := conn.Query(ctx, `
		SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
		  AND c.relname <> 'goose_db_version'
		ORDER BY c.relname`, pg.Schema)
	if err != nil {
		return fmt.Errorf("list the failed test's tables: %w", err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list the failed test's tables: %w", err)
	}
	for _, table := range tables {
		if err := dumpTable(ctx, t, conn, table); err != nil {
			return fmt.Errorf("read %s of the failed test: %w", table, err)
		}
	}
	return nil
}

func dumpTable(ctx context.Context, t testing.TB, conn *pgx.Conn, table string) error {
	t.Helper()
	name := pgx.Identifier{pg.Schema, table}.Sanitize()
	var count int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+name).Scan(&count); err != nil {
		return err
	}
	if count == 0 {
		return nil
	}
	rows, err := conn.Query(ctx, "SELECT left(row_to_json(x)::text, $1) FROM "+name+" x LIMIT $2", dumpWidth, dumpRows)
	if err != nil {
		return err
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	t.Logf("dbtest: %s, %d of %d rows", table, len(texts), count)
	for _, text := range texts {
		t.Logf("  %s", text)
	}
	return nil
}

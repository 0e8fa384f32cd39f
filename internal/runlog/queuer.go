package runlog

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errQueued is what a query that returns rows answers in a queuer: the rows
// come when the batch is sent.
var errQueued = errors.New("queued")

// queuer lets the generated queries fill a batch, so that a transaction costs
// as few round trips as it has decisions.
type queuer struct {
	batch *pgx.Batch
	rows  func(pgx.Rows) error
}

// Exec queues a statement without rows.
func (q queuer) Exec(_ context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	q.batch.Queue(sql, args...)
	return pgconn.CommandTag{}, nil
}

// Query queues a statement whose rows go to q.rows.
func (q queuer) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	q.batch.Queue(sql, args...).Query(q.rows)
	return nil, errQueued
}

// QueryRow is not for a unit's rows: they write and do not read.
func (q queuer) QueryRow(context.Context, string, ...any) pgx.Row { return noRow{} }

type noRow struct{}

func (noRow) Scan(...any) error {
	return errors.New("a unit's statement cannot return a row; read before the unit is made")
}

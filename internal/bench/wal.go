package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// walMeter tells how much write-ahead log a cell writes.
type walMeter struct{ conn *pgx.Conn }

func newWALMeter(ctx context.Context, databaseURL string) (*walMeter, error) {
	conn, err := pgx.Connect(ctx, databaseURL)
	return &walMeter{conn}, err
}

func (w *walMeter) close() error { return w.conn.Close(context.Background()) }

// around measures a cell and adds "wal", the bytes of the server's log per
// operation. Everything that the server writes meanwhile counts.
func (w *walMeter) around(ctx context.Context, c cell, d time.Duration) (result, error) {
	const now = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
	var before, after int64
	if err := w.conn.QueryRow(ctx, now).Scan(&before); err != nil {
		return result{}, err
	}
	r, err := c.measure(ctx, d)
	if err != nil {
		return r, err
	}
	if err := w.conn.QueryRow(ctx, now).Scan(&after); err != nil {
		return r, err
	}
	if r.done == 0 {
		return r, nil
	}
	return r.with("wal", float64(after-before)/float64(r.done)), nil
}

// fsyncs is how often the server has flushed its log, with what the sessions of
// an application have not reported yet: a session does so when it ends.
func fsyncs(ctx context.Context, conn *pgx.Conn, app string, end func()) (n int64, err error) {
	const theirs = "FROM pg_stat_activity WHERE application_name = $1"
	var pids []int32
	if err := conn.QueryRow(ctx, "SELECT coalesce(array_agg(pid), '{}') "+theirs, app).Scan(&pids); err != nil {
		return 0, err
	}
	end()
	for gone := false; !gone; {
		if err := until(ctx, time.Now().Add(5*time.Millisecond)); err != nil {
			return 0, err
		}
		if err := conn.QueryRow(ctx, "SELECT NOT EXISTS (SELECT "+theirs+" AND pid = ANY($2))", app, pids).Scan(&gone); err != nil {
			return 0, err
		}
	}
	_, clearErr := conn.Exec(ctx, "SELECT pg_stat_clear_snapshot()")
	return n, errors.Join(clearErr, conn.QueryRow(ctx, "SELECT wal_sync FROM pg_stat_wal").Scan(&n))
}

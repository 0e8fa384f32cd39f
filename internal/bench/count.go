package main

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/pg"
)

// counter counts the questions that pools ask the database. A batch counts as one.
type counter struct {
	all  atomic.Int64
	logs atomic.Int64 // pages of logs among them
}

// TraceQueryStart counts a question.
func (c *counter) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	c.all.Add(1)
	if strings.Contains(q.SQL, "RunLogListAfter") {
		c.logs.Add(1)
	}
	return ctx
}

// TraceQueryEnd is the other half of a pgx.QueryTracer.
func (c *counter) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceBatchStart counts a batch.
func (c *counter) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	c.all.Add(1)
	return ctx
}

// TraceBatchQuery is for a batch's parts, which are not counted.
func (c *counter) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

// TraceBatchEnd is the other half of a pgx.BatchTracer.
func (c *counter) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData) {}

// openPool opens a pool as the service does, and then one like it after a change.
func openPool(ctx context.Context, cfg pg.Config, change func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	pool, err := pg.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	like := pool.Config()
	change(like)
	return pgxpool.NewWithConfig(ctx, like)
}

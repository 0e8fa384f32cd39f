package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/internal/approval"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/janitor"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// sweeps are what a process does from time to time to keep the database in shape.
func sweeps(c config, pool *pgxpool.Pool, appender *runlog.Appender, secrets *secret.Store) []janitor.Sweep {
	log := c.retention(pool)
	return []janitor.Sweep{
		{Name: "auth_nonces", Every: time.Minute, Once: auth.PostgresNonces{Pool: pool}.Sweep},
		{Name: "approvals", Every: 5 * time.Second, Once: func(ctx context.Context) (int64, error) {
			return approval.Expire(ctx, pool, appender)
		}},
		{Name: "tool_overdue", Every: 5 * time.Second, Once: func(ctx context.Context) (int64, error) { return tool.Overdue(ctx, pool) }},
		{Name: "tool_orphans", Every: time.Minute, Once: func(ctx context.Context) (int64, error) { return tool.Orphans(ctx, pool) }},
		{Name: "tool_secrets", Every: time.Minute, Once: secrets.Once},
		{Name: "policy_evaluations", Every: time.Hour,
			Once: tool.Retention{Pool: pool, Evaluations: c.RetainEvals, Events: c.RetainEvents}.Prune},
		{Name: "log_partitions", Every: time.Hour, Once: log.Prepare},
		{Name: "log_fold", Every: time.Minute, Once: log.Fold},
		{Name: "log_age_out", Every: 10 * time.Minute, Once: log.AgeOut},
	}
}

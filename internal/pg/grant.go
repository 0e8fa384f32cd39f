package pg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// grants are what serving needs, and no more: the log, receipts and what policy
// decided from are only added to, a log's floor is moved by upkeep alone, and
// nothing is deleted but the cap of a period that an amendment takes away.
// Partitions are reached through their parents, so that a new one needs none.
var grants = []string{
	"REVOKE ALL ON ALL TABLES IN SCHEMA " + Schema + " FROM %[1]s",
	"GRANT USAGE ON SCHEMA " + Schema + " TO %[1]s",
	"GRANT SELECT ON runs, run_heads, run_log, run_log_deltas, run_log_folds, run_events, frames, run_leases, " +
		"ds_predict_receipts, auth_nonces, checkpoints, goose_db_version, tool_tasks, tool_refusals, tool_rates, approvals, " +
		"ds_policy_evaluations, ds_policy_evaluation_runs, tool_specs, skill_specs, skill_releases TO %[1]s",
	"GRANT INSERT ON runs, run_heads, run_log, run_log_deltas, frames, run_leases, ds_predict_receipts, auth_nonces, checkpoints, " +
		"tool_tasks, tool_refusals, tool_rates, approvals, ds_policy_evaluations, ds_policy_evaluation_runs, " +
		"tool_specs, skill_specs, skill_releases TO %[1]s",
	"GRANT UPDATE (status, runnable, due_at, reason_class, reason, started_at, finished_at, updated_at) ON runs TO %[1]s",
	"GRANT UPDATE (latest_seq, latest_hash, lease_epoch, frame_count, frame_position, status, cancel_requested) ON run_heads TO %[1]s",
	"GRANT UPDATE (lease_owner, lease_epoch, lease_expires_at, heartbeat_at, released, progress_seq, lost_count, lost_since) ON run_leases TO %[1]s",
	"GRANT UPDATE (state, attempts, lease_epoch, provider, running_at, streaming_at, deadline_at, finished_at, updated_at, decision, " +
		"reason_code, evaluation_hash, output, output_hash, output_truncated, progress_count, error_class, error_message, " +
		"fallback_used, correlation_id, latency_ms, result_frame_id, receipt, receipt_hash, cancel_requested) ON tool_tasks TO %[1]s",
	"GRANT UPDATE (state, decided_at, decided_by, decision_reason, decision_content) ON approvals TO %[1]s",
	"GRANT UPDATE (per_minute, call_ids, taken_at) ON tool_rates TO %[1]s",
	"GRANT UPDATE (inserted_at) ON ds_policy_evaluations TO %[1]s",
	"GRANT UPDATE (state, spec, content_hash, updated_at) ON tool_specs, skill_specs TO %[1]s",
	"GRANT UPDATE (state_version, seq, state, lease_epoch, inserted_at) ON checkpoints TO %[1]s",

	// Money: whose an authorization is, what was held for whom, and what was booked
	// stay as they were written.
	"GRANT SELECT ON spend_ledger_drift, ds_artifact_pointers, ds_pointer_audits, ds_compile_reports TO %[1]s",
	"GRANT SELECT, INSERT ON spend_authorizations, spend_periods, spend_reservations, spend_ledger_entries, spend_authorization_events TO %[1]s",
	"GRANT UPDATE (max_total_sats, max_per_call_sats, max_per_day_sats, threshold_sats, spent_sats, reserved_sats, overage_sats, constraints, " +
		"on_exhaustion, unknown_price, metadata, revision, not_before, expires_at, revoked_at, revoked_by, revoke_reason, updated_at) " +
		"ON spend_authorizations TO %[1]s",
	"GRANT UPDATE (max_sats, period_start, captured_sats, held_sats, overage_sats), DELETE ON spend_periods TO %[1]s",
	"GRANT UPDATE (state, committed_sats, provider_correlation_id, proof, maybe_billed, failure_reason, lease_epoch, started_at, marked_at, " +
		"committed_at, released_at, reconciled_at, reconciled_by, probe_count, next_probe_at, updated_at) ON spend_reservations TO %[1]s",
}

// Grant gives a role what a process needs that serves and executes runs, in one
// transaction, and takes from it what it had beyond that. The role must exist.
// Sweeps need the owner of the tables.
func Grant(ctx context.Context, databaseURL, role string) (err error) {
	pc, err := parse(databaseURL)
	if err != nil {
		return err
	}
	prepare(pc.ConnConfig, DefaultAppName+" grant")
	conn, err := pgx.ConnectConfig(ctx, pc.ConnConfig)
	if err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		for _, sql := range grants {
			if _, err := tx.Exec(ctx, fmt.Sprintf(sql, pgx.Identifier{role}.Sanitize())); err != nil {
				return fmt.Errorf("grant to %s: %w", role, err)
			}
		}
		return nil
	})
}

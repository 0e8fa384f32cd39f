-- name: SpendReservationInsertMany :exec
-- Notes what is held for calls. A call has one hold, and an invoice is held for
-- once: the second breaks a key, and with it its unit. Fails with OA003 when an
-- epoch is not the one that may write to the run. The order keeps processes
-- that hold for the same invoices from deadlocking.
WITH held AS (
    INSERT INTO spend_reservations (run_key, tool_call_id, authorization_id, path, run_id, kind, tool_name, provider, host, payee,
        amount_sats, max_overage_bps, retry_class, request_hash, lease_epoch, provider_idempotency_key, payment_hash, quote,
        evaluation_hash, approval_id, started_at)
    SELECT u.run_key, u.tool_call_id, u.authorization_id, string_to_array(u.path, ','), u.run_id, u.kind,
           nullif(u.tool_name, ''), nullif(u.provider, ''), nullif(u.host, ''), nullif(u.payee, ''),
           u.amount_sats, u.max_overage_bps, u.retry_class, nullif(u.request_hash, ''), u.lease_epoch,
           nullif(u.provider_idempotency_key, ''), nullif(u.payment_hash, ''), nullif(u.quote, '')::json,
           u.evaluation_hash, nullif(u.approval_id, ''), CASE WHEN u.started THEN clock_timestamp() END
    FROM (SELECT unnest(@run_keys::uuid[]) AS run_key,
                 unnest(@tool_call_ids::text[]) AS tool_call_id,
                 unnest(@authorization_ids::text[]) AS authorization_id,
                 unnest(@paths::text[]) AS path,
                 unnest(@run_ids::text[]) AS run_id,
                 unnest(@kinds::text[]) AS kind,
                 unnest(@tool_names::text[]) AS tool_name,
                 unnest(@providers::text[]) AS provider,
                 unnest(@hosts::text[]) AS host,
                 unnest(@payees::text[]) AS payee,
                 unnest(@amounts_sats::bigint[]) AS amount_sats,
                 unnest(@max_overages_bps::integer[]) AS max_overage_bps,
                 unnest(@retry_classes::text[]) AS retry_class,
                 unnest(@request_hashes::text[]) AS request_hash,
                 unnest(@lease_epochs::bigint[]) AS lease_epoch,
                 unnest(@provider_idempotency_keys::text[]) AS provider_idempotency_key,
                 unnest(@payment_hashes::text[]) AS payment_hash,
                 unnest(@quotes::text[]) AS quote,
                 unnest(@evaluation_hashes::text[]) AS evaluation_hash,
                 unnest(@approval_ids::text[]) AS approval_id,
                 unnest(@starteds::boolean[]) AS started) u
    JOIN run_heads h ON h.run_key = u.run_key AND h.lease_epoch = u.lease_epoch
    ORDER BY u.payment_hash
    RETURNING 1
)
SELECT spend_expect('OA003', count(*), cardinality(@run_keys::uuid[])) FROM held;

-- name: SpendReservationMoveMany :exec
-- Moves reservations from the state that whoever decided knew. Fails with OA002
-- when one is in another. What is empty or negative stays as it is.
WITH moved AS (
    UPDATE spend_reservations r
    SET state = u.state,
        committed_sats = CASE WHEN u.committed_sats >= 0 THEN u.committed_sats ELSE r.committed_sats END,
        provider_correlation_id = coalesce(nullif(u.provider_correlation_id, ''), r.provider_correlation_id),
        proof = coalesce(nullif(u.proof, '')::json, r.proof),
        maybe_billed = CASE WHEN u.committed_sats >= 0 THEN u.maybe_billed ELSE r.maybe_billed END,
        failure_reason = coalesce(nullif(u.failure_reason, ''), r.failure_reason),
        lease_epoch = greatest(r.lease_epoch, u.lease_epoch),
        started_at = CASE WHEN u.started THEN coalesce(r.started_at, clock_timestamp()) ELSE r.started_at END,
        marked_at = CASE WHEN u.state = 'reconcile_required' THEN coalesce(r.marked_at, clock_timestamp()) ELSE r.marked_at END,
        next_probe_at = CASE WHEN u.state = 'reconcile_required' THEN clock_timestamp() END,
        committed_at = CASE WHEN u.committed_sats >= 0 THEN clock_timestamp() ELSE r.committed_at END,
        released_at = CASE WHEN u.state = 'released' THEN clock_timestamp() END,
        reconciled_at = CASE WHEN u.reconciled_by <> '' THEN clock_timestamp() ELSE r.reconciled_at END,
        reconciled_by = coalesce(nullif(u.reconciled_by, ''), r.reconciled_by),
        updated_at = clock_timestamp()
    FROM (SELECT unnest(@run_keys::uuid[]) AS run_key,
                 unnest(@tool_call_ids::text[]) AS tool_call_id,
                 unnest(@known_states::text[]) AS known_state,
                 unnest(@states::text[]) AS state,
                 unnest(@committed_sats::bigint[]) AS committed_sats,
                 unnest(@provider_correlation_ids::text[]) AS provider_correlation_id,
                 unnest(@proofs::text[]) AS proof,
                 unnest(@maybe_billeds::boolean[]) AS maybe_billed,
                 unnest(@failure_reasons::text[]) AS failure_reason,
                 unnest(@lease_epochs::bigint[]) AS lease_epoch,
                 unnest(@starteds::boolean[]) AS started,
                 unnest(@reconciled_bys::text[]) AS reconciled_by) u
    WHERE r.run_key = u.run_key AND r.tool_call_id = u.tool_call_id AND r.state = u.known_state
    RETURNING 1
)
SELECT spend_expect('OA002', count(*), cardinality(@run_keys::uuid[])) FROM moved;

-- name: SpendReservationGet :one
SELECT * FROM spend_reservations WHERE run_key = @run_key AND tool_call_id = @tool_call_id;

-- name: SpendReservationListMany :many
-- The reservations of some calls.
SELECT r.* FROM spend_reservations r
JOIN (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@tool_call_ids::text[]) AS tool_call_id) c USING (run_key, tool_call_id);

-- name: SpendReservationListOfRun :many
SELECT * FROM spend_reservations WHERE run_key = @run_key ORDER BY reserved_at, tool_call_id;

-- name: SpendReservationListOpenOfRun :many
-- What a run holds: reservations that are not settled.
SELECT * FROM spend_reservations
WHERE run_key = @run_key AND state IN ('reserved', 'reconcile_required')
ORDER BY reserved_at, tool_call_id;

-- name: SpendReservationGetByInvoice :one
-- Who holds an invoice, or has paid it.
SELECT * FROM spend_reservations WHERE payment_hash = @payment_hash AND state <> 'released';

-- name: SpendReservationList :many
-- Newest first, after the last one of the page before.
SELECT * FROM spend_reservations
WHERE (sqlc.narg('authorization_id')::text IS NULL OR authorization_id = sqlc.narg('authorization_id')::text)
  AND (sqlc.narg('below_id')::text IS NULL OR authorization_id IN
       (SELECT b.authorization_id FROM spend_authorizations b WHERE b.path @> ARRAY[sqlc.narg('below_id')::text]))
  AND (sqlc.narg('owner')::text IS NULL OR authorization_id IN
       (SELECT o.authorization_id FROM spend_authorizations o WHERE o.owner = sqlc.narg('owner')::text))
  AND (sqlc.narg('state')::text IS NULL OR state = sqlc.narg('state')::text)
  AND (sqlc.narg('run_key')::uuid IS NULL OR run_key = sqlc.narg('run_key')::uuid)
  AND (sqlc.narg('before_at')::timestamptz IS NULL
       OR (reserved_at, run_key, tool_call_id) <
          (sqlc.narg('before_at')::timestamptz, sqlc.narg('before_key')::uuid, sqlc.narg('before_call_id')::text))
ORDER BY reserved_at DESC, run_key DESC, tool_call_id DESC
LIMIT @max_reservations;

-- name: SpendReservationListStuck :many
-- Reservations that nobody is at work on: held for so long, and their run has
-- ended, or their call has, or the provider may have been asked and no executor
-- has held the run for so long. The oldest first, after some moment.
SELECT sqlc.embed(r), h.lease_epoch AS head_epoch
FROM spend_reservations r
JOIN runs u USING (run_key)
JOIN run_heads h USING (run_key)
LEFT JOIN run_leases l USING (run_key)
LEFT JOIN tool_tasks t ON t.run_key = r.run_key AND t.tool_call_id = r.tool_call_id
WHERE r.state = 'reserved' AND r.reserved_at <= clock_timestamp() - @age::interval
  AND (u.status IN ('completed', 'failed', 'canceled')
       OR t.state IN ('succeeded', 'failed', 'canceled', 'timed_out')
       OR (r.kind = 'tool' AND r.started_at IS NOT NULL
           AND coalesce(l.lease_expires_at, '-infinity') <= clock_timestamp() - @age::interval))
ORDER BY r.reserved_at, r.run_key, r.tool_call_id
LIMIT @max_reservations;

-- name: SpendReservationCountStuck :one
-- How many SpendReservationListStuck would list without a limit.
SELECT count(*)
FROM spend_reservations r
JOIN runs u USING (run_key)
LEFT JOIN run_leases l USING (run_key)
LEFT JOIN tool_tasks t ON t.run_key = r.run_key AND t.tool_call_id = r.tool_call_id
WHERE r.state = 'reserved' AND r.reserved_at <= clock_timestamp() - @age::interval
  AND (u.status IN ('completed', 'failed', 'canceled')
       OR t.state IN ('succeeded', 'failed', 'canceled', 'timed_out')
       OR (r.kind = 'tool' AND r.started_at IS NOT NULL
           AND coalesce(l.lease_expires_at, '-infinity') <= clock_timestamp() - @age::interval));

-- name: SpendReservationTakeDue :many
-- Takes reservations whose truth is to be asked for now: other processes leave
-- them alone until the pause is over. The longest due first.
UPDATE spend_reservations r
SET next_probe_at = clock_timestamp() + @pause::interval, probe_count = r.probe_count + 1, updated_at = clock_timestamp()
WHERE (r.run_key, r.tool_call_id) IN (
    SELECT d.run_key, d.tool_call_id FROM spend_reservations d
    WHERE d.state = 'reconcile_required' AND d.next_probe_at <= clock_timestamp()
    ORDER BY d.next_probe_at
    LIMIT @max_reservations
    FOR UPDATE SKIP LOCKED)
RETURNING r.*;

-- name: SpendReservationProbeLater :exec
-- Says when to ask for the truth again.
UPDATE spend_reservations SET next_probe_at = clock_timestamp() + @pause::interval, updated_at = clock_timestamp()
WHERE run_key = @run_key AND tool_call_id = @tool_call_id AND state = 'reconcile_required';

-- name: RunLogDeltaInsertMany :exec
-- Appends deltas whose seq and hashes were computed under locked heads.
INSERT INTO run_log_deltas (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, tracestate, request_id)
SELECT unnest(@run_keys::uuid[]), unnest(@seqs::bigint[]), unnest(@event_types::text[]),
       unnest(@event_versions::integer[]), unnest(@payloads::text[])::json,
       unnest(@content_hashes::bytea[]), unnest(@event_hashes::bytea[]),
       nullif(unnest(@traceparents::text[]), ''), nullif(unnest(@tracestates::text[]), ''),
       nullif(unnest(@request_ids::text[]), '');

-- name: RunLogDeltaInsertOne :one
-- Appends one delta to a head that the caller knows, in one statement, and tells
-- where the head's row is now; no row when the head has moved or has another epoch.
WITH moved AS (
    UPDATE run_heads h SET latest_seq = h.latest_seq + 1, latest_hash = @event_hash
    WHERE h.ctid = coalesce(nullif(@place::text, '')::tid, (SELECT k.ctid FROM run_heads k WHERE k.run_key = @run_key))
      AND h.run_key IS NOT DISTINCT FROM @run_key AND h.latest_seq = @known_seq AND h.lease_epoch = @lease_epoch
    RETURNING h.run_key, h.latest_seq, h.latest_hash, h.ctid::text AS place
), added AS (
    INSERT INTO run_log_deltas (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, tracestate, request_id)
    SELECT run_key, latest_seq, @event_type, @event_version, @payload, @content_hash, latest_hash,
           sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id')
    FROM moved
)
SELECT place FROM moved;

-- name: RunLogDeltaListOfTypes :many
-- The deltas of some types of some runs that were not folded, in the order of the runs' keys.
SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
       traceparent, tracestate, request_id, inserted_at
FROM run_log_deltas
WHERE run_key = ANY(@run_keys::uuid[]) AND event_type = ANY(@event_types::text[])
ORDER BY run_key, seq;

-- name: RunLogDeltaListFoldable :many
-- Runs of a range of keys that ended so long ago, and whose deltas are not
-- folded yet, in key order.
SELECT r.run_key, r.run_id
FROM runs r
WHERE r.run_key > @after_key AND r.run_key < @until_key AND r.finished_at <= clock_timestamp() - @grace::interval
  AND EXISTS (SELECT FROM run_log_deltas d WHERE d.run_key = r.run_key)
  AND NOT EXISTS (SELECT FROM run_log_folds f WHERE f.run_key = r.run_key)
ORDER BY r.run_key
LIMIT @max_runs;

-- name: RunLogDeltaListFoldableStray :many
-- The same of runs whose deltas are in no range: an index lookup per run, however
-- many deltas each has.
WITH RECURSIVE k AS (
    (SELECT d.run_key FROM run_log_deltas_default d WHERE d.run_key > @after_key ORDER BY d.run_key LIMIT 1)
    UNION ALL
    SELECT (SELECT d.run_key FROM run_log_deltas_default d WHERE d.run_key > k.run_key ORDER BY d.run_key LIMIT 1)
    FROM k WHERE k.run_key IS NOT NULL
)
SELECT r.run_key, r.run_id
FROM k JOIN runs r USING (run_key)
WHERE r.finished_at <= clock_timestamp() - @grace::interval
  AND NOT EXISTS (SELECT FROM run_log_folds f WHERE f.run_key = r.run_key)
ORDER BY r.run_key
LIMIT @max_runs;

-- name: RunLogDeltaDeleteStray :execrows
-- Forgets deltas that were folded and lie in no range that could be dropped.
DELETE FROM run_log_deltas_default WHERE run_key = @run_key;

-- name: RunLogDeltaListUnfolded :many
-- Runs of a range of keys that have deltas and no folds, or may get some.
SELECT r.run_key
FROM runs r
WHERE r.run_key >= @from_key AND r.run_key < @until_key
  AND (r.finished_at IS NULL OR EXISTS (SELECT FROM run_log_deltas d WHERE d.run_key = r.run_key))
  AND NOT EXISTS (SELECT FROM run_log_folds f WHERE f.run_key = r.run_key)
ORDER BY r.run_key;

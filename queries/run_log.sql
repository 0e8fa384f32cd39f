-- name: RunLogInsertMany :exec
-- Appends events whose seq and hashes were computed under locked heads.
INSERT INTO run_log (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, request_id)
SELECT unnest(@run_keys::uuid[]), unnest(@seqs::bigint[]), unnest(@event_types::text[]),
       unnest(@event_versions::integer[]), unnest(@payloads::text[])::json,
       unnest(@content_hashes::bytea[]), unnest(@event_hashes::bytea[]),
       nullif(unnest(@traceparents::text[]), ''), nullif(unnest(@request_ids::text[]), '');

-- name: RunLogListAfter :many
-- A page of a run's log in seq order, without deltas that were folded.
SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
       traceparent, request_id, inserted_at
FROM (
    SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
           traceparent, request_id, inserted_at
    FROM run_log WHERE run_log.run_key = @run_key AND run_log.seq > @after_seq
    UNION ALL
    SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
           traceparent, request_id, inserted_at
    FROM run_log_deltas WHERE run_log_deltas.run_key = @run_key AND run_log_deltas.seq > @after_seq
) AS l
ORDER BY seq
LIMIT @max_events;

-- name: RunLogListOfTypes :many
-- The control events of some types of some runs, in the order of the runs' keys.
SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
       traceparent, request_id, inserted_at
FROM run_log
WHERE run_key = ANY(@run_keys::uuid[]) AND event_type = ANY(@event_types::text[])
ORDER BY run_key, seq;

-- name: RunLogFoldInsert :exec
INSERT INTO run_log_folds (run_key, seq, first_seq, event_type, event_version, payload, marks, content_hashes,
                           prev_hash, event_hash, traceparent, tracestate, request_id, inserted_at)
VALUES (@run_key, @seq, @first_seq, @event_type, @event_version, @payload, @marks, @content_hashes,
        @prev_hash, @event_hash, sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id'), @inserted_at);

-- name: RunLogFoldLock :one
-- Takes a run's head for the one that folds it. No row when somebody else has it.
SELECT run_key FROM run_heads WHERE run_key = @run_key FOR UPDATE SKIP LOCKED;

-- name: RunLogFoldExists :one
-- Whether a run was folded. Asked under the lock and not with it: the statement
-- that locks does not see what was committed while it began.
SELECT EXISTS (SELECT FROM run_log_folds WHERE run_key = @run_key) AS folded;

-- name: RunLogFoldListAfter :many
-- Stretches with an event of a range of seqs, in order. None that has one ends
-- after last_seq.
SELECT f.run_key, r.run_id, f.seq, f.first_seq, f.event_type, f.event_version, f.payload, f.marks,
       f.content_hashes, f.prev_hash, f.event_hash, f.traceparent, f.tracestate, f.request_id, f.inserted_at
FROM run_log_folds f JOIN runs r ON r.run_key = f.run_key
WHERE f.run_key = @run_key AND f.seq > @after_seq AND f.seq <= @last_seq AND f.first_seq <= @until_seq
ORDER BY f.seq;

-- name: RunLogFoldListOfTypes :many
-- Stretches of some types of some runs, in the order of the runs' keys.
SELECT f.run_key, r.run_id, f.seq, f.first_seq, f.event_type, f.event_version, f.payload, f.marks,
       f.content_hashes, f.prev_hash, f.event_hash, f.traceparent, f.tracestate, f.request_id, f.inserted_at
FROM run_log_folds f JOIN runs r ON r.run_key = f.run_key
WHERE f.run_key = ANY(@run_keys::uuid[]) AND f.event_type = ANY(@event_types::text[])
ORDER BY f.run_key, f.seq;

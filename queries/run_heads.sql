-- name: RunHeadLockMany :many
-- Locks the heads of many runs in key order, so that two processes that lock
-- several at once cannot deadlock. What is read is the newest committed state.
SELECT h.run_key, h.latest_seq, h.latest_hash, h.oldest_seq, h.lease_epoch,
       h.frame_count, h.frame_position, h.status, h.cancel_requested
FROM run_heads h
WHERE h.run_key = ANY(@run_keys::uuid[])
ORDER BY h.run_key
FOR UPDATE;

-- name: RunHeadUpdateMany :exec
-- Writes back heads that this transaction has locked.
UPDATE run_heads h
SET latest_seq = u.latest_seq, latest_hash = u.latest_hash,
    frame_count = u.frame_count, frame_position = u.frame_position,
    status = u.status, cancel_requested = u.cancel_requested
FROM (SELECT unnest(@run_keys::uuid[]) AS run_key,
             unnest(@latest_seqs::bigint[]) AS latest_seq,
             unnest(@latest_hashes::bytea[]) AS latest_hash,
             unnest(@frame_counts::bigint[]) AS frame_count,
             unnest(@frame_positions::bigint[]) AS frame_position,
             unnest(@statuses::text[]) AS status,
             unnest(@cancel_requesteds::boolean[]) AS cancel_requested) u
WHERE h.run_key = u.run_key;

-- name: RunHeadGet :one
SELECT run_key, latest_seq, latest_hash, oldest_seq, lease_epoch,
       frame_count, frame_position, status, cancel_requested
FROM run_heads WHERE run_key = @run_key;

-- name: RunHeadNotify :exec
-- Wakes the followers of other processes; delivered when the transaction
-- commits. The payload is run keys and never data.
SELECT pg_notify('runtime_run_events', @payload::text);

-- name: RunHeadListSeqs :many
-- Where the logs of some runs end; one question for all that a process follows.
SELECT run_key, latest_seq FROM run_heads WHERE run_key = ANY(@run_keys::uuid[]);

-- name: RunHeadFence :exec
-- Makes an epoch the only one that may write.
UPDATE run_heads SET lease_epoch = @lease_epoch WHERE run_key = @run_key;

-- name: RunHeadListNews :many
-- Which of some runs are to be canceled, or have more frames than were seen;
-- one question for all that a process holds.
SELECT h.run_key
FROM run_heads h
JOIN (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@seen_frames::bigint[]) AS seen_frames) u USING (run_key)
WHERE h.cancel_requested OR h.frame_count > u.seen_frames;

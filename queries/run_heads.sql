-- name: RunHeadLockMany :many
-- Locks the heads of many runs in key order, so that two processes that lock
-- several at once cannot deadlock. What is read is the newest committed state.
SELECT h.run_key, h.latest_seq, h.latest_hash, h.oldest_seq, h.floor_hash, h.lease_epoch,
       h.frame_count, h.frame_position, h.status, h.cancel_requested
FROM run_heads h
WHERE h.run_key = ANY(@run_keys::uuid[])
ORDER BY h.run_key
FOR UPDATE;

-- name: RunHeadLockFree :many
-- The same, but leaves out the heads that somebody else has locked.
SELECT h.run_key, h.latest_seq, h.latest_hash, h.oldest_seq, h.floor_hash, h.lease_epoch,
       h.frame_count, h.frame_position, h.status, h.cancel_requested
FROM run_heads h
WHERE h.run_key = ANY(@run_keys::uuid[])
ORDER BY h.run_key
FOR UPDATE SKIP LOCKED;

-- name: RunHeadListKnown :many
-- Which of some keys have a head, locked or not.
SELECT run_key FROM run_heads WHERE run_key = ANY(@run_keys::uuid[]);

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
SELECT run_key, latest_seq, latest_hash, oldest_seq, floor_hash, lease_epoch,
       frame_count, frame_position, status, cancel_requested
FROM run_heads WHERE run_key = @run_key;

-- name: RunHeadNotify :exec
-- Wakes the followers of other processes. The payload is run keys and never
-- data.
SELECT pg_notify('runtime_run_events', @payload::text);

-- name: RunHeadListSeqs :many
-- Where the logs of some runs end; one question for all that a process follows.
SELECT run_key, latest_seq FROM run_heads WHERE run_key = ANY(@run_keys::uuid[]);

-- name: RunHeadFence :exec
-- Makes an epoch the only one that may write.
UPDATE run_heads SET lease_epoch = @lease_epoch WHERE run_key = @run_key;

-- name: RunHeadAdvanceMany :many
-- Moves heads that the caller knows on, tells where their rows are now, and fails
-- with a division by zero unless all of them are still as it knows them. The keys
-- are sorted: sessions that find rows by key alone take the rows in that order, so
-- that two processes that move several at once do not deadlock. A row whose place
-- is told is not looked for by its key: while somebody holds an old snapshot, the
-- index leads through every version that the row has had since.
WITH moved AS (
    UPDATE run_heads h
    SET latest_seq = u.latest_seq, latest_hash = u.latest_hash,
        frame_count = u.frame_count, frame_position = u.frame_position,
        status = u.status, cancel_requested = u.cancel_requested
    FROM (SELECT unnest(@run_keys::uuid[]) AS run_key,
                 unnest(@places::text[]) AS place,
                 unnest(@known_seqs::bigint[]) AS known_seq,
                 unnest(@lease_epochs::bigint[]) AS lease_epoch,
                 unnest(@latest_seqs::bigint[]) AS latest_seq,
                 unnest(@latest_hashes::bytea[]) AS latest_hash,
                 unnest(@frame_counts::bigint[]) AS frame_count,
                 unnest(@frame_positions::bigint[]) AS frame_position,
                 unnest(@statuses::text[]) AS status,
                 unnest(@cancel_requesteds::boolean[]) AS cancel_requested) u
    WHERE h.ctid = coalesce(nullif(u.place, '')::tid, (SELECT k.ctid FROM run_heads k WHERE k.run_key = u.run_key))
      AND h.run_key IS NOT DISTINCT FROM u.run_key -- which no index can answer
      AND h.latest_seq = u.known_seq AND h.lease_epoch = u.lease_epoch
    RETURNING h.run_key, h.ctid::text AS place
)
SELECT run_key, place FROM moved
WHERE 1 / (CASE WHEN (SELECT count(*) FROM moved) = cardinality(@run_keys::uuid[]) THEN 1 ELSE 0 END) = 1;

-- name: RunHeadListEnded :many
-- Which of some runs have their terminal status.
SELECT run_key FROM run_heads
WHERE run_key = ANY(@run_keys::uuid[]) AND status IN ('completed', 'failed', 'canceled');

-- name: RunHeadLockAged :many
-- Locks the heads of runs of a range that ended so long ago and of which something
-- is kept, in key order, as appends do.
SELECT h.run_key FROM run_heads h JOIN runs r USING (run_key)
WHERE h.run_key >= @from_key AND h.run_key < @until_key AND r.finished_at <= clock_timestamp() - @age::interval
  AND h.oldest_seq <= h.latest_seq AND (NOT @folded::boolean OR h.oldest_seq <= (
      SELECT f.seq FROM run_log_folds f WHERE f.run_key = h.run_key ORDER BY f.seq DESC LIMIT 1))
ORDER BY h.run_key
LIMIT @max_runs
FOR UPDATE OF h;

-- name: RunHeadRaiseFloor :exec
-- Nothing of some runs' logs is kept any more.
UPDATE run_heads SET oldest_seq = latest_seq + 1, floor_hash = latest_hash WHERE run_key = ANY(@run_keys::uuid[]);

-- name: RunHeadRaiseFloorOverFolds :exec
-- Of some runs only what follows their last folded delta is kept.
UPDATE run_heads h SET oldest_seq = f.seq + 1, floor_hash = f.event_hash
FROM (SELECT DISTINCT ON (run_key) run_key, seq, event_hash FROM run_log_folds
      WHERE run_key = ANY(@run_keys::uuid[]) ORDER BY run_key, seq DESC) f
WHERE h.run_key = f.run_key AND h.oldest_seq <= f.seq;

-- name: RunHeadListUnaged :many
-- Runs of a range of keys that have not ended so long ago.
SELECT h.run_key FROM run_heads h JOIN runs r USING (run_key)
WHERE h.run_key >= @from_key AND h.run_key < @until_key
  AND (r.finished_at IS NULL OR r.finished_at > clock_timestamp() - @age::interval)
ORDER BY h.run_key;

-- name: RunHeadListNews :many
-- Which of some runs are to be canceled, or have more frames than were seen;
-- one question for all that a process holds.
SELECT h.run_key
FROM run_heads h
JOIN (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@seen_frames::bigint[]) AS seen_frames) u USING (run_key)
WHERE h.cancel_requested OR h.frame_count > u.seen_frames;

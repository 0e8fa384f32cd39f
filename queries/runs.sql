-- name: RunStart :one
-- Creates a run with its head and its first event in one statement and returns
-- it, or returns no row when the run_id is taken.
WITH started AS (
    INSERT INTO runs (run_key, run_id, thread_id, user_id, guest_scope, autopilot_id,
                      authenticated_session, tool_policy, client_tools, limits, keep_open, authorization_id, request_hash,
                      traceparent, tracestate, request_id)
    VALUES (@run_key, @run_id, @thread_id, sqlc.narg('user_id'), sqlc.narg('guest_scope'), sqlc.narg('autopilot_id'),
            @authenticated_session, sqlc.narg('tool_policy'), sqlc.narg('client_tools'), sqlc.narg('limits'), @keep_open, sqlc.narg('authorization_id'), @request_hash,
            sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id'))
    ON CONFLICT (run_id) DO NOTHING
    RETURNING *
), head AS (
    INSERT INTO run_heads (run_key, latest_seq, latest_hash)
    SELECT run_key, 1, @event_hash FROM started
), first_event AS (
    INSERT INTO run_log (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, tracestate, request_id)
    SELECT run_key, 1, @event_type, @event_version, @payload, @content_hash, @event_hash,
           sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id')
    FROM started
)
SELECT * FROM started;

-- name: RunGet :one
SELECT * FROM runs WHERE run_id = @run_id;

-- name: RunGetByKey :one
SELECT * FROM runs WHERE run_key = @run_key;

-- name: RunListByOwner :many
-- Newest first; the keys are ordered by time.
SELECT * FROM runs
WHERE (sqlc.narg('owner')::text IS NULL OR owner = sqlc.narg('owner')::text)
  AND (sqlc.narg('thread_id')::text IS NULL OR thread_id = sqlc.narg('thread_id')::text)
  AND (sqlc.narg('status')::text IS NULL OR status = sqlc.narg('status')::text)
  AND (sqlc.narg('before_key')::uuid IS NULL OR run_key < sqlc.narg('before_key')::uuid)
ORDER BY run_key DESC
LIMIT @max_runs;

-- name: RunListOfThread :many
-- The newest runs of a thread that have one owner, before one of them.
SELECT * FROM runs
WHERE thread_id = @thread_id AND owner = @owner
  AND (sqlc.narg('before_key')::uuid IS NULL OR run_key < sqlc.narg('before_key')::uuid)
ORDER BY run_key DESC
LIMIT @max_runs;

-- name: RunSetStatus :exec
-- Follows the head's status, in the commit that changes it. A run that waits has
-- nothing to do.
UPDATE runs
SET status = @status,
    runnable = @status <> 'waiting',
    started_at = coalesce(started_at, CASE WHEN @status = 'running' THEN clock_timestamp() END),
    updated_at = clock_timestamp()
WHERE run_key = @run_key AND status NOT IN ('completed', 'failed', 'canceled');

-- name: RunSetRunnable :exec
-- Notes that there is something to do, in the commit of the frame.
UPDATE runs SET runnable = true, updated_at = clock_timestamp() WHERE run_key = @run_key AND NOT runnable;

-- name: RunFinish :exec
-- The one terminal status.
UPDATE runs
SET status = @status, reason_class = @reason_class, reason = @reason, runnable = false,
    finished_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE run_key = @run_key AND status NOT IN ('completed', 'failed', 'canceled');

-- name: RunListRunnable :many
-- Runs that have something to do and no live lease, oldest first, with how many
-- holders were lost in a row; those with more losses than a bound are left out.
SELECT r.run_key, coalesce(CASE WHEN l.released THEN 0 ELSE l.lost_count + 1 END, 0)::bigint AS losses
FROM runs r
LEFT JOIN run_leases l USING (run_key)
WHERE r.runnable AND (l.run_key IS NULL OR l.lease_expires_at < clock_timestamp())
  AND (l.run_key IS NULL OR l.released OR l.lost_count + 1 <= @most_losses::bigint)
ORDER BY r.run_key
LIMIT @max_runs;

-- name: RunElapsed :one
-- Milliseconds of work since the run was started, by the database's clock.
SELECT (extract(epoch FROM clock_timestamp() - coalesce(started_at, clock_timestamp())) * 1000)::bigint AS elapsed_ms
FROM runs WHERE run_key = @run_key;

-- name: RunCountOverdue :one
-- How many runs, at_most counted, have waited for an executor longer than a
-- bound. One whose executor was lost waits since its lease expired.
SELECT count(*) FROM (
    SELECT 1 FROM runs r
    LEFT JOIN run_leases l USING (run_key)
    WHERE r.runnable AND greatest(r.updated_at, l.lease_expires_at) < clock_timestamp() - @bound::interval
    LIMIT @at_most) overdue;

-- name: RunCountByOwner :many
-- How many runs of each owner are at work or wait for an executor.
SELECT owner, count(*) FROM runs WHERE runnable GROUP BY owner;

-- name: RunNow :one
-- The moment, by the clock that deadlines are told by.
SELECT clock_timestamp()::timestamptz AS now;

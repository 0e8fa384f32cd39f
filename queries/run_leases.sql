-- name: RunLeaseAcquire :one
-- Takes the lease when it is free or expired, under the locked head. Every
-- change of hands raises the epoch, so a holder that slept through its expiry
-- can no longer write.
INSERT INTO run_leases AS l (run_key, lease_owner, lease_epoch, lease_expires_at)
VALUES (@run_key, @lease_owner, 1,
        coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) + @ttl::interval)
ON CONFLICT (run_key) DO UPDATE
SET lease_owner = excluded.lease_owner, lease_epoch = l.lease_epoch + 1,
    lease_expires_at = excluded.lease_expires_at, heartbeat_at = clock_timestamp(),
    lost_count = CASE WHEN l.released THEN 0 ELSE l.lost_count + 1 END,
    lost_since = CASE WHEN NOT l.released THEN coalesce(l.lost_since, l.lease_expires_at) END,
    released = false
WHERE l.lease_expires_at < coalesce(sqlc.narg('now')::timestamptz, clock_timestamp())
RETURNING l.lease_epoch, l.lost_count, l.lost_since, l.progress_seq,
  coalesce((extract(epoch FROM coalesce(sqlc.narg('now')::timestamptz, clock_timestamp()) - l.lost_since) * 1000)::bigint, 0)::bigint AS lost_for_ms;

-- name: RunLeaseAcquireMany :many
-- Takes the leases of many runs that are free or expired, and fences their heads,
-- in one statement. What is not returned was not taken: somebody holds it, writes
-- to it just now, or there is no such run. Both tables are gone through in key
-- order, and live leases are left alone, so that two processes do not deadlock.
WITH head AS MATERIALIZED (
    SELECT h.run_key, h.latest_seq, h.latest_hash, h.oldest_seq, h.floor_hash, h.lease_epoch,
           h.frame_count, h.frame_position, h.status, h.cancel_requested
    FROM run_heads h
    WHERE h.run_key = ANY(@run_keys::uuid[])
      AND NOT EXISTS (SELECT 1 FROM run_leases l WHERE l.run_key = h.run_key AND l.lease_expires_at >= clock_timestamp())
    ORDER BY h.run_key
    FOR UPDATE OF h SKIP LOCKED
), taken AS (
    INSERT INTO run_leases AS l (run_key, lease_owner, lease_epoch, lease_expires_at)
    SELECT head.run_key, @lease_owner, 1, clock_timestamp() + @ttl::interval FROM head ORDER BY head.run_key
    ON CONFLICT (run_key) DO UPDATE
    SET lease_owner = excluded.lease_owner, lease_epoch = l.lease_epoch + 1,
        lease_expires_at = excluded.lease_expires_at, heartbeat_at = clock_timestamp(),
        lost_count = CASE WHEN l.released THEN 0 ELSE l.lost_count + 1 END,
        lost_since = CASE WHEN NOT l.released THEN coalesce(l.lost_since, l.lease_expires_at) END,
        released = false
    WHERE l.lease_expires_at < clock_timestamp()
    RETURNING l.run_key, l.lease_epoch, l.lost_count, l.lost_since, l.progress_seq
), fenced AS (
    UPDATE run_heads h SET lease_epoch = taken.lease_epoch FROM taken WHERE h.run_key = taken.run_key
)
SELECT head.run_key, head.latest_seq, head.latest_hash, head.oldest_seq, head.floor_hash,
       head.frame_count, head.frame_position, head.status, head.cancel_requested,
       taken.lease_epoch, taken.lost_count, taken.lost_since, taken.progress_seq,
       coalesce((extract(epoch FROM clock_timestamp() - taken.lost_since) * 1000)::bigint, 0)::bigint AS lost_for_ms
FROM head JOIN taken USING (run_key);

-- name: RunLeaseRenewMany :many
-- One heartbeat for all leases of a process. A lease that is not returned is
-- lost. An expired lease that nobody took is renewed no more: its holder has
-- stopped itself.
UPDATE run_leases l
SET lease_expires_at = clock_timestamp() + @ttl::interval,
    heartbeat_at = clock_timestamp()
FROM (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@lease_epochs::bigint[]) AS lease_epoch) u
WHERE l.run_key = u.run_key AND l.lease_epoch = u.lease_epoch
  AND NOT l.released AND l.lease_expires_at >= clock_timestamp()
RETURNING l.run_key;

-- name: RunLeaseRelease :exec
-- Expires the lease and keeps its row, so that the epoch goes on growing. One
-- that is given back without being released counts as lost.
UPDATE run_leases
SET lease_expires_at = clock_timestamp() - interval '1 millisecond', released = @released
WHERE run_key = @run_key AND lease_epoch = @lease_epoch AND NOT released;

-- name: RunLeaseProgress :exec
-- Notes how far the holder has come; a recovery that gets further is progress.
UPDATE run_leases SET progress_seq = @progress_seq, lost_count = 0, lost_since = NULL
WHERE run_key = @run_key AND lease_epoch = @lease_epoch;

-- name: RunLeaseGet :one
SELECT * FROM run_leases WHERE run_key = @run_key;

-- name: RunLeaseIsLive :one
-- Whether an executor holds the run now.
SELECT EXISTS (SELECT 1 FROM run_leases WHERE run_key = @run_key AND NOT released AND lease_expires_at > clock_timestamp());

-- name: RunLeaseExpire :exec
-- Makes a lease look as if its holder had been silent too long. For tests.
UPDATE run_leases SET lease_expires_at = clock_timestamp() - interval '1 second' WHERE run_key = @run_key;

-- name: RunLeaseEvict :many
-- Ends the sessions that have had a run's head locked for longer than a bound
-- although its lease has expired: their process is gone, or cannot be heard in the
-- middle of a commit, and nothing else would end them. What they were to commit is
-- rolled back. It sees and ends sessions of its own role, or of every role when
-- ours is a member of pg_signal_backend and pg_read_all_stats.
SELECT pg_terminate_backend(a.pid) AS ended
FROM run_heads h
JOIN run_leases l USING (run_key)
JOIN pg_catalog.pg_stat_activity a ON a.backend_xid = h.xmax
WHERE h.run_key = @run_key AND NOT l.released AND l.lease_expires_at < clock_timestamp()
  AND a.xact_start < clock_timestamp() - @bound::interval;

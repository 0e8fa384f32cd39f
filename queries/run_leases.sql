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

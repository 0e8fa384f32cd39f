-- name: CheckpointPut :exec
-- Keeps the newest checkpoint of a run. One of an earlier epoch changes nothing.
INSERT INTO checkpoints AS c (run_key, state_version, seq, state, lease_epoch)
VALUES (@run_key, @state_version, @seq, @state, @lease_epoch)
ON CONFLICT (run_key) DO UPDATE
SET state_version = excluded.state_version, seq = excluded.seq, state = excluded.state,
    lease_epoch = excluded.lease_epoch, inserted_at = clock_timestamp()
WHERE c.lease_epoch <= excluded.lease_epoch;

-- name: CheckpointGet :one
SELECT * FROM checkpoints WHERE run_key = @run_key;

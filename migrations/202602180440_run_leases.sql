-- +goose Up

-- The right to write to a run. Every change of hands raises the epoch. A
-- release expires the row and keeps it, so that no epoch is used twice. No
-- index on lease_expires_at: renewals must stay HOT.
CREATE TABLE run_leases (
    run_key          uuid PRIMARY KEY,
    lease_owner      text NOT NULL,
    lease_epoch      bigint NOT NULL,
    lease_expires_at timestamptz NOT NULL,
    heartbeat_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    released         boolean NOT NULL DEFAULT false,
    progress_seq     bigint NOT NULL DEFAULT 0,
    lost_count       bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- +goose Down
DROP TABLE run_leases;

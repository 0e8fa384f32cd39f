-- +goose Up

-- What an executor knew of a run when a step ended: the newest only. It saves
-- reading the log up to seq, and says nothing that the log does not say.
CREATE TABLE checkpoints (
    run_key       uuid PRIMARY KEY,
    state_version integer NOT NULL,
    seq           bigint NOT NULL,
    state         json NOT NULL,
    lease_epoch   bigint NOT NULL,
    inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- Since when holders are lost one after another without progress.
ALTER TABLE run_leases ADD COLUMN lost_since timestamptz;

-- The newest runs of an owner's thread are found without reading the others.
-- The keys are ordered by time.
DROP INDEX runs_by_thread;
CREATE INDEX runs_by_thread ON runs (thread_id, owner, run_key);

-- +goose Down
DROP INDEX runs_by_thread;
CREATE INDEX runs_by_thread ON runs (thread_id, inserted_at);
ALTER TABLE run_leases DROP COLUMN lost_since;
DROP TABLE checkpoints;

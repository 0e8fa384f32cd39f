-- +goose Up

-- A run's envelope. Quiet: it changes when the status changes, not per event.
-- run_key is minted here and ordered by time; every hot table leads with it.
CREATE TABLE runs (
    run_key               uuid PRIMARY KEY,
    run_id                text NOT NULL,
    thread_id             text NOT NULL,
    user_id               bigint,
    guest_scope           text,
    owner                 text NOT NULL GENERATED ALWAYS AS
                              (CASE WHEN guest_scope IS NOT NULL THEN 'guest:' || guest_scope
                                    ELSE 'user:' || user_id::text END) STORED,
    autopilot_id          text,
    authenticated_session boolean NOT NULL,
    tool_policy           json,
    limits                json,
    keep_open             boolean NOT NULL DEFAULT false,
    request_hash          text NOT NULL,
    status                text NOT NULL DEFAULT 'accepted',
    runnable              boolean NOT NULL DEFAULT false,
    reason_class          text,
    reason                text,
    traceparent           text,
    tracestate            text,
    request_id            text,
    inserted_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at            timestamptz,
    finished_at           timestamptz,
    updated_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT runs_run_id_once UNIQUE (run_id),
    CONSTRAINT runs_owner_present CHECK (user_id IS NOT NULL OR guest_scope IS NOT NULL),
    CONSTRAINT runs_status_known CHECK (status IN
        ('accepted', 'running', 'waiting', 'canceling', 'completed', 'failed', 'canceled')),
    CONSTRAINT runs_end_is_told CHECK ((status IN ('completed', 'failed', 'canceled')) =
        (finished_at IS NOT NULL AND reason_class IS NOT NULL))
);

CREATE INDEX runs_by_owner ON runs (owner, run_key);
CREATE INDEX runs_by_thread ON runs (thread_id, inserted_at);
-- What an executor has something to do for: a frame that is not answered, or a
-- cancel. Runs that wait are not in it, however many there are.
CREATE INDEX runs_runnable ON runs (run_key) WHERE runnable;

-- The head of a run's log, and all that guards a change of the run: one narrow
-- row, locked once per run and group commit. No index but the key, so that
-- updates stay HOT.
CREATE TABLE run_heads (
    run_key          uuid PRIMARY KEY,
    latest_seq       bigint NOT NULL,
    latest_hash      bytea NOT NULL,
    oldest_seq       bigint NOT NULL DEFAULT 1,
    lease_epoch      bigint NOT NULL DEFAULT 0,
    frame_count      bigint NOT NULL DEFAULT 0,
    frame_position   bigint NOT NULL DEFAULT 0,
    status           text NOT NULL DEFAULT 'accepted',
    cancel_requested boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- The log. payload holds the canonical bytes that were hashed.
CREATE TABLE run_log (
    run_key       uuid NOT NULL,
    seq           bigint NOT NULL,
    event_type    text NOT NULL,
    event_version integer NOT NULL,
    payload       json NOT NULL,
    content_hash  bytea NOT NULL,
    event_hash    bytea NOT NULL,
    traceparent   text,
    request_id    text,
    inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, seq)
);

CREATE INDEX run_log_by_time ON run_log USING brin (inserted_at);

-- The log under the names that operators type.
CREATE VIEW run_events AS
SELECT r.run_id, r.thread_id, l.seq, l.event_type, l.event_version, l.payload,
       'sha256:' || encode(l.content_hash, 'hex') AS content_hash,
       'sha256:' || encode(l.event_hash, 'hex') AS event_hash,
       l.traceparent, l.request_id, l.inserted_at, l.inserted_at AS created_at, l.run_key
FROM run_log l JOIN runs r USING (run_key);

-- A run's inputs, numbered from 1 in the order in which they were accepted.
CREATE TABLE frames (
    run_key      uuid NOT NULL,
    frame_seq    bigint NOT NULL,
    frame_id     text NOT NULL,
    frame_type   text NOT NULL,
    payload      json NOT NULL,
    payload_hash text NOT NULL,
    source       json,
    event_seq    bigint NOT NULL,
    traceparent  text,
    tracestate   text,
    request_id   text,
    inserted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, frame_seq),
    CONSTRAINT frames_id_once UNIQUE (run_key, frame_id)
);

-- +goose Down
DROP TABLE frames;
DROP VIEW run_events;
DROP TABLE run_log;
DROP TABLE run_heads;
DROP TABLE runs;

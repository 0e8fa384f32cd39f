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
    oldest_seq       bigint NOT NULL DEFAULT 1, -- what comes before is no longer kept
    floor_hash       bytea,                     -- event_hash of the event before oldest_seq
    lease_epoch      bigint NOT NULL DEFAULT 0,
    frame_count      bigint NOT NULL DEFAULT 0,
    frame_position   bigint NOT NULL DEFAULT 0,
    status           text NOT NULL DEFAULT 'accepted',
    cancel_requested boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- The log: control events here, deltas in run_log_deltas; seq runs through
-- both. payload holds the canonical bytes that were hashed. The partitions are
-- ranges of run_key, and so of the time at which runs began; the service makes
-- them ahead and drops them. What no partition is made for goes to the default
-- one, so that nothing ever fails to insert.
CREATE TABLE run_log (
    run_key       uuid NOT NULL,
    seq           bigint NOT NULL,
    event_type    text NOT NULL,
    event_version integer NOT NULL,
    payload       json NOT NULL,
    content_hash  bytea NOT NULL,
    event_hash    bytea NOT NULL,
    traceparent   text,
    tracestate    text,
    request_id    text,
    inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, seq)
) PARTITION BY RANGE (run_key);
CREATE TABLE run_log_default PARTITION OF run_log DEFAULT;

CREATE INDEX run_log_by_time ON run_log USING brin (inserted_at);

-- The log's deltas: most of its events, of no use once their part is told whole.
CREATE TABLE run_log_deltas (
    run_key       uuid NOT NULL,
    seq           bigint NOT NULL,
    event_type    text NOT NULL,
    event_version integer NOT NULL,
    payload       json NOT NULL,
    content_hash  bytea NOT NULL,
    event_hash    bytea NOT NULL,
    traceparent   text,
    tracestate    text,
    request_id    text,
    inserted_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, seq)
) PARTITION BY RANGE (run_key);
CREATE TABLE run_log_deltas_default PARTITION OF run_log_deltas DEFAULT;

-- Deltas of runs that have ended, one row for a stretch of consecutive deltas
-- of one part. payload is that of a single delta with all their text; marks
-- says where in it each one ends and when it came; content_hashes has 32 bytes
-- of each. event_hash is the last one's, prev_hash that of the event before the
-- first; those between follow from them.
CREATE TABLE run_log_folds (
    run_key        uuid NOT NULL,
    seq            bigint NOT NULL, -- of the last of the stretch
    first_seq      bigint NOT NULL,
    event_type     text NOT NULL,
    event_version  integer NOT NULL,
    payload        json NOT NULL,
    marks          bytea NOT NULL,
    content_hashes bytea NOT NULL,
    prev_hash      bytea NOT NULL,
    event_hash     bytea NOT NULL,
    traceparent    text,
    tracestate     text,
    request_id     text,
    inserted_at    timestamptz NOT NULL, -- of the first
    PRIMARY KEY (run_key, seq),
    CONSTRAINT run_log_folds_hash_each CHECK (length(content_hashes) = 32 * (seq - first_seq + 1))
) PARTITION BY RANGE (run_key);
CREATE TABLE run_log_folds_default PARTITION OF run_log_folds DEFAULT;

-- The log under the names that operators type, without deltas that were folded.
CREATE VIEW run_events AS
SELECT r.run_id, r.thread_id, l.seq, l.event_type, l.event_version, l.payload,
       'sha256:' || encode(l.content_hash, 'hex') AS content_hash,
       'sha256:' || encode(l.event_hash, 'hex') AS event_hash,
       l.traceparent, l.tracestate, l.request_id, l.inserted_at, l.inserted_at AS created_at, l.run_key
FROM (SELECT * FROM run_log UNION ALL SELECT * FROM run_log_deltas) l JOIN runs r USING (run_key);

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
DROP TABLE run_log_folds;
DROP TABLE run_log_deltas;
DROP TABLE run_log;
DROP TABLE run_heads;
DROP TABLE runs;

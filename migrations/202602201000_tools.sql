-- +goose Up

-- What a run was given at its start.
ALTER TABLE runs ADD COLUMN client_tools json;

-- Tool calls: one row each, changed only from the state that the change expects.
-- input and output are stored redacted; the hashes are of the whole.
CREATE TABLE tool_tasks (
    run_key             uuid NOT NULL,
    tool_call_id        text NOT NULL,
    run_id              text NOT NULL,
    tool_name           text NOT NULL,
    kind                text NOT NULL,
    requested_by        text NOT NULL,
    settlement_boundary text NOT NULL,
    state               text NOT NULL DEFAULT 'queued',
    step                bigint,           -- whose model call asked for it
    call_index          integer NOT NULL DEFAULT 0,
    frame_id            text,             -- that asked for it
    result_frame_id     text,             -- that brought its result
    attempts            integer NOT NULL DEFAULT 0,
    lease_epoch         bigint NOT NULL DEFAULT 0,
    idempotency_key     text NOT NULL,
    timeout_ms          bigint NOT NULL,
    input               json NOT NULL,
    params_hash         text NOT NULL,
    output              json,
    output_hash         text,
    output_truncated    boolean NOT NULL DEFAULT false,
    error_class         text,
    error_message       text,
    progress_count      integer NOT NULL DEFAULT 0,
    cancel_requested    boolean NOT NULL DEFAULT false,
    provider            text,
    fallback_used       boolean NOT NULL DEFAULT false,
    correlation_id      text,
    latency_ms          bigint,
    approval_id         text,
    decision            text,             -- of policy; absent when it was not asked
    reason_code         text,
    evaluation_hash     text,
    receipt             json,
    receipt_hash        text,
    traceparent         text,
    tracestate          text,
    request_id          text,
    queued_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    running_at          timestamptz,
    streaming_at        timestamptz,
    deadline_at         timestamptz,
    finished_at         timestamptz,
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, tool_call_id),
    CONSTRAINT tool_tasks_state_known CHECK (state IN
        ('queued', 'running', 'streaming_output', 'succeeded', 'failed', 'canceled', 'timed_out')),
    CONSTRAINT tool_tasks_end_is_told CHECK ((state IN ('succeeded', 'failed', 'canceled', 'timed_out')) =
        (finished_at IS NOT NULL AND receipt_hash IS NOT NULL)),
    CONSTRAINT tool_tasks_boundary_known CHECK (settlement_boundary IN ('safe_retry', 'dedupe_reconcile_required'))
);

CREATE INDEX tool_tasks_by_call ON tool_tasks (tool_call_id);
CREATE INDEX tool_tasks_by_time ON tool_tasks (run_key, queued_at DESC, tool_call_id DESC);
CREATE INDEX tool_tasks_open ON tool_tasks (run_key, deadline_at)
    WHERE state IN ('queued', 'running', 'streaming_output');

-- What a person is asked. Decided by one statement that checks state, moment and
-- identity.
CREATE TABLE approvals (
    approval_id     text PRIMARY KEY,
    run_key         uuid NOT NULL,
    run_id          text NOT NULL,
    thread_id       text NOT NULL,
    owner           text NOT NULL,
    kind            text NOT NULL,
    tool_call_id    text,
    requested_by    text,             -- who asked for the call
    title           text NOT NULL,
    decider         text NOT NULL,
    request         json NOT NULL,
    args_hash       text NOT NULL,
    policy_hash     text NOT NULL,
    reason_code     text,
    state           text NOT NULL DEFAULT 'pending',
    requested_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at      timestamptz NOT NULL,
    decided_at      timestamptz,
    decided_by      text,
    decision_reason text,
    CONSTRAINT approvals_state_known CHECK (state IN ('pending', 'approved', 'rejected', 'expired', 'canceled')),
    CONSTRAINT approvals_kind_known CHECK (kind IN ('tool_call', 'raise_budget', 'resolve_unknown_settlement')),
    CONSTRAINT approvals_decider_known CHECK (decider IN ('owner', 'operator')),
    CONSTRAINT approvals_end_is_told CHECK ((state = 'pending') = (decided_at IS NULL))
);

CREATE INDEX approvals_inbox ON approvals (owner, state, requested_at, approval_id);
CREATE INDEX approvals_by_run ON approvals (run_key);
CREATE INDEX approvals_pending ON approvals (expires_at) WHERE state = 'pending';

-- Decisions of policy with everything that they were made from, by their hash.
CREATE TABLE ds_policy_evaluations (
    evaluation_hash text PRIMARY KEY,
    document        json NOT NULL,
    decision        text NOT NULL,
    reason_code     text NOT NULL,
    inserted_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Specs of tools and skills, a row per version; releases never change.
CREATE TABLE tool_specs (
    tool_id      text NOT NULL,
    version      integer NOT NULL CHECK (version > 0),
    state        text NOT NULL CHECK (state IN ('draft', 'validated', 'published', 'deprecated')),
    owner        text NOT NULL,
    spec         json NOT NULL,
    content_hash text NOT NULL,
    inserted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tool_id, version)
);

CREATE TABLE skill_specs (
    skill_id     text NOT NULL,
    version      integer NOT NULL CHECK (version > 0),
    state        text NOT NULL CHECK (state IN ('draft', 'validated', 'published', 'deprecated')),
    owner        text NOT NULL,
    spec         json NOT NULL,
    content_hash text NOT NULL,
    inserted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (skill_id, version)
);

CREATE TABLE skill_releases (
    release_id           text PRIMARY KEY,
    skill_id             text NOT NULL,
    version              integer NOT NULL,
    bundle               json NOT NULL,
    bundle_hash          text NOT NULL,
    compatibility_report json NOT NULL,
    published_by         text NOT NULL,
    published_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT skill_releases_once UNIQUE (skill_id, version)
);

-- +goose Down
DROP TABLE skill_releases, skill_specs, tool_specs, ds_policy_evaluations, approvals, tool_tasks;
ALTER TABLE runs DROP COLUMN client_tools;

-- +goose Up

-- Which authorization pays for a run, when its start named one.
ALTER TABLE runs ADD COLUMN authorization_id text;

-- What the columns of rows that are written all the time may hold: a domain is asked
-- for what is written, while every statement reads a table's CHECKs anew, which
-- takes longer than the writing. Amounts are sats, at most all that there will ever be.
CREATE DOMAIN sats AS bigint CHECK (VALUE BETWEEN 0 AND 2100000000000000);
CREATE DOMAIN spend_kind AS text CHECK (VALUE IN ('tool', 'model'));
CREATE DOMAIN spend_state AS text CHECK (VALUE IN ('reserved', 'committed', 'released', 'reconcile_required'));
CREATE DOMAIN spend_retry_class AS text CHECK (VALUE IN ('safe_retry', 'dedupe_reconcile_required'));

-- Who allowed how much, for what, until when. Grants make a tree of at most five
-- levels: path leads from the root to the row itself, and what is held under a
-- row is held under every level of its path. The counters are moved by the
-- commits that move money and by nothing else; no index holds them, so that
-- updates stay HOT.
CREATE TABLE spend_authorizations (
    authorization_id        text PRIMARY KEY,
    parent_authorization_id text,
    path                    text[] NOT NULL,
    owner_user_id           bigint,
    owner_guest_scope       text,
    owner                   text NOT NULL GENERATED ALWAYS AS
                                (CASE WHEN owner_guest_scope IS NOT NULL THEN 'guest:' || owner_guest_scope
                                      WHEN owner_user_id IS NOT NULL THEN 'user:' || owner_user_id::text
                                      ELSE 'system' END) STORED,
    scope_kind              text NOT NULL,
    run_id                  text,     -- plain values: nothing that happens to a run widens its grant
    thread_id               text,
    autopilot_id            text,
    mode                    text NOT NULL DEFAULT 'delegated_budget',
    max_total_sats          sats,
    max_per_call_sats       sats,
    max_per_day_sats        sats,     -- the row 'day' of spend_periods
    threshold_sats          sats,
    spent_sats              bigint NOT NULL DEFAULT 0,
    reserved_sats           bigint NOT NULL DEFAULT 0,
    overage_sats            bigint NOT NULL DEFAULT 0, -- spent beyond what was held for it
    constraints             json NOT NULL DEFAULT '{}',
    on_exhaustion           text NOT NULL DEFAULT 'wait',
    unknown_price           text NOT NULL DEFAULT 'deny',
    metadata                json NOT NULL DEFAULT '{}',
    terms_hash              text NOT NULL, -- of what it was issued with
    revision                bigint NOT NULL DEFAULT 1,
    not_before              timestamptz,
    issued_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at              timestamptz,
    revoked_at              timestamptz,
    revoked_by              text,
    revoke_reason           text,
    inserted_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT spend_authorizations_amounts_non_negative CHECK (
        spent_sats >= 0 AND reserved_sats >= 0 AND overage_sats >= 0 AND spent_sats + reserved_sats <= 9007199254740991),
    CONSTRAINT spend_authorizations_never_over CHECK (max_total_sats IS NULL
        OR spent_sats + reserved_sats <= max_total_sats + overage_sats)
) WITH (fillfactor = 50);

-- +goose StatementBegin
-- What must hold of an authorization but for its counters.
CREATE FUNCTION spend_authorization_is_sound(a spend_authorizations) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    broken text;
BEGIN
    broken := CASE
        WHEN a.authorization_id !~ '^[A-Za-z0-9._:-]{1,128}$' THEN 'id_plain'
        WHEN cardinality(a.path) NOT BETWEEN 1 AND 5 OR a.path[cardinality(a.path)] <> a.authorization_id
             OR coalesce(a.parent_authorization_id, '') <> CASE WHEN cardinality(a.path) = 1 THEN '' ELSE a.path[cardinality(a.path) - 1] END
            THEN 'path_ends_here'
        WHEN a.scope_kind NOT IN ('organisation', 'owner', 'autopilot', 'thread', 'run', 'system') THEN 'scope_known'
        WHEN (a.run_id IS NOT NULL) <> (a.scope_kind = 'run') OR (a.thread_id IS NULL AND a.scope_kind = 'thread')
             OR (a.autopilot_id IS NULL AND a.scope_kind = 'autopilot') THEN 'scope_named'
        WHEN a.mode NOT IN ('interactive', 'delegated_budget', 'delegated_budget_with_threshold', 'deny', 'system') THEN 'mode_valid'
        WHEN (a.owner_user_id IS NOT NULL AND a.owner_guest_scope IS NOT NULL)
             OR (a.mode <> 'system' AND a.owner_user_id IS NULL AND a.owner_guest_scope IS NULL) THEN 'owner_binding_valid'
        WHEN (a.threshold_sats IS NOT NULL) <> (a.mode = 'delegated_budget_with_threshold') THEN 'threshold_told'
        WHEN a.mode <> 'system' AND (a.max_total_sats IS NULL OR a.expires_at IS NULL) THEN 'bounded'
        WHEN a.on_exhaustion NOT IN ('wait', 'finish', 'continue') THEN 'exhaustion_known'
        WHEN a.unknown_price NOT IN ('deny', 'ask') THEN 'unknown_price_known'
        WHEN (a.revoked_at IS NULL) <> (a.revoked_by IS NULL) THEN 'revocation_told'
    END;
    IF broken IS NOT NULL THEN
        RAISE EXCEPTION 'authorization % violates %', a.authorization_id, broken
            USING ERRCODE = 'check_violation', TABLE = 'spend_authorizations', CONSTRAINT = 'spend_authorizations_' || broken;
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

ALTER TABLE spend_authorizations ADD CONSTRAINT spend_authorizations_sound
    CHECK (spend_authorization_is_sound(spend_authorizations));

CREATE INDEX spend_authorizations_by_owner ON spend_authorizations (owner, inserted_at DESC, authorization_id DESC);
CREATE INDEX spend_authorizations_below ON spend_authorizations USING gin (path);

-- Caps of a calendar period in UTC. A hold counts for as long as it is open, a
-- capture in the period that it is made in.
CREATE TABLE spend_periods (
    authorization_id text NOT NULL,
    period           text NOT NULL,
    max_sats         bigint NOT NULL,
    period_start     timestamptz NOT NULL,
    captured_sats    bigint NOT NULL DEFAULT 0,
    held_sats        bigint NOT NULL DEFAULT 0,
    overage_sats     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (authorization_id, period),
    CONSTRAINT spend_periods_period_known CHECK (period IN ('hour', 'day', 'week', 'month')),
    CONSTRAINT spend_periods_amounts_possible CHECK (max_sats BETWEEN 0 AND 2100000000000000
        AND captured_sats >= 0 AND held_sats >= 0 AND overage_sats >= 0),
    CONSTRAINT spend_periods_never_over CHECK (captured_sats + held_sats <= max_sats + overage_sats)
) WITH (fillfactor = 50);

-- An amount held for one call: one hold per call, whoever pays, and one per
-- invoice, whoever calls.
CREATE TABLE spend_reservations (
    run_key                  uuid NOT NULL,
    tool_call_id             text NOT NULL,
    authorization_id         text NOT NULL,
    path                     text[] NOT NULL, -- the authorization's
    run_id                   text NOT NULL,
    kind                     spend_kind NOT NULL,
    tool_name                text,
    provider                 text,
    host                     text, -- that asks for the payment
    payee                    text,
    amount_sats              sats NOT NULL,
    committed_sats           sats,
    max_overage_bps          integer NOT NULL DEFAULT 0,
    state                    spend_state NOT NULL DEFAULT 'reserved',
    retry_class              spend_retry_class NOT NULL,
    request_hash             text,
    lease_epoch              bigint NOT NULL,
    provider_idempotency_key text,
    provider_correlation_id  text,
    payment_hash             text,
    quote                    json,
    proof                    json,
    maybe_billed             boolean NOT NULL DEFAULT false,
    failure_reason           text,
    evaluation_hash          text NOT NULL,
    approval_id              text,
    reserved_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at               timestamptz, -- from then on the provider may have been asked
    marked_at                timestamptz,
    committed_at             timestamptz,
    released_at              timestamptz,
    reconciled_at            timestamptz,
    reconciled_by            text,
    probe_count              integer NOT NULL DEFAULT 0,
    next_probe_at            timestamptz,
    inserted_at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, tool_call_id),
    CONSTRAINT spend_reservations_amount_positive CHECK (amount_sats > 0),
    CONSTRAINT spend_reservations_commit_is_told CHECK ((committed_at IS NULL) = (committed_sats IS NULL)),
    CONSTRAINT spend_reservations_end_is_told CHECK ((released_at IS NOT NULL) = (state = 'released')
        AND (committed_at IS NOT NULL OR state <> 'committed'))
) WITH (fillfactor = 80);

CREATE INDEX spend_reservations_by_authorization ON spend_reservations (authorization_id, reserved_at);
CREATE INDEX spend_reservations_open ON spend_reservations (reserved_at) WHERE state IN ('reserved', 'reconcile_required');
CREATE UNIQUE INDEX spend_reservations_invoice_once ON spend_reservations (payment_hash)
    WHERE payment_hash IS NOT NULL AND state <> 'released';

-- Every movement, twice: amount_sats goes from debit to credit. Rows name the
-- authorization that pays; the counters of a level are the sums of those whose
-- path leads through it. Only added to.
CREATE TABLE spend_ledger_entries (
    authorization_id text NOT NULL,
    entry_id         uuid NOT NULL,
    run_key          uuid,
    tool_call_id     text,
    kind             text NOT NULL,
    debit            text NOT NULL,
    credit           text NOT NULL,
    amount_sats      sats NOT NULL,
    actor            text NOT NULL,
    evidence         json,
    inserted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (authorization_id, entry_id),
    CONSTRAINT spend_ledger_entries_amount_positive CHECK (amount_sats > 0),
    CONSTRAINT spend_ledger_entries_call_told CHECK ((run_key IS NULL) = (tool_call_id IS NULL)),
    CONSTRAINT spend_ledger_entries_movement_known CHECK (strpos(
        '|issue outside available|raise outside available|lower available outside|hold available reserved'
        '|capture reserved spent|release reserved available|overage available spent|reversal spent available|',
        '|' || kind || ' ' || debit || ' ' || credit || '|') > 0)
);

-- What was done to an authorization, by whom. Only added to.
CREATE TABLE spend_authorization_events (
    authorization_id text NOT NULL,
    revision         bigint NOT NULL,
    event_id         uuid NOT NULL,
    kind             text NOT NULL,
    actor            text NOT NULL,
    reason           text,
    before           json,
    after            json NOT NULL,
    inserted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (authorization_id, revision),
    CONSTRAINT spend_authorization_events_once UNIQUE (event_id),
    CONSTRAINT spend_authorization_events_kind_known CHECK (kind IN ('issued', 'raised', 'lowered', 'amended', 'revoked'))
);

-- +goose StatementBegin
CREATE FUNCTION spend_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'OA009',
        HINT = 'Money that was booked wrongly is put right by another entry.';
END
$$;
-- +goose StatementEnd

CREATE TRIGGER spend_ledger_entries_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON spend_ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION spend_only_added_to();
CREATE TRIGGER spend_authorization_events_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON spend_authorization_events
    FOR EACH STATEMENT EXECUTE FUNCTION spend_only_added_to();
CREATE TRIGGER spend_reservations_kept BEFORE DELETE OR TRUNCATE ON spend_reservations
    FOR EACH STATEMENT EXECUTE FUNCTION spend_only_added_to();
CREATE TRIGGER spend_authorizations_kept BEFORE DELETE OR TRUNCATE OR UPDATE OF authorization_id, parent_authorization_id, path,
    owner_user_id, owner_guest_scope, scope_kind, run_id, thread_id, autopilot_id, mode ON spend_authorizations
    FOR EACH STATEMENT EXECUTE FUNCTION spend_only_added_to();

-- +goose StatementBegin
-- Fails with a code unless a statement did to as many rows as it was meant to.
CREATE FUNCTION spend_expect(code text, did bigint, meant bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF did <> meant THEN
        RAISE EXCEPTION 'spend: % rows and not %', did, meant USING ERRCODE = code;
    END IF;
    RETURN true;
END
$$;
-- +goose StatementEnd

-- Authorizations whose counters are not the sums of the ledger and of the
-- reservations. It must be empty.
CREATE VIEW spend_ledger_drift AS
WITH booked AS (
    SELECT l.level AS authorization_id,
           sum(CASE 'spent' WHEN e.credit THEN e.amount_sats WHEN e.debit THEN -e.amount_sats ELSE 0 END)::bigint AS spent_sats,
           sum(CASE 'reserved' WHEN e.credit THEN e.amount_sats WHEN e.debit THEN -e.amount_sats ELSE 0 END)::bigint AS reserved_sats,
           coalesce(sum(e.amount_sats) FILTER (WHERE e.kind = 'overage'), 0)::bigint AS overage_sats
    FROM spend_ledger_entries e
    JOIN spend_authorizations a ON a.authorization_id = e.authorization_id
    CROSS JOIN LATERAL unnest(a.path) AS l(level)
    WHERE e.kind NOT IN ('issue', 'raise', 'lower')
    GROUP BY l.level
), caps AS (
    SELECT e.authorization_id, sum(CASE e.kind WHEN 'lower' THEN -e.amount_sats ELSE e.amount_sats END)::bigint AS max_total_sats
    FROM spend_ledger_entries e
    WHERE e.kind IN ('issue', 'raise', 'lower')
    GROUP BY e.authorization_id
), calls AS (
    SELECT l.level AS authorization_id,
           coalesce(sum(r.committed_sats) FILTER (WHERE r.state = 'committed'), 0)::bigint AS spent_sats,
           coalesce(sum(r.amount_sats) FILTER (WHERE r.state IN ('reserved', 'reconcile_required')), 0)::bigint AS reserved_sats
    FROM spend_reservations r
    CROSS JOIN LATERAL unnest(r.path) AS l(level)
    GROUP BY l.level
)
SELECT a.authorization_id, a.spent_sats, a.reserved_sats, a.overage_sats, a.max_total_sats,
       coalesce(b.spent_sats, 0) AS ledger_spent_sats, coalesce(b.reserved_sats, 0) AS ledger_reserved_sats,
       coalesce(b.overage_sats, 0) AS ledger_overage_sats, coalesce(c.max_total_sats, 0) AS ledger_max_total_sats,
       coalesce(r.spent_sats, 0) AS calls_spent_sats, coalesce(r.reserved_sats, 0) AS calls_reserved_sats,
       coalesce(p.held_sats, a.reserved_sats) AS period_held_sats
FROM spend_authorizations a
LEFT JOIN booked b USING (authorization_id)
LEFT JOIN caps c USING (authorization_id)
LEFT JOIN calls r USING (authorization_id)
LEFT JOIN LATERAL (SELECT p.held_sats FROM spend_periods p
                   WHERE p.authorization_id = a.authorization_id AND p.held_sats <> a.reserved_sats LIMIT 1) p ON true
WHERE a.spent_sats <> coalesce(b.spent_sats, 0) OR a.reserved_sats <> coalesce(b.reserved_sats, 0)
   OR a.overage_sats <> coalesce(b.overage_sats, 0) OR coalesce(a.max_total_sats, 0) <> coalesce(c.max_total_sats, 0)
   OR a.spent_sats <> coalesce(r.spent_sats, 0) OR a.reserved_sats <> coalesce(r.reserved_sats, 0)
   OR p.held_sats IS NOT NULL;

-- Which artifact is live for a signature, what was done about it, and what was
-- compiled: the tables that operators read with the runbook's queries.
CREATE TABLE ds_artifact_pointers (
    signature_id     varchar(255) PRIMARY KEY,
    primary_artifact jsonb NOT NULL DEFAULT '{}',
    canary_artifact  jsonb,
    canary_percent   integer NOT NULL DEFAULT 0,
    rollout_seed     varchar(255) NOT NULL DEFAULT 'default',
    metadata         jsonb NOT NULL DEFAULT '{}',
    inserted_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ds_artifact_pointers_canary_percent_valid CHECK (canary_percent BETWEEN 0 AND 100)
);

CREATE INDEX ds_artifact_pointers_by_time ON ds_artifact_pointers (updated_at);

CREATE TABLE ds_pointer_audits (
    id              bigserial PRIMARY KEY,
    signature_id    varchar(255) NOT NULL,
    action          varchar(255) NOT NULL,
    actor           varchar(255),
    reason          text,
    metadata        jsonb NOT NULL DEFAULT '{}',
    before_pointer  jsonb,
    after_pointer   jsonb,
    target_audit_id bigint,
    inserted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ds_pointer_audits_action_valid CHECK (action IN ('promote', 'rollback', 'set_canary', 'clear_canary'))
);

CREATE INDEX ds_pointer_audits_by_signature ON ds_pointer_audits (signature_id, inserted_at);
CREATE INDEX ds_pointer_audits_by_target ON ds_pointer_audits (target_audit_id);

CREATE TABLE ds_compile_reports (
    id                  bigserial PRIMARY KEY,
    report_id           varchar(255) NOT NULL,
    signature_id        varchar(255) NOT NULL,
    job_hash            varchar(255) NOT NULL,
    dataset_hash        varchar(255) NOT NULL,
    compiler_version    varchar(255) NOT NULL,
    status              varchar(255) NOT NULL DEFAULT 'succeeded',
    job_spec            jsonb NOT NULL DEFAULT '{}',
    selected_artifact   jsonb,
    candidate_artifacts jsonb NOT NULL DEFAULT '{}',
    metrics             jsonb NOT NULL DEFAULT '{}',
    metadata            jsonb NOT NULL DEFAULT '{}',
    started_at          timestamptz NOT NULL,
    completed_at        timestamptz,
    error_message       text,
    inserted_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ds_compile_reports_report_id_once UNIQUE (report_id),
    CONSTRAINT ds_compile_reports_status_valid CHECK (status IN ('succeeded', 'failed')),
    CONSTRAINT ds_compile_reports_signature_job_dataset_index UNIQUE (signature_id, job_hash, dataset_hash)
);

CREATE INDEX ds_compile_reports_by_signature ON ds_compile_reports (signature_id, inserted_at);

-- +goose Down
DROP TABLE ds_compile_reports, ds_pointer_audits, ds_artifact_pointers;
DROP VIEW spend_ledger_drift;
DROP TABLE spend_authorization_events, spend_ledger_entries, spend_reservations, spend_periods, spend_authorizations CASCADE;
DROP FUNCTION spend_expect, spend_only_added_to;
DROP DOMAIN spend_retry_class, spend_state, spend_kind, sats;
ALTER TABLE runs DROP COLUMN authorization_id;

-- +goose Up

-- The calls of the last minute that were let through to a provider for an owner
-- whose extension manifest bounds them: which, and when.
CREATE TABLE tool_rates (
    owner      text NOT NULL,
    provider   text NOT NULL,
    per_minute integer NOT NULL,          -- as the last call found it
    call_ids   text[] NOT NULL,
    taken_at   timestamptz[] NOT NULL,
    PRIMARY KEY (owner, provider)
);

-- Whose specs have a manifest.
CREATE INDEX tool_specs_with_manifest ON tool_specs (owner) WHERE (spec->'integration_manifest') IS NOT NULL;

-- +goose Down
DROP INDEX tool_specs_with_manifest;
DROP TABLE tool_rates;

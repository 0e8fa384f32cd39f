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

-- Whose specs may have a manifest. The operators of json refuse some texts that
-- json can hold, so the text is looked at as it is.
CREATE INDEX tool_specs_with_manifest ON tool_specs (owner) WHERE strpos(spec::text, '"integration_manifest"') > 0;

-- +goose Down
DROP INDEX tool_specs_with_manifest;
DROP TABLE tool_rates;

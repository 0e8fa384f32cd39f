-- +goose Up

-- Calls of the API that policy refused, one row for each tool_call_id: the same
-- call again gets the same decision.
CREATE TABLE tool_refusals (
    run_key         uuid NOT NULL,
    tool_call_id    text NOT NULL,
    tool_name       text NOT NULL,
    params_hash     text NOT NULL,
    reason_code     text NOT NULL,
    evaluation_hash text NOT NULL,
    retry_after_ms  bigint,
    refused_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_key, tool_call_id)
);

-- +goose Down
DROP TABLE tool_refusals;

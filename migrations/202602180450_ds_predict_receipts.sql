-- +goose Up

-- The proof of each call of a signature. Append-only.
CREATE TABLE ds_predict_receipts (
    receipt_id   text PRIMARY KEY,
    run_key      uuid NOT NULL,
    run_id       text NOT NULL,
    call_id      text NOT NULL,
    signature_id text NOT NULL,
    compiled_id  text NOT NULL,
    strategy_id  text NOT NULL,
    status       text NOT NULL,
    lease_epoch  bigint NOT NULL,
    receipt      json NOT NULL,
    receipt_hash text NOT NULL,
    inserted_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ds_predict_receipts_call_once UNIQUE (run_key, call_id)
);

-- +goose Down
DROP TABLE ds_predict_receipts;

-- +goose Up

-- Nonces of tokens that were used, until the tokens expire.
CREATE TABLE auth_nonces (
    nonce_hash bytea PRIMARY KEY,
    expires_at timestamptz NOT NULL
);

-- +goose Down
DROP TABLE auth_nonces;

-- name: AuthNonceRemember :execrows
-- One row when the nonce is new, none when it was used before or when
-- AuthNonceSweep may already have forgotten it. Its commit does not wait for the
-- disk; the setting ends with the statement.
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO auth_nonces (nonce_hash, expires_at)
SELECT @nonce_hash::bytea, @expires_at::timestamptz FROM soon WHERE @expires_at::timestamptz > clock_timestamp()
ON CONFLICT (nonce_hash) DO NOTHING;

-- name: AuthNonceSweep :execrows
DELETE FROM auth_nonces WHERE expires_at <= clock_timestamp();

-- name: AuthNonceRemember :execrows
-- One row when the nonce is new, none when it was used before or when
-- AuthNonceSweep may already have forgotten it. Its commit does not wait for the
-- disk; the setting ends with the statement.
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO auth_nonces (nonce_hash, expires_at)
SELECT @nonce_hash::bytea, @expires_at::timestamptz FROM soon WHERE @expires_at::timestamptz > clock_timestamp()
ON CONFLICT (nonce_hash) DO NOTHING;

-- name: AuthNonceRememberMany :many
-- The same of many nonces, each of which is named once: those that are new. They
-- are in order, so that two processes do not wait for each other in a ring.
WITH soon AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
INSERT INTO auth_nonces (nonce_hash, expires_at)
SELECT n.nonce_hash, n.expires_at
FROM soon, (SELECT unnest(@nonce_hashes::bytea[]) AS nonce_hash, unnest(@expire_ats::timestamptz[]) AS expires_at) n
WHERE n.expires_at > clock_timestamp()
ORDER BY n.nonce_hash
ON CONFLICT (nonce_hash) DO NOTHING
RETURNING nonce_hash;

-- name: AuthNonceSweep :execrows
DELETE FROM auth_nonces WHERE expires_at <= clock_timestamp();

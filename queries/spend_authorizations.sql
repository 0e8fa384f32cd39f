-- name: SpendAuthorizationInsert :one
-- Issues an authorization, or returns no row when there is one of that id.
INSERT INTO spend_authorizations (authorization_id, parent_authorization_id, path, owner_user_id, owner_guest_scope, scope_kind,
    run_id, thread_id, autopilot_id, mode, max_total_sats, max_per_call_sats, max_per_day_sats, threshold_sats, constraints,
    on_exhaustion, unknown_price, metadata, terms_hash, not_before, expires_at)
VALUES (@authorization_id, sqlc.narg('parent_authorization_id'), @path, sqlc.narg('owner_user_id'), sqlc.narg('owner_guest_scope'), @scope_kind,
    sqlc.narg('run_id'), sqlc.narg('thread_id'), sqlc.narg('autopilot_id'), @mode, sqlc.narg('max_total_sats'), sqlc.narg('max_per_call_sats'),
    sqlc.narg('max_per_day_sats'), sqlc.narg('threshold_sats'), @constraints,
    @on_exhaustion, @unknown_price, @metadata, @terms_hash, sqlc.narg('not_before'), sqlc.narg('expires_at'))
ON CONFLICT (authorization_id) DO NOTHING
RETURNING *;

-- name: SpendAuthorizationGet :one
SELECT * FROM spend_authorizations WHERE authorization_id = @authorization_id;

-- name: SpendAuthorizationGetForChange :one
-- Locks an authorization: what is held or settled under it waits until this
-- transaction ends.
SELECT * FROM spend_authorizations WHERE authorization_id = @authorization_id FOR NO KEY UPDATE;

-- name: SpendAuthorizationResolve :one
-- The authorization that pays for a run: the most specific of its owner, the
-- newest of those; also one that has ended, for that must not let the run fall
-- back on a broader one.
SELECT * FROM spend_authorizations
WHERE owner = @owner AND scope_kind IN ('owner', 'autopilot', 'thread', 'run')
  AND (run_id IS NULL OR run_id = @run_id)
  AND (thread_id IS NULL OR thread_id = @thread_id)
  AND (autopilot_id IS NULL OR autopilot_id = sqlc.narg('autopilot_id'))
ORDER BY run_id IS NOT NULL DESC, thread_id IS NOT NULL DESC, autopilot_id IS NOT NULL DESC,
         inserted_at DESC, authorization_id DESC
LIMIT 1;

-- name: SpendAuthorizationListPath :many
-- The authorizations of a path, root first, with the moment at which they were read.
SELECT sqlc.embed(a), clock_timestamp()::timestamptz AS read_at
FROM spend_authorizations a
WHERE a.authorization_id = ANY(@path::text[])
ORDER BY cardinality(a.path);

-- name: SpendAuthorizationList :many
-- Newest first, after the last one of the page before.
SELECT * FROM spend_authorizations
WHERE (sqlc.narg('owner')::text IS NULL OR owner = sqlc.narg('owner')::text)
  AND (sqlc.narg('run_id')::text IS NULL OR run_id = sqlc.narg('run_id')::text)
  AND (sqlc.narg('thread_id')::text IS NULL OR thread_id = sqlc.narg('thread_id')::text)
  AND (sqlc.narg('parent_authorization_id')::text IS NULL OR parent_authorization_id = sqlc.narg('parent_authorization_id')::text)
  AND (sqlc.narg('state')::text IS NULL OR sqlc.narg('state')::text =
       CASE WHEN revoked_at IS NOT NULL THEN 'revoked'
            WHEN expires_at <= clock_timestamp() THEN 'expired'
            WHEN not_before > clock_timestamp() THEN 'not_started'
            ELSE 'live' END)
  AND (sqlc.narg('before_at')::timestamptz IS NULL
       OR (inserted_at, authorization_id) < (sqlc.narg('before_at')::timestamptz, sqlc.narg('before_id')::text))
ORDER BY inserted_at DESC, authorization_id DESC
LIMIT @max_authorizations;

-- name: SpendAuthorizationListBelow :many
-- The authorization and all below it.
SELECT authorization_id FROM spend_authorizations WHERE path @> ARRAY[@authorization_id::text];

-- name: SpendAuthorizationAmend :one
-- Writes new terms to an authorization that this transaction has locked.
UPDATE spend_authorizations
SET max_total_sats = sqlc.narg('max_total_sats'), max_per_call_sats = sqlc.narg('max_per_call_sats'),
    max_per_day_sats = sqlc.narg('max_per_day_sats'), threshold_sats = sqlc.narg('threshold_sats'),
    constraints = @constraints, on_exhaustion = @on_exhaustion, unknown_price = @unknown_price, metadata = @metadata,
    not_before = sqlc.narg('not_before'), expires_at = sqlc.narg('expires_at'),
    revision = revision + 1, updated_at = clock_timestamp()
WHERE authorization_id = @authorization_id
RETURNING *;

-- name: SpendAuthorizationRevoke :one
-- Revokes an authorization that this transaction has locked.
UPDATE spend_authorizations
SET revoked_at = clock_timestamp(), revoked_by = @revoked_by, revoke_reason = sqlc.narg('revoke_reason'),
    revision = revision + 1, updated_at = clock_timestamp()
WHERE authorization_id = @authorization_id AND revoked_at IS NULL
RETURNING *;

-- name: SpendAuthorizationLockMany :exec
-- Locks the rows that SpendAuthorizationMoveMany is about to move in the order of
-- their ids, so that two processes that move several at once cannot deadlock.
SELECT 1 FROM spend_authorizations
WHERE authorization_id = ANY(@authorization_ids::text[])
ORDER BY authorization_id
FOR NO KEY UPDATE;

-- name: SpendAuthorizationMoveMany :exec
-- Moves the counters of every level of every movement of a commit. Where something
-- is held (revision is not 0), the level must be as whoever decided knew it, must
-- count now, and must have room for it all. Fails with OA001 when one does not.
WITH moved AS (
    UPDATE spend_authorizations a
    SET spent_sats = a.spent_sats + u.spent_sats, reserved_sats = a.reserved_sats + u.reserved_sats,
        overage_sats = a.overage_sats + u.overage_sats
    FROM (SELECT unnest(@authorization_ids::text[]) AS authorization_id,
                 unnest(@spent_sats::bigint[]) AS spent_sats,
                 unnest(@reserved_sats::bigint[]) AS reserved_sats,
                 unnest(@overage_sats::bigint[]) AS overage_sats,
                 unnest(@largest_sats::bigint[]) AS largest_sats,
                 unnest(@revisions::bigint[]) AS revision) u
    WHERE a.authorization_id = u.authorization_id
      AND (u.revision = 0
           OR (a.revision = u.revision AND a.revoked_at IS NULL AND a.mode <> 'deny'
               AND (a.expires_at IS NULL OR a.expires_at > clock_timestamp())
               AND (a.not_before IS NULL OR a.not_before <= clock_timestamp())
               AND (a.max_per_call_sats IS NULL OR u.largest_sats <= a.max_per_call_sats)
               AND (a.max_total_sats IS NULL
                    OR a.spent_sats + a.reserved_sats + u.spent_sats + u.reserved_sats <= a.max_total_sats)))
    RETURNING 1
)
SELECT spend_expect('OA001', count(*), cardinality(@authorization_ids::text[])) FROM moved;

-- name: SpendAuthorizationDrift :many
-- Authorizations whose counters are not the sums of the ledger and the reservations.
SELECT * FROM spend_ledger_drift ORDER BY authorization_id LIMIT @max_authorizations;

-- name: ApprovalInsert :exec
INSERT INTO approvals (approval_id, run_key, run_id, thread_id, owner, kind, tool_call_id, requested_by, title, decider, request,
                       args_hash, policy_hash, reason_code, expires_at)
VALUES (@approval_id, @run_key, @run_id, @thread_id, @owner, @kind, sqlc.narg('tool_call_id'), sqlc.narg('requested_by'), @title, @decider, @request,
        @args_hash, @policy_hash, sqlc.narg('reason_code'), @expires_at);

-- name: ApprovalGet :one
SELECT * FROM approvals WHERE approval_id = @approval_id;

-- name: ApprovalDecide :exec
-- Decides a pending approval before it expires, for somebody who may, under the
-- hashes that it binds. Fails with a division by zero when it decides nothing.
WITH decided AS (
    UPDATE approvals
    SET state = @state, decided_at = clock_timestamp(), decided_by = @decided_by, decision_reason = sqlc.narg('reason'),
        decision_content = sqlc.narg('content')
    WHERE approval_id = @approval_id AND state = 'pending' AND expires_at > clock_timestamp()
      AND CASE decider WHEN 'owner' THEN owner = @owner ELSE @operator::boolean END
      AND args_hash = coalesce(sqlc.narg('args_hash'), args_hash)
      AND policy_hash = coalesce(sqlc.narg('policy_hash'), policy_hash)
    RETURNING 1
)
SELECT 1 / (CASE WHEN count(*) = 1 THEN 1 ELSE 0 END) FROM decided;

-- name: ApprovalExpire :exec
-- Ends a pending approval whose time is over. Fails with a division by zero when
-- it is not so.
WITH expired AS (
    UPDATE approvals SET state = 'expired', decided_at = clock_timestamp()
    WHERE approval_id = @approval_id AND state = 'pending' AND expires_at <= clock_timestamp()
    RETURNING 1
)
SELECT 1 / (CASE WHEN count(*) = 1 THEN 1 ELSE 0 END) FROM expired;

-- name: ApprovalCancelOf :exec
-- Cancels the pending approvals of a run. Fails with a division by zero unless
-- they are the ones that the caller tells of.
WITH canceled AS (
    UPDATE approvals SET state = 'canceled', decided_at = clock_timestamp(), decision_reason = @reason
    WHERE run_key = @run_key AND state = 'pending'
    RETURNING approval_id
)
SELECT 1 / (CASE WHEN coalesce(array_agg(approval_id), '{}') @> @approval_ids::text[]
                  AND coalesce(array_agg(approval_id), '{}') <@ @approval_ids::text[] THEN 1 ELSE 0 END) FROM canceled;

-- name: ApprovalCancelEnded :execrows
-- Cancels what is still pending of runs that have ended: their logs take no event.
UPDATE approvals a
SET state = 'canceled', decided_at = clock_timestamp(), decision_reason = @reason
FROM runs r
WHERE a.state = 'pending' AND r.run_key = a.run_key AND r.status IN ('completed', 'failed', 'canceled')
  AND (sqlc.narg('approval_id')::text IS NULL OR a.approval_id = sqlc.narg('approval_id')::text);

-- name: ApprovalListDue :many
-- Pending approvals whose time is over, the longest over first.
SELECT * FROM approvals
WHERE state = 'pending' AND expires_at <= clock_timestamp()
ORDER BY expires_at
LIMIT @max_approvals;

-- name: ApprovalListOfRun :many
SELECT * FROM approvals WHERE run_key = @run_key ORDER BY requested_at, approval_id;

-- name: ApprovalListByOwner :many
-- Newest first, after the last one of the page before.
SELECT * FROM approvals
WHERE (sqlc.narg('owner')::text IS NULL OR owner = sqlc.narg('owner')::text)
  AND (sqlc.narg('state')::text IS NULL OR state = sqlc.narg('state')::text)
  AND (sqlc.narg('thread_id')::text IS NULL OR thread_id = sqlc.narg('thread_id')::text)
  AND (sqlc.narg('run_id')::text IS NULL OR run_id = sqlc.narg('run_id')::text)
  AND (sqlc.narg('before_at')::timestamptz IS NULL
       OR (requested_at, approval_id) < (sqlc.narg('before_at')::timestamptz, sqlc.narg('before_id')::text))
ORDER BY requested_at DESC, approval_id DESC
LIMIT @max_approvals;

-- name: ApprovalCancel :exec
-- Cancels a pending approval. Fails with a division by zero when it is not so.
WITH canceled AS (
    UPDATE approvals SET state = 'canceled', decided_at = clock_timestamp(), decision_reason = @reason
    WHERE approval_id = @approval_id AND state = 'pending'
    RETURNING 1
)
SELECT 1 / (CASE WHEN count(*) = 1 THEN 1 ELSE 0 END) FROM canceled;

-- name: ApprovalCountPending :one
SELECT count(*) FROM approvals WHERE owner = @owner AND state = 'pending';

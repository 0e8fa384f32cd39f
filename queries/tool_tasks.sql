-- name: ToolTaskInsert :exec
-- A new call, queued. The same call twice breaks the primary key, and with it the
-- unit that it is part of.
INSERT INTO tool_tasks (run_key, tool_call_id, run_id, tool_name, kind, requested_by, settlement_boundary,
                        step, call_index, frame_id, idempotency_key, timeout_ms, input, params_hash, provider,
                        approval_id, decision, reason_code, evaluation_hash, traceparent, tracestate, request_id)
VALUES (@run_key, @tool_call_id, @run_id, @tool_name, @kind, @requested_by, @settlement_boundary,
        sqlc.narg('step'), @call_index, sqlc.narg('frame_id'), @idempotency_key, @timeout_ms, @input, @params_hash, @provider,
        sqlc.narg('approval_id'), sqlc.narg('decision'), sqlc.narg('reason_code'), sqlc.narg('evaluation_hash'),
        sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id'));

-- name: ToolTaskStart :exec
-- An attempt begins at each of some tasks of a run, the one after those that the
-- caller knows of. Fails with a division by zero when a task is not as the caller
-- knows it. A client tool has one deadline, the others one for each attempt.
WITH moved AS (
    UPDATE tool_tasks t
    SET state = CASE WHEN t.state = 'queued' THEN 'running' ELSE t.state END,
        attempts = t.attempts + 1, lease_epoch = @lease_epoch, provider = w.provider,
        running_at = coalesce(t.running_at, clock_timestamp()),
        deadline_at = clock_timestamp() + t.timeout_ms * interval '1 millisecond',
        updated_at = clock_timestamp()
    FROM (SELECT unnest(@tool_call_ids::text[]) AS tool_call_id, unnest(@attempts::integer[]) AS attempts,
                 unnest(@providers::text[]) AS provider) w
    WHERE t.run_key = @run_key AND t.tool_call_id = w.tool_call_id
      AND t.state = ANY(@expected::text[]) AND t.attempts = w.attempts AND t.lease_epoch <= @lease_epoch
    RETURNING 1
)
SELECT 1 / (count(*) = cardinality(@tool_call_ids::text[]))::integer FROM moved;

-- name: ToolTaskDecide :exec
-- Policy decided again on a call that has not begun. Fails as ToolTaskStart does.
WITH moved AS (
    UPDATE tool_tasks
    SET decision = @decision, reason_code = @reason_code, evaluation_hash = @evaluation_hash,
        lease_epoch = @lease_epoch, updated_at = clock_timestamp()
    WHERE run_key = @run_key AND tool_call_id = @tool_call_id AND state = 'queued' AND lease_epoch <= @lease_epoch
    RETURNING 1
)
SELECT 1 / count(*) FROM moved;

-- name: ToolTaskProgress :exec
-- Something can be shown before the end. Fails as ToolTaskStart does.
WITH moved AS (
    UPDATE tool_tasks
    SET state = 'streaming_output', lease_epoch = @lease_epoch, output = @output, progress_count = progress_count + 1,
        streaming_at = coalesce(streaming_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE run_key = @run_key AND tool_call_id = @tool_call_id
      AND state = ANY(@expected::text[]) AND attempts = @attempts AND lease_epoch <= @lease_epoch
    RETURNING 1
)
SELECT 1 / count(*) FROM moved;

-- name: ToolTaskFinish :exec
-- The one end of a call. Fails as ToolTaskStart does.
WITH moved AS (
    UPDATE tool_tasks
    SET state = @state, attempts = @total_attempts, lease_epoch = @lease_epoch,
        output = sqlc.narg('output'), output_hash = sqlc.narg('output_hash'), output_truncated = @output_truncated,
        error_class = sqlc.narg('error_class'), error_message = sqlc.narg('error_message'),
        provider = @provider, fallback_used = @fallback_used, correlation_id = sqlc.narg('correlation_id'),
        latency_ms = @latency_ms, result_frame_id = sqlc.narg('result_frame_id'),
        receipt = @receipt, receipt_hash = @receipt_hash,
        finished_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE run_key = @run_key AND tool_call_id = @tool_call_id
      AND state = ANY(@expected::text[]) AND attempts = @attempts AND lease_epoch <= @lease_epoch
    RETURNING 1
)
SELECT 1 / count(*) FROM moved;

-- name: ToolTaskRequestCancel :exec
-- Notes once that an open call is to stop. Fails as ToolTaskStart does.
WITH moved AS (
    UPDATE tool_tasks SET cancel_requested = true, updated_at = clock_timestamp()
    WHERE run_key = @run_key AND tool_call_id = @tool_call_id
      AND state IN ('queued', 'running', 'streaming_output') AND NOT cancel_requested
    RETURNING 1
)
SELECT 1 / count(*) FROM moved;

-- name: ToolTaskGet :one
SELECT * FROM tool_tasks WHERE run_key = @run_key AND tool_call_id = @tool_call_id;

-- name: ToolTaskListByCall :many
-- The calls of that id in an owner's runs, newest first.
SELECT t.* FROM tool_tasks t
JOIN runs r USING (run_key)
WHERE t.tool_call_id = @tool_call_id
  AND (sqlc.narg('owner')::text IS NULL OR r.owner = sqlc.narg('owner')::text)
  AND (sqlc.narg('run_key')::uuid IS NULL OR t.run_key = sqlc.narg('run_key')::uuid)
ORDER BY t.run_key DESC
LIMIT 2;

-- name: ToolTaskListByRun :many
-- A page of a run's calls, newest first.
SELECT * FROM tool_tasks
WHERE run_key = @run_key
  AND (sqlc.narg('before_queued_at')::timestamptz IS NULL
       OR (queued_at, tool_call_id) < (sqlc.narg('before_queued_at')::timestamptz, @before_call_id::text))
ORDER BY queued_at DESC, tool_call_id DESC
LIMIT @max_tasks;

-- name: ToolTaskListOpen :many
-- The calls of a run that have not ended, in the order in which they were asked for.
SELECT * FROM tool_tasks
WHERE run_key = @run_key AND state IN ('queued', 'running', 'streaming_output')
ORDER BY queued_at, call_index, tool_call_id;

-- name: ToolTaskListByIDs :many
SELECT * FROM tool_tasks WHERE run_key = @run_key AND tool_call_id = ANY(@tool_call_ids::text[]);

-- name: ToolTaskCount :one
-- How many calls a run has made.
SELECT count(*) FROM tool_tasks WHERE run_key = @run_key;

-- name: ToolTaskWakeOverdue :execrows
-- Runs that wait for a client tool's result, or for a person, past the deadline
-- have something to do: their executor ends what is overdue. Rows that somebody
-- holds are left for the next pass, so that this waits for nobody.
UPDATE runs SET runnable = true, updated_at = clock_timestamp()
WHERE run_key IN (
    SELECT r.run_key FROM runs r
    WHERE NOT r.runnable AND r.status NOT IN ('completed', 'failed', 'canceled')
      AND r.run_key IN (
          SELECT t.run_key FROM tool_tasks t
          WHERE t.state IN ('queued', 'running', 'streaming_output') AND t.kind = 'client' AND t.deadline_at < clock_timestamp()
          UNION
          SELECT a.run_key FROM approvals a WHERE a.state = 'pending' AND a.expires_at < clock_timestamp())
    LIMIT @max_runs
    FOR UPDATE SKIP LOCKED);

-- name: ToolTaskListOrphans :many
-- Open calls of runs that have ended.
SELECT t.* FROM tool_tasks t
JOIN runs r USING (run_key)
WHERE t.state IN ('queued', 'running', 'streaming_output') AND r.status IN ('completed', 'failed', 'canceled')
ORDER BY t.run_key, t.tool_call_id
LIMIT @max_tasks;

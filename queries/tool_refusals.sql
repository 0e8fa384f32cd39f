-- name: ToolRefusalInsert :exec
-- A call that policy refused. The same call twice breaks the primary key, and with
-- it the unit that it is part of.
INSERT INTO tool_refusals (run_key, tool_call_id, tool_name, params_hash, reason_code, evaluation_hash, retry_after_ms)
VALUES (@run_key, @tool_call_id, @tool_name, @params_hash, @reason_code, @evaluation_hash, sqlc.narg('retry_after_ms'));

-- name: ToolRefusalGet :one
SELECT * FROM tool_refusals WHERE run_key = @run_key AND tool_call_id = @tool_call_id;

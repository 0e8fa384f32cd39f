-- +goose Up

-- When a run that waits for a person or a client has had its time. One that waits
-- for its next frame has no such moment.
ALTER TABLE runs ADD COLUMN due_at timestamptz;
CREATE INDEX runs_due ON runs (due_at) WHERE due_at IS NOT NULL;

-- Runs that wait already are looked at once, which tells them their moment.
UPDATE runs r SET runnable = true, updated_at = clock_timestamp()
WHERE r.status = 'waiting' AND NOT r.runnable AND EXISTS (
    SELECT FROM tool_tasks t WHERE t.run_key = r.run_key AND t.state IN ('queued', 'running', 'streaming_output'));

-- +goose Down
ALTER TABLE runs DROP COLUMN due_at;

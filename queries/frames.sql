-- name: FrameInsert :exec
INSERT INTO frames (run_key, frame_seq, frame_id, frame_type, payload, payload_hash, source, mode, event_seq, traceparent, tracestate, request_id)
VALUES (@run_key, @frame_seq, @frame_id, @frame_type, @payload, @payload_hash, sqlc.narg('source'), @mode, @event_seq,
        sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id'));

-- name: FrameGet :one
SELECT * FROM frames WHERE run_key = @run_key AND frame_id = @frame_id;

-- name: FrameListNewest :many
-- The newest frames before a frame_seq of each of some runs, a few of each run,
-- newest first. It reads no further back than that.
SELECT f.run_key, f.frame_seq, f.frame_id, f.frame_type, f.payload, f.event_seq
FROM (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@before_seqs::bigint[]) AS before_seq) u
CROSS JOIN LATERAL (
    SELECT r.* FROM frames r
    WHERE r.run_key = u.run_key AND r.frame_seq < u.before_seq
    ORDER BY r.frame_seq DESC
    LIMIT @max_frames::integer
) f
ORDER BY f.run_key, f.frame_seq DESC;
-- name: FrameListToAnswer :many
-- What the next step answers, in order: the first frame after a position, and
-- every frame up to the last one that steers.
SELECT * FROM frames
WHERE frames.run_key = @run_key AND frames.frame_seq > @after_seq
  AND (frames.frame_seq - 1 = @after_seq OR frames.frame_seq <= (
      SELECT max(s.frame_seq) FROM frames s
      WHERE s.run_key = @run_key AND s.frame_seq > @after_seq AND s.mode IN ('steer', 'interrupt')))
ORDER BY frames.frame_seq;

-- name: FrameInterrupts :one
-- Whether a frame after a position wants the step at work to end.
SELECT EXISTS (SELECT 1 FROM frames WHERE run_key = @run_key AND frame_seq > @after_seq AND mode = 'interrupt');

-- name: FrameListRecent :many
-- What the newest frames up to a position say, newest first.
SELECT frame_seq, frame_id, frame_type, payload FROM frames WHERE run_key = @run_key AND frame_seq <= @position
ORDER BY frame_seq DESC LIMIT @max_frames;

-- name: FrameListOfTools :many
-- The frames after a position that bring a tool's result or ask for a tool, in
-- order.
SELECT * FROM frames
WHERE run_key = @run_key AND frame_seq > @after_seq AND frame_type IN ('tool_result', 'tool_request')
ORDER BY frame_seq
LIMIT @max_frames;

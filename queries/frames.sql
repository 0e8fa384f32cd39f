-- name: FrameInsert :exec
INSERT INTO frames (run_key, frame_seq, frame_id, frame_type, payload, payload_hash, source, event_seq, traceparent, tracestate, request_id)
VALUES (@run_key, @frame_seq, @frame_id, @frame_type, @payload, @payload_hash, sqlc.narg('source'), @event_seq,
        sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id'));

-- name: FrameGet :one
SELECT * FROM frames WHERE run_key = @run_key AND frame_id = @frame_id;

-- name: FrameGetNext :one
-- The first frame after a position.
SELECT * FROM frames WHERE run_key = @run_key AND frame_seq > @after_seq ORDER BY frame_seq LIMIT 1;

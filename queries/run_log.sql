-- name: RunLogInsertMany :exec
-- Appends events whose seq and hashes were computed under locked heads.
INSERT INTO run_log (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, tracestate, request_id)
SELECT unnest(@run_keys::uuid[]), unnest(@seqs::bigint[]), unnest(@event_types::text[]),
       unnest(@event_versions::integer[]), unnest(@payloads::text[])::json,
       unnest(@content_hashes::bytea[]), unnest(@event_hashes::bytea[]),
       nullif(unnest(@traceparents::text[]), ''), nullif(unnest(@tracestates::text[]), ''),
       nullif(unnest(@request_ids::text[]), '');

-- name: RunLogInsertOne :one
-- Appends one control event to a head that the caller knows, in one statement, and tells
-- where the head's row is now; no row when the head has moved or has another epoch.
WITH moved AS (
    UPDATE run_heads h SET latest_seq = h.latest_seq + 1, latest_hash = @event_hash
    WHERE h.ctid = coalesce(nullif(@place::text, '')::tid, (SELECT k.ctid FROM run_heads k WHERE k.run_key = @run_key))
      AND h.run_key IS NOT DISTINCT FROM @run_key AND h.latest_seq = @known_seq AND h.lease_epoch = @lease_epoch
    RETURNING h.run_key, h.latest_seq, h.latest_hash, h.ctid::text AS place
), added AS (
    INSERT INTO run_log (run_key, seq, event_type, event_version, payload, content_hash, event_hash, traceparent, tracestate, request_id)
    SELECT run_key, latest_seq, @event_type, @event_version, @payload, @content_hash, latest_hash,
           sqlc.narg('traceparent'), sqlc.narg('tracestate'), sqlc.narg('request_id')
    FROM moved
)
SELECT place FROM moved;

-- name: RunLogListAfter :many
-- What is there of the next events of a run, in seq order, without deltas that
-- were folded. Seqs have no gaps, so a range of them bounds the page whatever
-- the planner believes of the run's length. One row more, with nothing but a
-- seq, says that control events follow the range.
SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
       traceparent, tracestate, request_id, inserted_at
FROM (
    SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
           traceparent, tracestate, request_id, inserted_at
    FROM run_log c WHERE c.run_key = @run_key AND c.seq > @after_seq AND c.seq <= @until_seq
    UNION ALL
    SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
           traceparent, tracestate, request_id, inserted_at
    FROM run_log_deltas d WHERE d.run_key = @run_key AND d.seq > @after_seq AND d.seq <= @until_seq
    UNION ALL
    (SELECT run_key, seq, '', 0, '{}', ''::bytea, ''::bytea, NULL, NULL, NULL, inserted_at
     FROM run_log m WHERE m.run_key = @run_key AND m.seq > @until_seq ORDER BY m.seq LIMIT 1)
) AS l
ORDER BY seq;

-- name: RunLogListAfterEach :many
-- What RunLogListAfter gives, of many runs at once: each run is named once, with
-- the seq that its events come after. Ordered by run and seq.
SELECT l.run_key, l.seq, l.event_type, l.event_version, l.payload, l.content_hash, l.event_hash,
       l.traceparent, l.tracestate, l.request_id, l.inserted_at
FROM (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@after_seqs::bigint[]) AS after_seq) u
CROSS JOIN LATERAL (
    SELECT c.run_key, c.seq, c.event_type, c.event_version, c.payload, c.content_hash, c.event_hash,
           c.traceparent, c.tracestate, c.request_id, c.inserted_at
    FROM run_log c WHERE c.run_key = u.run_key AND c.seq > u.after_seq AND c.seq <= u.after_seq + @max_events::bigint
    UNION ALL
    SELECT d.run_key, d.seq, d.event_type, d.event_version, d.payload, d.content_hash, d.event_hash,
           d.traceparent, d.tracestate, d.request_id, d.inserted_at
    FROM run_log_deltas d WHERE d.run_key = u.run_key AND d.seq > u.after_seq AND d.seq <= u.after_seq + @max_events::bigint
    UNION ALL
    (SELECT m.run_key, m.seq, '', 0, '{}', ''::bytea, ''::bytea, NULL, NULL, NULL, m.inserted_at
     FROM run_log m WHERE m.run_key = u.run_key AND m.seq > u.after_seq + @max_events::bigint ORDER BY m.seq LIMIT 1)
) l
ORDER BY l.run_key, l.seq;

-- name: RunLogListOfTypes :many
-- The control events of some types of some runs, in the order of the runs' keys.
SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
       traceparent, tracestate, request_id, inserted_at
FROM run_log
WHERE run_key = ANY(@run_keys::uuid[]) AND event_type = ANY(@event_types::text[])
ORDER BY run_key, seq;

-- name: RunLogListOfTypesAfter :many
-- A page of the events of some types after a seq, in seq order.
SELECT run_key, seq, event_type, event_version, payload, content_hash, event_hash,
       traceparent, tracestate, request_id, inserted_at
FROM run_log
WHERE run_key = @run_key AND seq > @after_seq AND event_type = ANY(@event_types::text[])
ORDER BY seq
LIMIT @max_events;

-- name: RunLogListNewestOfTypes :many
-- The newest events of some types before a seq of each of some runs, a few of
-- each run, newest first. It reads no further back than that.
SELECT l.run_key, l.seq, l.event_type, l.event_version, l.payload, l.content_hash, l.event_hash,
       l.traceparent, l.tracestate, l.request_id, l.inserted_at
FROM (SELECT unnest(@run_keys::uuid[]) AS run_key, unnest(@before_seqs::bigint[]) AS before_seq) u
CROSS JOIN LATERAL (
    SELECT e.* FROM run_log e
    WHERE e.run_key = u.run_key AND e.seq < u.before_seq AND e.event_type = ANY(@event_types::text[])
    ORDER BY e.seq DESC
    LIMIT @max_events::integer
) l
ORDER BY l.run_key, l.seq DESC;

-- name: RunLogListRunsOfThread :many
-- The newest runs of a thread that have one owner, from one of them on.
SELECT run_key, run_id FROM runs
WHERE thread_id = @thread_id AND owner = @owner AND run_key <= @from_key
ORDER BY run_key DESC
LIMIT @max_runs;

-- name: RunLogSearch :many
-- Of the newest events of a run before a seq, so many of them, those of some types
-- whose payload holds every word: newest first, and so many at the most. The
-- oldest event that was looked at is always among them unless there were more
-- hits: it says how far the search came. It reads no further back than that. Of
-- a very large payload there is what is around the first word.
WITH recent AS MATERIALIZED (
    SELECT seq, event_type, event_version, payload, inserted_at
    FROM run_log
    WHERE run_key = @run_key AND seq < @before_seq AND seq >= @from_seq
    ORDER BY seq DESC
    LIMIT @max_events::integer
), told AS (
    SELECT r.*, r.event_type = ANY(@event_types::text[]) AND NOT EXISTS (
               SELECT FROM unnest(@words::text[]) AS w(word) WHERE strpos(lower(r.payload::text), lower(w.word)) = 0
           ) AS hit
    FROM recent r
)
SELECT seq, event_type, event_version, inserted_at, hit::boolean AS hit,
       (SELECT count(*) FROM recent)::integer AS looked_at, (octet_length(payload::text) <= 1048576)::boolean AS whole,
       (CASE WHEN NOT hit THEN ''
             WHEN octet_length(payload::text) <= 1048576 THEN payload::text
             ELSE substr(payload::text, greatest(1, strpos(lower(payload::text), lower((@words::text[])[1])) - 300), 900)
        END)::text AS payload
FROM told
WHERE hit OR seq = (SELECT min(seq) FROM recent)
ORDER BY seq DESC
LIMIT @max_hits;

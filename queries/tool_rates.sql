-- name: ToolRateTake :one
-- Lets a call through to a provider unless so many were in the last minute; the
-- same call again within the minute is the same. The row's lock makes one after the
-- other of those who ask at once, in whatever process. It says how many were let
-- through, and in how many milliseconds there is room for one more.
INSERT INTO tool_rates AS r (owner, provider, per_minute, call_ids, taken_at)
VALUES (@owner, @provider, @per_minute, ARRAY[@call_id::text], ARRAY[clock_timestamp()])
ON CONFLICT (owner, provider) DO UPDATE SET per_minute = excluded.per_minute, (call_ids, taken_at) = (
    SELECT coalesce(array_agg(k.call_id ORDER BY k.at), '{}'), coalesce(array_agg(k.at ORDER BY k.at), '{}')
    FROM (
        SELECT r.call_ids[i] AS call_id, r.taken_at[i] AS at FROM generate_subscripts(r.call_ids, 1) AS i
        WHERE r.taken_at[i] > clock_timestamp() - interval '1 minute'
        UNION ALL
        SELECT excluded.call_ids[1], clock_timestamp()
        WHERE (SELECT count(*) FROM generate_subscripts(r.call_ids, 1) AS i
               WHERE r.taken_at[i] > clock_timestamp() - interval '1 minute') < excluded.per_minute
          AND NOT EXISTS (SELECT FROM generate_subscripts(r.call_ids, 1) AS i
                          WHERE r.taken_at[i] > clock_timestamp() - interval '1 minute' AND r.call_ids[i] = excluded.call_ids[1])
    ) k)
RETURNING (@call_id::text = ANY (r.call_ids))::boolean AS taken, cardinality(r.call_ids)::integer AS used,
    greatest(1, ceil(extract(epoch FROM r.taken_at[greatest(1, cardinality(r.taken_at) - r.per_minute + 1)]
                             + interval '1 minute' - clock_timestamp()) * 1000))::bigint AS room_in_ms;

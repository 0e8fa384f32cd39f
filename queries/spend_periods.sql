-- name: SpendPeriodPut :exec
-- Sets the cap of a period of an authorization that this transaction has locked.
-- A cap that is new begins with what is held and what was captured in the period;
-- one that is lower than that lets nothing more be held in it.
INSERT INTO spend_periods AS p (authorization_id, period, max_sats, period_start, captured_sats, held_sats, overage_sats)
SELECT @authorization_id, @period, @max_sats, n.period_start, c.captured, h.held,
       greatest(0, c.captured + h.held - @max_sats)
FROM (SELECT date_trunc(@period, clock_timestamp(), 'UTC') AS period_start) n
CROSS JOIN LATERAL (
    SELECT coalesce(sum(e.amount_sats), 0)::bigint AS captured
    FROM spend_ledger_entries e
    WHERE e.authorization_id IN (SELECT b.authorization_id FROM spend_authorizations b WHERE b.path @> ARRAY[@authorization_id::text])
      AND e.kind IN ('capture', 'overage') AND e.inserted_at >= n.period_start) c
CROSS JOIN LATERAL (
    SELECT a.reserved_sats AS held FROM spend_authorizations a WHERE a.authorization_id = @authorization_id) h
ON CONFLICT (authorization_id, period) DO UPDATE
SET max_sats = excluded.max_sats,
    overage_sats = greatest(p.overage_sats, p.captured_sats + p.held_sats - excluded.max_sats);

-- name: SpendPeriodDelete :exec
DELETE FROM spend_periods WHERE authorization_id = @authorization_id AND period = @period;

-- name: SpendPeriodListMany :many
-- The caps of some authorizations, as they stand now.
SELECT p.authorization_id, p.period, p.max_sats, greatest(p.period_start, n.now_start)::timestamptz AS period_start,
       (CASE WHEN p.period_start < n.now_start THEN 0 ELSE p.captured_sats END)::bigint AS captured_sats, p.held_sats
FROM spend_periods p
CROSS JOIN LATERAL (SELECT date_trunc(p.period, clock_timestamp(), 'UTC') AS now_start) n
WHERE p.authorization_id = ANY(@authorization_ids::text[])
ORDER BY p.authorization_id, p.period;

-- name: SpendPeriodMoveMany :exec
-- What SpendAuthorizationMoveMany does, to the periods of the same levels; its
-- locks guard them. Fails with OA001 when something is held and one has no room.
WITH n AS MATERIALIZED (
    SELECT clock_timestamp() AS at
), moved AS (
    UPDATE spend_periods p
    SET period_start = greatest(p.period_start, date_trunc(p.period, n.at, 'UTC')),
        captured_sats = CASE WHEN p.period_start < date_trunc(p.period, n.at, 'UTC') THEN 0 ELSE p.captured_sats END + u.captured_sats,
        overage_sats = CASE WHEN p.period_start < date_trunc(p.period, n.at, 'UTC') THEN greatest(0, p.held_sats - p.max_sats) ELSE p.overage_sats END + u.overage_sats,
        held_sats = p.held_sats + u.held_sats
    FROM (SELECT unnest(@authorization_ids::text[]) AS authorization_id,
                 unnest(@captured_sats::bigint[]) AS captured_sats,
                 unnest(@held_sats::bigint[]) AS held_sats,
                 unnest(@overage_sats::bigint[]) AS overage_sats,
                 unnest(@holding::boolean[]) AS holding) u
    CROSS JOIN n
    WHERE p.authorization_id = u.authorization_id
    RETURNING u.holding AND p.captured_sats + p.held_sats > p.max_sats AS over
)
SELECT spend_expect('OA001', count(*) FILTER (WHERE over), 0) FROM moved;

-- name: SpendPeriodReverse :exec
-- Takes a capture back from the periods of some levels that it was made in.
UPDATE spend_periods p
SET captured_sats = greatest(0, p.captured_sats - @amount_sats),
    overage_sats = least(p.overage_sats, greatest(0, p.captured_sats - @amount_sats))
WHERE p.authorization_id = ANY(@authorization_ids::text[]) AND p.period_start <= @committed_at;

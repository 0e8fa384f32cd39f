-- name: DsPolicyEvaluationInsert :exec
-- An evaluation is stored once, for the hash is of the document, and with each run
-- that it was made for. One that was there before counts from now: a pass of
-- DsPolicyEvaluationPrune at the same time leaves it.
WITH kept AS (
    INSERT INTO ds_policy_evaluations AS e (evaluation_hash, document, decision, reason_code)
    VALUES (@evaluation_hash, @document, @decision, @reason_code)
    ON CONFLICT (evaluation_hash) DO UPDATE SET inserted_at = clock_timestamp()
)
INSERT INTO ds_policy_evaluation_runs (run_key, evaluation_hash) VALUES (@run_key, @evaluation_hash)
ON CONFLICT DO NOTHING;

-- name: DsPolicyEvaluationGet :one
SELECT * FROM ds_policy_evaluations WHERE evaluation_hash = @evaluation_hash;

-- name: DsPolicyEvaluationLockPrune :one
-- One pass prunes at a time: of two, each could leave an evaluation to the other.
SELECT pg_try_advisory_xact_lock(hashtext('ds_policy_evaluations prune')) AS locked;

-- name: DsPolicyEvaluationPrune :one
-- Lets go of what was evaluated for runs, so many at the most, that began before a
-- key, ended so long ago, and of whose logs nothing is kept: their refusals, and
-- the evaluations that no other run refers to. It says of how many runs, and how
-- many evaluations went.
WITH old AS MATERIALIZED (
    SELECT DISTINCT w.run_key FROM ds_policy_evaluation_runs w WHERE w.run_key < @until_key::uuid
), aged AS MATERIALIZED (
    SELECT o.run_key FROM old o JOIN runs r ON r.run_key = o.run_key JOIN run_heads h ON h.run_key = o.run_key
    WHERE r.finished_at < clock_timestamp() - @age::interval AND h.oldest_seq > h.latest_seq
    LIMIT @max_runs
), refusals AS (
    DELETE FROM tool_refusals f USING aged a WHERE f.run_key = a.run_key
), uses AS (
    DELETE FROM ds_policy_evaluation_runs u USING aged a WHERE u.run_key = a.run_key RETURNING u.evaluation_hash
), gone AS (
    DELETE FROM ds_policy_evaluations e
    USING (SELECT DISTINCT evaluation_hash FROM uses) u
    WHERE e.evaluation_hash = u.evaluation_hash AND e.inserted_at < clock_timestamp() - @age::interval
      AND NOT EXISTS (SELECT FROM ds_policy_evaluation_runs o
                      WHERE o.evaluation_hash = e.evaluation_hash AND o.run_key NOT IN (SELECT a.run_key FROM aged a))
    RETURNING 1
)
SELECT (SELECT count(*) FROM aged) AS runs, (SELECT count(*) FROM gone) AS evaluations;

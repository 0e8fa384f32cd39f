-- name: DsPolicyEvaluationInsert :exec
-- An evaluation is stored once: the hash is of the document.
INSERT INTO ds_policy_evaluations (evaluation_hash, document, decision, reason_code)
VALUES (@evaluation_hash, @document, @decision, @reason_code)
ON CONFLICT (evaluation_hash) DO NOTHING;

-- name: DsPolicyEvaluationGet :one
SELECT * FROM ds_policy_evaluations WHERE evaluation_hash = @evaluation_hash;

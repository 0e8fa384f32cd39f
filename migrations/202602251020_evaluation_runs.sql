-- +goose Up

-- Which runs' logs refer to an evaluation: it is kept while one of them is.
CREATE TABLE ds_policy_evaluation_runs (
    run_key         uuid NOT NULL,
    evaluation_hash text NOT NULL,
    PRIMARY KEY (run_key, evaluation_hash)
);
CREATE INDEX ds_policy_evaluation_runs_by_hash ON ds_policy_evaluation_runs (evaluation_hash);

INSERT INTO ds_policy_evaluation_runs (run_key, evaluation_hash)
SELECT DISTINCT l.run_key, e.evaluation_hash
FROM run_log l
JOIN ds_policy_evaluations e ON e.evaluation_hash = substring(l.payload::text FROM '"evaluation_hash":"(sha256:[0-9a-f]{64})"')
WHERE l.event_type = 'policy.decision';

-- +goose Down
DROP TABLE ds_policy_evaluation_runs;

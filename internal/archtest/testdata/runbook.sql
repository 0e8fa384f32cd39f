-- Active pointer and rollout configuration
SELECT signature_id, canary_percent, rollout_seed, updated_at
FROM runtime.ds_artifact_pointers
ORDER BY signature_id;

-- Recent pointer mutations
SELECT id, signature_id, action, actor, reason, inserted_at
FROM runtime.ds_pointer_audits
ORDER BY id DESC
LIMIT 50;

-- Recent compile reports
SELECT report_id, signature_id, status, job_hash, dataset_hash, inserted_at
FROM runtime.ds_compile_reports
ORDER BY inserted_at DESC
LIMIT 50;

-- Recent spend authorizations and budget posture
SELECT authorization_id, mode, run_id, thread_id, autopilot_id,
       max_total_sats, spent_sats, reserved_sats, expires_at, revoked_at
FROM runtime.spend_authorizations
ORDER BY inserted_at DESC
LIMIT 50;

-- Reconcile-required reservations that block retries
SELECT authorization_id, run_id, tool_call_id, amount_sats, retry_class, state, failure_reason, reserved_at
FROM runtime.spend_reservations
WHERE state = 'reconcile_required'
ORDER BY reserved_at ASC;

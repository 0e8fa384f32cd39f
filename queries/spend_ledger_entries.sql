-- name: SpendLedgerEntryInsertMany :exec
-- Books movements.
INSERT INTO spend_ledger_entries (authorization_id, entry_id, run_key, tool_call_id, kind, debit, credit, amount_sats, actor, evidence)
SELECT unnest(@authorization_ids::text[]), unnest(@entry_ids::uuid[]), unnest(@run_keys::uuid[]), unnest(@tool_call_ids::text[]),
       unnest(@kinds::text[]), unnest(@debits::text[]), unnest(@credits::text[]), unnest(@amounts_sats::bigint[]),
       unnest(@actors::text[]), nullif(unnest(@evidences::text[]), '')::json;

-- name: SpendLedgerEntryInsertTerms :exec
-- Books a change of an authorization's cap.
INSERT INTO spend_ledger_entries (authorization_id, entry_id, kind, debit, credit, amount_sats, actor)
VALUES (@authorization_id, @entry_id, @kind, @debit, @credit, @amount_sats, @actor);

-- name: SpendLedgerEntryBalance :one
-- What an authorization had before a moment: available, reserved, spent.
SELECT coalesce(sum(CASE 'available' WHEN e.credit THEN e.amount_sats WHEN e.debit THEN -e.amount_sats ELSE 0 END), 0)::bigint AS available_sats,
       coalesce(sum(CASE 'reserved' WHEN e.credit THEN e.amount_sats WHEN e.debit THEN -e.amount_sats ELSE 0 END), 0)::bigint AS reserved_sats,
       coalesce(sum(CASE 'spent' WHEN e.credit THEN e.amount_sats WHEN e.debit THEN -e.amount_sats ELSE 0 END), 0)::bigint AS spent_sats
FROM spend_ledger_entries e
WHERE e.authorization_id IN (SELECT b.authorization_id FROM spend_authorizations b WHERE b.path @> ARRAY[@authorization_id::text])
  AND (e.authorization_id = @authorization_id OR e.kind NOT IN ('issue', 'raise', 'lower'))
  AND (e.inserted_at < @before_at
       OR (e.inserted_at = @before_at AND (e.authorization_id, e.entry_id) <= (@before_authorization_id::text, @before_entry_id::uuid)));

-- name: SpendLedgerEntryListBetween :many
-- A page of the movements of an authorization and of what is below it, the oldest
-- first.
SELECT * FROM spend_ledger_entries e
WHERE e.authorization_id IN (SELECT b.authorization_id FROM spend_authorizations b WHERE b.path @> ARRAY[@authorization_id::text])
  AND (e.authorization_id = @authorization_id OR e.kind NOT IN ('issue', 'raise', 'lower'))
  AND (e.inserted_at, e.authorization_id, e.entry_id) > (@after_at::timestamptz, @after_authorization_id::text, @after_entry_id::uuid)
  AND e.inserted_at < @until_at
ORDER BY e.inserted_at, e.authorization_id, e.entry_id
LIMIT @max_entries;

-- name: SpendLedgerEntrySums :many
-- What moved in an authorization and below it over a time, by kind.
SELECT e.kind, e.debit, e.credit, count(*) AS movements, sum(e.amount_sats)::bigint AS amount_sats
FROM spend_ledger_entries e
WHERE e.authorization_id IN (SELECT b.authorization_id FROM spend_authorizations b WHERE b.path @> ARRAY[@authorization_id::text])
  AND (e.authorization_id = @authorization_id OR e.kind NOT IN ('issue', 'raise', 'lower'))
  AND e.inserted_at >= @from_at::timestamptz AND e.inserted_at < @until_at::timestamptz
GROUP BY e.kind, e.debit, e.credit;

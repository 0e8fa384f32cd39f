-- name: SpendAuthorizationEventInsert :exec
INSERT INTO spend_authorization_events (authorization_id, revision, event_id, kind, actor, reason, before, after)
VALUES (@authorization_id, @revision, @event_id, @kind, @actor, sqlc.narg('reason'), sqlc.narg('before'), @after);

-- name: SpendAuthorizationEventList :many
-- What was done to an authorization, the first first.
SELECT * FROM spend_authorization_events WHERE authorization_id = @authorization_id ORDER BY revision;

-- name: SpendAuthorizationEventGet :one
-- The change that was made under a key.
SELECT * FROM spend_authorization_events WHERE event_id = @event_id;

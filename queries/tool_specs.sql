-- name: ToolSpecLock :exec
-- Orders the writers of one id until the end of their transactions.
SELECT pg_advisory_xact_lock(hashtextextended('tool_specs ' || @tool_id::text, 0));

-- name: ToolSpecPut :one
-- Stores a version for the one owner of its id: whoever stored any version of it
-- first. A version that is published or deprecated keeps its content; states only
-- move forwards. No row means that one of these forbids it. Call it under
-- ToolSpecLock, or two owners may begin two versions of an id at once.
WITH sent AS (
    SELECT @tool_id::text AS tool_id, @version::integer AS version, sqlc.narg('state')::text AS state, @owner::text AS owner,
           @spec::json AS spec, @content_hash::text AS content_hash
)
INSERT INTO tool_specs AS s (tool_id, version, state, owner, spec, content_hash)
SELECT sent.tool_id, sent.version, coalesce(sent.state, 'validated'), sent.owner, sent.spec, sent.content_hash
FROM sent
WHERE NOT EXISTS (SELECT 1 FROM tool_specs o WHERE o.tool_id = sent.tool_id AND o.owner <> sent.owner)
ON CONFLICT (tool_id, version) DO UPDATE
SET state = coalesce((SELECT state FROM sent), s.state), spec = excluded.spec, content_hash = excluded.content_hash,
    updated_at = CASE WHEN s.content_hash = excluded.content_hash AND s.state = coalesce((SELECT state FROM sent), s.state)
                      THEN s.updated_at ELSE clock_timestamp() END
WHERE s.owner = excluded.owner
  AND (s.content_hash = excluded.content_hash OR s.state IN ('draft', 'validated'))
  AND array_position(ARRAY['draft', 'validated', 'published', 'deprecated'], coalesce((SELECT state FROM sent), s.state))
      >= array_position(ARRAY['draft', 'validated', 'published', 'deprecated'], s.state)
RETURNING s.*;

-- name: ToolSpecGet :one
SELECT * FROM tool_specs WHERE tool_id = @tool_id AND version = @version;

-- name: ToolSpecOwner :one
-- Whose an id is.
SELECT owner FROM tool_specs WHERE tool_id = @tool_id LIMIT 1;

-- name: ToolSpecPage :many
-- By id and version, byte by byte, after the last one of the page before. Drafts
-- are for their owner and for those who see everything.
SELECT * FROM tool_specs
WHERE (state <> 'draft' OR owner = @owner OR @everything::boolean)
  AND (sqlc.narg('tool_id')::text IS NULL OR tool_id = sqlc.narg('tool_id')::text)
  AND tool_id <> ALL (@not_these::text[])
  AND (tool_id COLLATE "C", version) > (@after_id::text, @after_version::integer)
ORDER BY tool_id COLLATE "C", version
LIMIT @max_specs;

-- name: ToolSpecHold :one
-- A version that a release may name, kept as it is until the transaction ends.
SELECT * FROM tool_specs
WHERE tool_id = @tool_id AND version = @version AND state IN ('validated', 'published')
FOR SHARE;

-- name: ToolSpecListWithManifest :many
-- Of an owner's tools that have a manifest in some version, and perhaps of others,
-- the newest version that is neither a draft nor deprecated.
SELECT DISTINCT ON (s.tool_id) s.spec FROM tool_specs s
WHERE s.tool_id IN (SELECT m.tool_id FROM tool_specs m WHERE m.owner = @owner AND strpos(m.spec::text, '"integration_manifest"') > 0)
  AND s.state IN ('validated', 'published')
ORDER BY s.tool_id, s.version DESC;

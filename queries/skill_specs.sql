-- name: SkillSpecLock :exec
-- Orders the writers of one id until the end of their transactions.
SELECT pg_advisory_xact_lock(hashtextextended('skill_specs ' || @skill_id::text, 0));

-- name: SkillSpecPut :one
-- Stores a version for the one owner of its id: whoever stored any version of it
-- first. A version that is published or deprecated keeps its content; states only
-- move forwards. No row means that one of these forbids it. Call it under
-- SkillSpecLock, or two owners may begin two versions of an id at once.
-- A skill becomes published by publishing alone.
WITH sent AS (
    SELECT @skill_id::text AS skill_id, @version::integer AS version, sqlc.narg('state')::text AS state, @owner::text AS owner,
           @spec::json AS spec, @content_hash::text AS content_hash
)
INSERT INTO skill_specs AS s (skill_id, version, state, owner, spec, content_hash)
SELECT sent.skill_id, sent.version, coalesce(sent.state, 'validated'), sent.owner, sent.spec, sent.content_hash
FROM sent
WHERE NOT EXISTS (SELECT 1 FROM skill_specs o WHERE o.skill_id = sent.skill_id AND o.owner <> sent.owner)
  AND (coalesce(sent.state, 'validated') <> 'published'
       OR EXISTS (SELECT 1 FROM skill_specs o WHERE o.skill_id = sent.skill_id AND o.version = sent.version))
ON CONFLICT (skill_id, version) DO UPDATE
SET state = coalesce((SELECT state FROM sent), s.state), spec = excluded.spec, content_hash = excluded.content_hash,
    updated_at = CASE WHEN s.content_hash = excluded.content_hash AND s.state = coalesce((SELECT state FROM sent), s.state)
                      THEN s.updated_at ELSE clock_timestamp() END
WHERE s.owner = excluded.owner
  AND (s.content_hash = excluded.content_hash OR s.state IN ('draft', 'validated'))
  AND array_position(ARRAY['draft', 'validated', 'published', 'deprecated'], coalesce((SELECT state FROM sent), s.state))
      >= array_position(ARRAY['draft', 'validated', 'published', 'deprecated'], s.state)
  AND (coalesce((SELECT state FROM sent), s.state) <> 'published' OR s.state = 'published')
RETURNING s.*;

-- name: SkillSpecGet :one
SELECT * FROM skill_specs WHERE skill_id = @skill_id AND version = @version;

-- name: SkillSpecOwner :one
-- Whose an id is.
SELECT owner FROM skill_specs WHERE skill_id = @skill_id LIMIT 1;

-- name: SkillSpecPage :many
-- By id and version, byte by byte, after the last one of the page before. Drafts
-- are for their owner and for those who see everything.
SELECT * FROM skill_specs
WHERE (state <> 'draft' OR owner = @owner OR @everything::boolean)
  AND (sqlc.narg('skill_id')::text IS NULL OR skill_id = sqlc.narg('skill_id')::text)
  AND skill_id <> ALL (@not_these::text[])
  AND (skill_id COLLATE "C", version) > (@after_id::text, @after_version::integer)
ORDER BY skill_id COLLATE "C", version
LIMIT @max_specs;

-- name: SkillSpecPublished :exec
-- Marks a version that has a release.
UPDATE skill_specs SET state = 'published', updated_at = clock_timestamp()
WHERE skill_id = @skill_id AND version = @version AND state = 'validated';

-- name: SkillReleaseInsert :exec
-- Keeps the release that there is.
INSERT INTO skill_releases (release_id, skill_id, version, bundle, bundle_hash, compatibility_report, published_by)
VALUES (@release_id, @skill_id, @version, @bundle, @bundle_hash, @compatibility_report, @published_by)
ON CONFLICT ON CONSTRAINT skill_releases_once DO NOTHING;

-- name: SkillReleaseGet :one
SELECT * FROM skill_releases WHERE skill_id = @skill_id AND version = @version;

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// PublishSkill makes the release of an owner's skill, or answers the one that
// there is. One transaction holds the skill and the tools that it names as they
// are.
func (r *Registry) PublishSkill(ctx context.Context, owner, skillID string, version int32) (db.SkillRelease, error) {
	if r.skills.reserved(skillID) {
		return db.SkillRelease{}, fault.New(api.Forbidden, "the skill %s is built in and has no owner who could publish it", skillID).With("reason", "built_in")
	}
	var release db.SkillRelease
	err := pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		q := db.New(tx)
		spec, err := publishable(ctx, q, r.skills, owner, skillID, version)
		if err != nil {
			return err
		}
		release, err = q.SkillReleaseGet(ctx, db.SkillReleaseGetParams{SkillID: skillID, Version: version})
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		tools, err := r.resolve(ctx, q, spec.AllowedTools)
		if err != nil {
			return err
		}
		made, err := compile(spec, tools)
		if err != nil {
			return err
		}
		if err := q.SkillReleaseInsert(ctx, db.SkillReleaseInsertParams{
			ReleaseID: made.id, SkillID: skillID, Version: version, Bundle: made.bundle, BundleHash: made.hash,
			CompatibilityReport: made.report, PublishedBy: owner,
		}); err != nil {
			return err
		}
		if err := q.SkillSpecPublished(ctx, db.SkillSpecPublishedParams{SkillID: skillID, Version: version}); err != nil {
			return err
		}
		release, err = q.SkillReleaseGet(ctx, db.SkillReleaseGetParams{SkillID: skillID, Version: version})
		return err
	})
	if err != nil {
		return db.SkillRelease{}, fmt.Errorf("publish %s version %d: %w", skillID, version, err)
	}
	return release, nil
}

// publishable is the version that an owner may publish, locked.
func publishable(ctx context.Context, q *db.Queries, t table, owner, skillID string, version int32) (ds.SkillSpecV1, error) {
	var spec ds.SkillSpecV1
	if err := t.lock(ctx, q, skillID); err != nil {
		return spec, err
	}
	e, err := t.get(ctx, q, skillID, version)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return spec, err
	}
	mine := err == nil && e.Owner == owner
	switch {
	case err != nil || !mine && e.State == Draft:
		return spec, noSuchSkill(skillID, version)
	case !mine:
		return spec, notYours(t, skillID)
	case e.State == Draft || e.State == Deprecated:
		return spec, fault.New(api.SpecConflict, "version %d of %s is %s; only a validated version is published", version, skillID, e.State).
			With("state", e.State)
	}
	if err := json.Unmarshal(e.Spec, &spec); err != nil {
		return spec, fmt.Errorf("read a stored skill spec: %w", err)
	}
	return spec, nil
}

func noSuchSkill(skillID string, version int32) error {
	return fault.New(api.SpecNotFound, "there is no version %d of the skill %s", version, skillID)
}

// resolve finds every tool that a skill names: built in, or stored and validated
// or published, with an integration that is active.
func (r *Registry) resolve(ctx context.Context, q *db.Queries, refs []ds.SkillSpecV1ToolRef) ([]Entry, error) {
	var found []Entry
	missing := []string{}
	// In one order, so that two publishers wait for each other in one direction.
	refs = slices.SortedFunc(slices.Values(refs), func(a, b ds.SkillSpecV1ToolRef) int {
		return order(Entry{ID: a.ToolID, Version: a.Version}, Entry{ID: b.ToolID, Version: b.Version})
	})
	for _, ref := range slices.Compact(refs) {
		e, err := r.tool(ctx, q, ref)
		if errors.Is(err, pgx.ErrNoRows) {
			missing = append(missing, toolName(ref.ToolID, ref.Version))
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, e)
	}
	if len(missing) > 0 {
		return nil, fault.New(api.SpecNotFound, "the skill names tools that are not there, not validated, deprecated or of an integration that is not active: %s",
			strings.Join(missing[:min(len(missing), 10)], ", ")).With("tools", missing)
	}
	return found, nil
}

func (r *Registry) tool(ctx context.Context, q *db.Queries, ref ds.SkillSpecV1ToolRef) (Entry, error) {
	if r.tools.reserved(ref.ToolID) {
		for _, e := range r.tools.shipped {
			if e.ID == ref.ToolID && e.Version == ref.Version {
				return e, nil
			}
		}
		return Entry{}, pgx.ErrNoRows
	}
	row, err := q.ToolSpecHold(ctx, db.ToolSpecHoldParams{ToolID: ref.ToolID, Version: ref.Version})
	if err != nil {
		return Entry{}, err
	}
	e := toolEntry(row)
	var spec ds.ToolSpecV1
	if err := json.Unmarshal(e.Spec, &spec); err != nil {
		return Entry{}, fmt.Errorf("read a stored tool spec: %w", err)
	}
	if m := spec.IntegrationManifest; m != nil && m["status"] != "active" {
		return Entry{}, pgx.ErrNoRows
	}
	return e, nil
}

func toolName(id string, version int32) string { return fmt.Sprintf("%s@v%d", id, version) }

// Release answers a release of a skill. Everybody may read it.
func (r *Registry) Release(ctx context.Context, skillID string, version int32) (db.SkillRelease, error) {
	release, err := db.New(r.pool).SkillReleaseGet(ctx, db.SkillReleaseGetParams{SkillID: skillID, Version: version})
	if errors.Is(err, pgx.ErrNoRows) {
		return release, fault.New(api.SpecNotFound, "version %d of the skill %s has no release", version, skillID)
	}
	if err != nil {
		return release, fmt.Errorf("get a release: %w", err)
	}
	return release, nil
}

// releaseID names a release by what it is.
func releaseID(skillID string, version int32, bundleHash string) (string, error) {
	hash, err := canon.HashJSON(map[string]any{"skill_id": skillID, "version": version, "bundle_hash": bundleHash})
	if err != nil {
		return "", err
	}
	return "skillrel_" + strings.TrimPrefix(hash, "sha256:")[:24], nil
}

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/registry"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// BuiltInTools are the specs, version 1, of the tools that this process carries
// out itself; those of MCP servers and of clients are not built in.
func BuiltInTools(specs []tool.Spec) ([]ds.ToolSpecV1, error) {
	var all []ds.ToolSpecV1
	for _, s := range specs {
		if s.Kind != tool.Runtime {
			continue
		}
		spec := ds.ToolSpecV1{
			ToolID: s.Name, Version: 1, Name: s.Title, Description: s.Description, ToolPack: "core.v1",
			ExecutionKind: ds.ToolSpecV1ExecutionKindRuntime, SettlementBoundary: ds.ToolSpecV1SettlementBoundary(s.Boundary),
			OutputSchema: map[string]any{}, SafetyPolicy: &ds.ToolSpecV1SafetyPolicy{RequiresApproval: onlyTrue(s.NeedsApproval)},
		}
		if spec.Name == "" {
			spec.Name = s.Name
		}
		for group, pack := range map[string]string{"coding": "coding.v1", "comms": "comms.v1"} {
			if slices.Contains(s.Groups, group) {
				spec.ToolPack = pack
			}
		}
		if ms := s.Timeout.Milliseconds(); ms > 0 {
			spec.SafetyPolicy.TimeoutMs = &ms
		}
		if n := int64(s.MaxOutput); n > 0 {
			spec.SafetyPolicy.MaxOutputBytes = &n
		}
		if err := json.Unmarshal(s.Input, &spec.InputSchema); err != nil {
			return nil, fmt.Errorf("tool %s: input schema: %w", s.Name, err)
		}
		if s.Output != nil {
			if err := json.Unmarshal(s.Output, &spec.OutputSchema); err != nil {
				return nil, fmt.Errorf("tool %s: output schema: %w", s.Name, err)
			}
		}
		all = append(all, spec)
	}
	return all, nil
}

// ListToolSpecs pages through the tool specs that the caller may see.
func (s *Server) ListToolSpecs(ctx context.Context, req api.ListToolSpecsRequestObject) (api.ListToolSpecsResponseObject, error) {
	q, err := specReader(ctx, req.Params.PageToken, req.Params.ToolID, *req.Params.Limit)
	if err != nil {
		return nil, err
	}
	entries, next, err := s.Registry.ListTools(ctx, q)
	if err != nil {
		return nil, err
	}
	page := api.ToolSpecList{ToolSpecs: make([]api.StoredToolSpec, 0, len(entries)), NextPageToken: specToken(next)}
	for _, e := range entries {
		stored, err := storedTool(e)
		if err != nil {
			return nil, err
		}
		page.ToolSpecs = append(page.ToolSpecs, stored)
	}
	return api.ListToolSpecs200JSONResponse{Body: page}, nil
}

// PutToolSpec stores a version of a tool spec for the caller's user.
func (s *Server) PutToolSpec(ctx context.Context, req api.PutToolSpecRequestObject) (api.PutToolSpecResponseObject, error) {
	owner, err := specOwner(ctx)
	if err != nil {
		return nil, err
	}
	if err := holdsNoSecret("/toolSpec", req.Body.ToolSpec); err != nil {
		return nil, err
	}
	e, err := s.Registry.PutTool(ctx, owner, (*string)(req.Body.State), req.Body.ToolSpec)
	if err != nil {
		return nil, err
	}
	stored, err := storedTool(e)
	if err != nil {
		return nil, err
	}
	slog.InfoContext(ctx, "a tool spec was stored", "tool_id", e.ID, "version", e.Version, "state", e.State, "actor", callerOf(ctx).Actor)
	return api.PutToolSpec200JSONResponse{Body: stored}, nil
}

// ListSkillSpecs pages through the skill specs that the caller may see.
func (s *Server) ListSkillSpecs(ctx context.Context, req api.ListSkillSpecsRequestObject) (api.ListSkillSpecsResponseObject, error) {
	q, err := specReader(ctx, req.Params.PageToken, req.Params.SkillID, *req.Params.Limit)
	if err != nil {
		return nil, err
	}
	entries, next, err := s.Registry.ListSkills(ctx, q)
	if err != nil {
		return nil, err
	}
	page := api.SkillSpecList{SkillSpecs: make([]api.StoredSkillSpec, 0, len(entries)), NextPageToken: specToken(next)}
	for _, e := range entries {
		stored, err := storedSkill(e)
		if err != nil {
			return nil, err
		}
		page.SkillSpecs = append(page.SkillSpecs, stored)
	}
	return api.ListSkillSpecs200JSONResponse{Body: page}, nil
}

// PutSkillSpec stores a version of a skill spec for the caller's user.
func (s *Server) PutSkillSpec(ctx context.Context, req api.PutSkillSpecRequestObject) (api.PutSkillSpecResponseObject, error) {
	owner, err := specOwner(ctx)
	if err != nil {
		return nil, err
	}
	if err := holdsNoSecret("/skillSpec", req.Body.SkillSpec); err != nil {
		return nil, err
	}
	e, err := s.Registry.PutSkill(ctx, owner, (*string)(req.Body.State), req.Body.SkillSpec)
	if err != nil {
		return nil, err
	}
	stored, err := storedSkill(e)
	if err != nil {
		return nil, err
	}
	slog.InfoContext(ctx, "a skill spec was stored", "skill_id", e.ID, "version", e.Version, "state", e.State, "actor", callerOf(ctx).Actor)
	return api.PutSkillSpec200JSONResponse{Body: stored}, nil
}

// PublishSkill releases a skill of the caller's user. Publishing twice is fine.
func (s *Server) PublishSkill(ctx context.Context, req api.PublishSkillRequestObject) (api.PublishSkillResponseObject, error) {
	owner, err := specOwner(ctx)
	if err != nil {
		return nil, err
	}
	row, err := s.Registry.PublishSkill(ctx, owner, req.SkillIDParam, req.SpecVersionParam)
	if err != nil {
		return nil, err
	}
	release, err := releaseOf(row)
	if err != nil {
		return nil, err
	}
	slog.InfoContext(ctx, "a skill was published", "skill_id", row.SkillID, "version", row.Version, "release_id", row.ReleaseID, "actor", callerOf(ctx).Actor)
	return api.PublishSkill200JSONResponse{Body: release}, nil
}

// GetSkillRelease tells a release; releases are for every caller.
func (s *Server) GetSkillRelease(ctx context.Context, req api.GetSkillReleaseRequestObject) (api.GetSkillReleaseResponseObject, error) {
	if _, err := ownerOf(ctx); err != nil {
		return nil, err
	}
	row, err := s.Registry.Release(ctx, req.SkillIDParam, req.SpecVersionParam)
	if err != nil {
		return nil, err
	}
	release, err := releaseOf(row)
	if err != nil {
		return nil, err
	}
	return api.GetSkillRelease200JSONResponse{Body: release}, nil
}

// specOwner is the user who stores and publishes. Guests come and go, and an
// operator owns nothing.
func specOwner(ctx context.Context) (string, error) {
	c := callerOf(ctx)
	if c.GuestScope != "" || c.UserID == nil {
		return "", fault.New(api.Forbidden, "specs belong to users: send %s, without %s, and sign the same as a claim", auth.UserHeader, auth.GuestHeader).
			With("reason", "user_required")
	}
	return "user:" + strconv.FormatInt(*c.UserID, 10), nil
}

func specReader(ctx context.Context, token, id *string, limit int32) (registry.Reader, error) {
	owner, err := ownerOf(ctx)
	if err != nil {
		return registry.Reader{}, err
	}
	q := registry.Reader{Owner: string(owner), Everything: owner == run.Everybody, ID: deref(id), Limit: int(limit)}
	if token == nil {
		return q, nil
	}
	after, version, ok := strings.Cut(*token, "@")
	n, err := strconv.ParseInt(version, 10, 32)
	if !ok || err != nil || after == "" || n < 1 {
		return q, refuseParameter("query", "pageToken", "must be the nextPageToken of the page before, as it was told")
	}
	q.After = registry.Place{ID: after, Version: int32(n)}
	return q, nil
}

func specToken(next *registry.Place) *string {
	if next == nil {
		return nil
	}
	return some(next.ID + "@" + strconv.Itoa(int(next.Version)))
}

// holdsNoSecret refuses a spec with a secret in it: others read it, and its digest
// is of the whole, so it cannot be stored redacted.
func holdsNoSecret(pointer string, spec any) error {
	raw, err := json.Marshal(spec)
	if err != nil {
		return fmt.Errorf("read a spec: %w", err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("read a spec: %w", err)
	}
	if at, found := secretIn(v, pointer); found {
		return fault.New(api.InvalidRequest, "body %s: holds what looks like a secret; name it by reference", at).With("pointer", at)
	}
	return nil
}

// secretIn is where a text is that redaction would change. Names are not looked
// at: a schema may speak of a password.
func secretIn(v any, at string) (string, bool) {
	switch v := v.(type) {
	case string:
		return at, redact.Text(v) != v
	case []any:
		for i, item := range v {
			if where, found := secretIn(item, at+"/"+strconv.Itoa(i)); found {
				return where, true
			}
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if redact.Text(name) != name {
				return at, true
			}
			if where, found := secretIn(v[name], at+"/"+escape(name)); found {
				return where, true
			}
		}
	}
	return "", false
}

func storedTool(e registry.Entry) (api.StoredToolSpec, error) {
	stored := api.StoredToolSpec{State: api.SpecState(e.State), Owner: e.Owner, ContentHash: e.ContentHash, SubmittedAt: e.StoredAt}
	return stored, readSpec(e, &stored.Spec)
}

func storedSkill(e registry.Entry) (api.StoredSkillSpec, error) {
	stored := api.StoredSkillSpec{State: api.SpecState(e.State), Owner: e.Owner, ContentHash: e.ContentHash, SubmittedAt: e.StoredAt}
	return stored, readSpec(e, &stored.Spec)
}

func readSpec(e registry.Entry, to any) error {
	if err := json.Unmarshal(e.Spec, to); err != nil {
		return fmt.Errorf("read the spec %s version %d: %w", e.ID, e.Version, err)
	}
	return nil
}

func releaseOf(row db.SkillRelease) (api.SkillRelease, error) {
	r := api.SkillRelease{
		ReleaseID: row.ReleaseID, SkillID: row.SkillID, Version: row.Version, BundleHash: row.BundleHash,
		PublishedAt: row.PublishedAt.UTC(), PublishedBy: row.PublishedBy,
	}
	return r, errors.Join(json.Unmarshal(row.Bundle, &r.Bundle), json.Unmarshal(row.CompatibilityReport, &r.CompatibilityReport))
}

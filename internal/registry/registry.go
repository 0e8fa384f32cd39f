// Package registry keeps specs of tools and skills, and the immutable releases of skills.
package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// The states of a version. They only move forwards, in this order.
const (
	Draft      = string(api.SpecStateDraft)
	Validated  = string(api.SpecStateValidated)
	Published  = string(api.SpecStatePublished)
	Deprecated = string(api.SpecStateDeprecated)
)

// BuiltIn is the owner of what comes with the process.
const BuiltIn = "built_in"

// Entry is one version of a spec.
type Entry struct {
	ID      string
	Version int32
	State   string
	Owner   string // user:<id>, or BuiltIn
	// Spec is canonical JSON, and ContentHash its digest.
	Spec        json.RawMessage
	ContentHash string
	// StoredAt is when it got this content and state; nil of what is built in.
	StoredAt *time.Time
}

// Registry answers from the database and from what is built in.
type Registry struct {
	pool          *pgxpool.Pool
	manifests     *manifests
	tools, skills table
}

// New makes a registry whose built-in tools are the given ones; the built-in
// skills come with it.
func New(pool *pgxpool.Pool, tools []ds.ToolSpecV1) (*Registry, error) {
	m, err := compileManifests()
	if err != nil {
		return nil, err
	}
	r := &Registry{pool: pool, manifests: m, tools: toolTable(), skills: skillTable()}
	for _, spec := range tools {
		if err := r.tools.ship(spec.ToolID, spec.Version, spec); err != nil {
			return nil, err
		}
	}
	skills, err := builtInSkills()
	if err != nil {
		return nil, err
	}
	for _, spec := range skills {
		if err := r.skills.ship(spec.SkillID, spec.Version, spec); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// PutTool stores a version of a tool spec for an owner, user:<id>. A nil state
// keeps the state that there is; a new version is Validated.
func (r *Registry) PutTool(ctx context.Context, owner string, state *string, spec ds.ToolSpecV1) (Entry, error) {
	spec, err := r.checkTool(spec)
	if err != nil {
		return Entry{}, err
	}
	return r.put(ctx, r.tools, owner, state, spec.ToolID, spec.Version, spec)
}

// PutSkill is PutTool for a skill. A skill is published by PublishSkill alone.
func (r *Registry) PutSkill(ctx context.Context, owner string, state *string, spec ds.SkillSpecV1) (Entry, error) {
	if err := checkFiles(spec); err != nil {
		return Entry{}, err
	}
	return r.put(ctx, r.skills, owner, state, spec.SkillID, spec.Version, spec)
}

func (r *Registry) put(ctx context.Context, t table, owner string, state *string, id string, version int32, spec any) (Entry, error) {
	if t.reserved(id) {
		return Entry{}, fault.New(api.Forbidden, "the id %s is of what is built in; choose another", id).With("reason", "built_in")
	}
	raw, err := canon.Marshal(spec)
	if err != nil {
		return Entry{}, fmt.Errorf("store a %s spec: %w", t.kind, err)
	}
	sent := Entry{ID: id, Version: version, Owner: owner, Spec: raw, ContentHash: canon.Hash(raw)}
	var stored Entry
	err = pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		q := db.New(tx)
		if err := t.lock(ctx, q, id); err != nil {
			return err
		}
		stored, err = t.put(ctx, q, sent, state)
		if errors.Is(err, pgx.ErrNoRows) {
			return refused(ctx, q, t, sent)
		}
		return err
	})
	if err != nil {
		return Entry{}, fmt.Errorf("store a %s spec: %w", t.kind, err)
	}
	return stored, nil
}

// refused says why the statement stored nothing, under the lock of the id.
func refused(ctx context.Context, q *db.Queries, t table, sent Entry) error {
	owner, err := t.owner(ctx, q, sent.ID)
	if err == nil && owner != sent.Owner {
		return notYours(t, sent.ID)
	}
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	there, err := t.get(ctx, q, sent.ID, sent.Version)
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.New(api.SpecConflict, "a new version of a %s cannot be stored as published; store it as validated and publish it", t.kind)
	}
	if err != nil {
		return err
	}
	why := "a state only moves from draft to validated, published and deprecated"
	switch frozen := there.State == Published || there.State == Deprecated; {
	case frozen && there.ContentHash != sent.ContentHash:
		why = "it keeps its content; store the next version"
	case t.publishes:
		why += ", and publishing is what makes it published"
	}
	return fault.New(api.SpecConflict, "version %d of %s is %s: %s", sent.Version, sent.ID, there.State, why).
		With("state", there.State).With("contentHash", there.ContentHash)
}

func notYours(t table, id string) error {
	return fault.New(api.Forbidden, "the %s %s belongs to somebody else; choose another id", t.kind, id).With("reason", "not_the_owner")
}

// Place is where a version stands in a list: by id, byte by byte, then version.
type Place struct {
	ID      string
	Version int32
}

// Reader says what a reader sees and wants.
type Reader struct {
	Owner      string // whose drafts are shown
	Everything bool   // everybody's drafts are shown
	ID         string // only versions of this; "" for all
	After      Place  // the last of the page before
	Limit      int
}

// ListTools answers a page of tool specs, and where the next begins after.
func (r *Registry) ListTools(ctx context.Context, q Reader) ([]Entry, *Place, error) {
	return r.list(ctx, r.tools, q)
}

// ListSkills answers a page of skill specs, and where the next begins after.
func (r *Registry) ListSkills(ctx context.Context, q Reader) ([]Entry, *Place, error) {
	return r.list(ctx, r.skills, q)
}

func (r *Registry) list(ctx context.Context, t table, q Reader) ([]Entry, *Place, error) {
	stored, err := t.list(ctx, db.New(r.pool), q, t.shippedIDs())
	if err != nil {
		return nil, nil, fmt.Errorf("list %s specs: %w", t.kind, err)
	}
	page := merge(stored, t.shippedFor(q))
	if len(page) <= q.Limit {
		return page, nil, nil
	}
	page = page[:q.Limit]
	last := page[q.Limit-1]
	return page, &Place{last.ID, last.Version}, nil
}

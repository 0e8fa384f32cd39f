package registry

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// table is one kind of spec: its statements, and what is built in.
type table struct {
	kind      string
	publishes bool // a version becomes published by publishing alone
	// packs begin the ids of tools that come with some process, though perhaps
	// not with this one.
	packs   []string
	shipped []Entry // in order

	lock  func(context.Context, *db.Queries, string) error
	put   func(context.Context, *db.Queries, Entry, *string) (Entry, error)
	get   func(context.Context, *db.Queries, string, int32) (Entry, error)
	owner func(context.Context, *db.Queries, string) (string, error)
	list  func(ctx context.Context, q *db.Queries, r Reader, notThese []string) ([]Entry, error)
}

func toolTable() table {
	return table{
		kind: "tool", packs: []string{"http.", "github.", "email.", "timeline."},
		lock: func(ctx context.Context, q *db.Queries, id string) error { return q.ToolSpecLock(ctx, id) },
		put: func(ctx context.Context, q *db.Queries, e Entry, state *string) (Entry, error) {
			row, err := q.ToolSpecPut(ctx, db.ToolSpecPutParams{
				ToolID: e.ID, Version: e.Version, State: state, Owner: e.Owner, Spec: e.Spec, ContentHash: e.ContentHash,
			})
			return toolEntry(row), err
		},
		get: func(ctx context.Context, q *db.Queries, id string, version int32) (Entry, error) {
			row, err := q.ToolSpecGet(ctx, db.ToolSpecGetParams{ToolID: id, Version: version})
			return toolEntry(row), err
		},
		owner: func(ctx context.Context, q *db.Queries, id string) (string, error) { return q.ToolSpecOwner(ctx, id) },
		list: func(ctx context.Context, q *db.Queries, r Reader, notThese []string) ([]Entry, error) {
			rows, err := q.ToolSpecPage(ctx, db.ToolSpecPageParams{
				Owner: r.Owner, Everything: r.Everything, ToolID: nonEmpty(r.ID), NotThese: notThese,
				AfterID: r.After.ID, AfterVersion: r.After.Version, MaxSpecs: int32(r.Limit) + 1,
			})
			return each(rows, toolEntry), err
		},
	}
}

func skillTable() table {
	return table{
		kind: "skill", publishes: true,
		lock: func(ctx context.Context, q *db.Queries, id string) error { return q.SkillSpecLock(ctx, id) },
		put: func(ctx context.Context, q *db.Queries, e Entry, state *string) (Entry, error) {
			row, err := q.SkillSpecPut(ctx, db.SkillSpecPutParams{
				SkillID: e.ID, Version: e.Version, State: state, Owner: e.Owner, Spec: e.Spec, ContentHash: e.ContentHash,
			})
			return skillEntry(row), err
		},
		get: func(ctx context.Context, q *db.Queries, id string, version int32) (Entry, error) {
			row, err := q.SkillSpecGet(ctx, db.SkillSpecGetParams{SkillID: id, Version: version})
			return skillEntry(row), err
		},
		owner: func(ctx context.Context, q *db.Queries, id string) (string, error) { return q.SkillSpecOwner(ctx, id) },
		list: func(ctx context.Context, q *db.Queries, r Reader, notThese []string) ([]Entry, error) {
			rows, err := q.SkillSpecPage(ctx, db.SkillSpecPageParams{
				Owner: r.Owner, Everything: r.Everything, SkillID: nonEmpty(r.ID), NotThese: notThese,
				AfterID: r.After.ID, AfterVersion: r.After.Version, MaxSpecs: int32(r.Limit) + 1,
			})
			return each(rows, skillEntry), err
		},
	}
}

func toolEntry(r db.ToolSpec) Entry {
	at := r.UpdatedAt.UTC()
	return Entry{ID: r.ToolID, Version: r.Version, State: r.State, Owner: r.Owner, Spec: r.Spec, ContentHash: r.ContentHash, StoredAt: &at}
}

func skillEntry(r db.SkillSpec) Entry {
	at := r.UpdatedAt.UTC()
	return Entry{ID: r.SkillID, Version: r.Version, State: r.State, Owner: r.Owner, Spec: r.Spec, ContentHash: r.ContentHash, StoredAt: &at}
}

func each[T any](rows []T, f func(T) Entry) []Entry {
	out := make([]Entry, 0, len(rows))
	for _, row := range rows {
		out = append(out, f(row))
	}
	return out
}

func nonEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// ship adds a built-in version.
func (t *table) ship(id string, version int32, spec any) error {
	raw, err := canon.Marshal(spec)
	if err != nil {
		return fmt.Errorf("built-in %s %s: %w", t.kind, id, err)
	}
	t.shipped = append(t.shipped, Entry{ID: id, Version: version, State: Published, Owner: BuiltIn, Spec: raw, ContentHash: canon.Hash(raw)})
	slices.SortFunc(t.shipped, order)
	return nil
}

// reserved says whether an id may not be stored, in any version.
func (t table) reserved(id string) bool {
	return slices.ContainsFunc(t.packs, func(p string) bool { return strings.HasPrefix(id, p) }) ||
		slices.ContainsFunc(t.shipped, func(e Entry) bool { return e.ID == id })
}

func (t table) shippedIDs() []string {
	ids := make([]string, 0, len(t.shipped))
	for _, e := range t.shipped {
		ids = append(ids, e.ID)
	}
	return ids
}

// shippedFor are the built-in versions that a reader asks for.
func (t table) shippedFor(q Reader) []Entry {
	var found []Entry
	for _, e := range t.shipped {
		if (q.ID == "" || e.ID == q.ID) && order(e, Entry{ID: q.After.ID, Version: q.After.Version}) > 0 {
			found = append(found, e)
		}
	}
	return found
}

func order(a, b Entry) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Version, b.Version)) }

func merge(a, b []Entry) []Entry {
	all := slices.Concat(a, b)
	slices.SortFunc(all, order)
	return all
}

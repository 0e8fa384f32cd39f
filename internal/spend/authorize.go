package spend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// Grant is an authorization as it is issued.
type Grant struct {
	// AuthorizationID is the caller's; empty for one that is made here.
	AuthorizationID       string  `json:"authorization_id,omitempty"`
	ParentAuthorizationID string  `json:"parent_authorization_id,omitempty"`
	OwnerUserID           *int64  `json:"owner_user_id,omitempty"`
	OwnerGuestScope       *string `json:"owner_guest_scope,omitempty"`
	// ScopeKind is what it pays for; empty for the narrowest that is named.
	ScopeKind   string `json:"scope_kind,omitempty"`
	RunID       string `json:"run_id,omitempty"`
	ThreadID    string `json:"thread_id,omitempty"`
	AutopilotID string `json:"autopilot_id,omitempty"`
	Mode        string `json:"mode,omitempty"` // empty for DelegatedBudget
	Terms       Terms  `json:"terms"`
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// NewID makes the id of an authorization.
func NewID() string { return "auth_" + strings.ReplaceAll(uuid.NewString(), "-", "") }

// Create issues an authorization, or finds the one that the same grant issued:
// replay says which. It is a *TermsError when a term is wrong, ErrParent when the
// parent cannot be above it, ErrConflict when the id is another grant's.
func Create(ctx context.Context, pool *pgxpool.Pool, g Grant, actor string) (a db.SpendAuthorization, replay bool, err error) {
	hash, err := canon.HashJSON(g)
	if err != nil {
		return a, false, &TermsError{"terms", "cannot be written down: " + err.Error()}
	}
	if g.AuthorizationID == "" {
		g.AuthorizationID = NewID()
	} else if a, err = issued(ctx, pool, g.AuthorizationID, hash); !errors.Is(err, ErrNotFound) {
		return a, err == nil, err
	}
	g = g.filled()
	if err := g.check(); err != nil {
		return db.SpendAuthorization{}, false, err
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		q := db.New(tx)
		path, err := g.path(ctx, q)
		if err != nil {
			return err
		}
		a, err = insert(ctx, q, g, path, hash)
		if errors.Is(err, pgx.ErrNoRows) {
			replay = true
			return nil
		}
		if err != nil {
			return err
		}
		return issue(ctx, q, g, a, actor)
	})
	if err != nil {
		return db.SpendAuthorization{}, false, fmt.Errorf("issue an authorization: %w", err)
	}
	if !replay {
		return a, false, nil
	}
	a, err = issued(ctx, pool, g.AuthorizationID, hash)
	return a, err == nil, err
}

// issued is the authorization that a grant issued before: ErrNotFound when nothing
// has the id, ErrConflict when another grant's has. What a repeat is answered does
// not depend on what would be said to the grant today.
func issued(ctx context.Context, q db.DBTX, id, hash string) (db.SpendAuthorization, error) {
	a, err := Get(ctx, q, id)
	if err == nil && a.TermsHash != hash {
		err = fmt.Errorf("issue %s: %w", id, ErrConflict)
	}
	if err != nil {
		return db.SpendAuthorization{}, err
	}
	return a, nil
}

// filled is a grant with what it leaves out.
func (g Grant) filled() Grant {
	if g.Mode == "" {
		g.Mode = DelegatedBudget
	}
	if g.ScopeKind == "" {
		switch {
		case g.RunID != "":
			g.ScopeKind = ScopeRun
		case g.ThreadID != "":
			g.ScopeKind = ScopeThread
		case g.AutopilotID != "":
			g.ScopeKind = ScopeAutopilot
		case g.Mode == System:
			g.ScopeKind = ScopeSystem
		default:
			g.ScopeKind = ScopeOwner
		}
	}
	g.Terms = g.Terms.filled(g.Mode, time.Now())
	return g
}

func (g Grant) check() error {
	switch g.Mode {
	case Interactive, DelegatedBudget, WithThreshold, Deny, System:
	default:
		return &TermsError{"mode", "is none that there is"}
	}
	switch g.ScopeKind {
	case ScopeOrganisation, ScopeOwner, ScopeAutopilot, ScopeThread, ScopeRun, ScopeSystem:
	default:
		return &TermsError{"scope_kind", "is none that there is"}
	}
	switch {
	case g.AuthorizationID != "" && !idPattern.MatchString(g.AuthorizationID):
		return &TermsError{"authorization_id", "is not 1 to 128 letters, digits, dots, dashes, colons or underscores"}
	case g.OwnerUserID != nil && g.OwnerGuestScope != nil:
		return &TermsError{"owner_guest_scope", "is beside another owner"}
	case g.Mode != System && g.OwnerUserID == nil && text(g.OwnerGuestScope) == "":
		return &TermsError{"owner_user_id", "is missing: only the mode system can do without an owner"}
	case (g.ScopeKind == ScopeSystem) != (g.Mode == System && g.OwnerUserID == nil && g.OwnerGuestScope == nil):
		return &TermsError{"scope_kind", "is system exactly when the mode is and there is no owner"}
	case (g.RunID != "") != (g.ScopeKind == ScopeRun):
		return &TermsError{"run_id", "is for the scope run, which needs it"}
	case g.ThreadID == "" && g.ScopeKind == ScopeThread:
		return &TermsError{"thread_id", "is missing"}
	case g.AutopilotID == "" && g.ScopeKind == ScopeAutopilot:
		return &TermsError{"autopilot_id", "is missing"}
	case g.Terms.ExpiresAt != nil && !g.Terms.ExpiresAt.After(time.Now()):
		return &TermsError{"expires_at", "is over"}
	}
	return g.Terms.check(g.Mode)
}

// path is where a grant stands in its tree.
func (g Grant) path(ctx context.Context, q *db.Queries) ([]string, error) {
	if g.ParentAuthorizationID == "" {
		return []string{g.AuthorizationID}, nil
	}
	parent, err := q.SpendAuthorizationGet(ctx, g.ParentAuthorizationID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("%w: there is no %s", ErrParent, g.ParentAuthorizationID)
	case err != nil:
		return nil, err
	case len(parent.Path) >= MaxDepth:
		return nil, fmt.Errorf("%w: a tree has %d levels at the most", ErrParent, MaxDepth)
	case parent.RevokedAt != nil:
		return nil, fmt.Errorf("%w: it is revoked", ErrParent)
	case parent.ScopeKind != ScopeOrganisation && parent.ScopeKind != ScopeSystem && parent.Owner != g.owner():
		return nil, fmt.Errorf("%w: it has another owner, and is no organisation's", ErrParent)
	}
	return append(parent.Path, g.AuthorizationID), nil
}

func (g Grant) owner() string {
	switch {
	case g.OwnerGuestScope != nil:
		return "guest:" + *g.OwnerGuestScope
	case g.OwnerUserID != nil:
		return fmt.Sprintf("user:%d", *g.OwnerUserID)
	}
	return "system"
}

func insert(ctx context.Context, q *db.Queries, g Grant, path []string, hash string) (db.SpendAuthorization, error) {
	constraints, err := json.Marshal(g.Terms.Constraints)
	if err != nil {
		return db.SpendAuthorization{}, err
	}
	t := g.Terms
	return q.SpendAuthorizationInsert(ctx, db.SpendAuthorizationInsertParams{
		AuthorizationID: g.AuthorizationID, ParentAuthorizationID: optional(g.ParentAuthorizationID), Path: path,
		OwnerUserID: g.OwnerUserID, OwnerGuestScope: g.OwnerGuestScope, ScopeKind: g.ScopeKind,
		RunID: optional(g.RunID), ThreadID: optional(g.ThreadID), AutopilotID: optional(g.AutopilotID), Mode: g.Mode,
		MaxTotalSats: t.MaxTotalSats, MaxPerCallSats: t.MaxPerCallSats, MaxPerDaySats: t.MaxPerDaySats, ThresholdSats: t.ThresholdSats,
		Constraints: constraints, OnExhaustion: t.OnExhaustion, UnknownPrice: t.UnknownPrice, Metadata: t.Metadata,
		TermsHash: hash, NotBefore: t.NotBefore, ExpiresAt: t.ExpiresAt,
	})
}

// issue books what a new authorization may spend and notes who issued it.
func issue(ctx context.Context, q *db.Queries, g Grant, a db.SpendAuthorization, actor string) error {
	for period, most := range g.Terms.allPeriods() {
		if err := q.SpendPeriodPut(ctx, db.SpendPeriodPutParams{AuthorizationID: a.AuthorizationID, Period: period, MaxSats: most}); err != nil {
			return err
		}
	}
	if a.MaxTotalSats != nil {
		if err := bookTerms(ctx, q, a.AuthorizationID, "issue", "outside", "available", *a.MaxTotalSats, actor); err != nil {
			return err
		}
	}
	return note(ctx, q, a, nil, g.Terms, deed{kind: "issued", actor: actor})
}

// bookTerms books a change of a cap; nothing for 0.
func bookTerms(ctx context.Context, q *db.Queries, id, kind, debit, credit string, n int64, actor string) error {
	if n == 0 {
		return nil
	}
	return q.SpendLedgerEntryInsertTerms(ctx, db.SpendLedgerEntryInsertTermsParams{
		AuthorizationID: id, EntryID: canon.NewKey(), Kind: kind, Debit: debit, Credit: credit, AmountSats: n, Actor: actor,
	})
}

// deed is what was done to an authorization, and by whom.
type deed struct {
	kind, actor, reason string
	id                  uuid.UUID // of the event; zero for a new one
}

// note writes what was done to an authorization, with its terms before and after.
func note(ctx context.Context, q *db.Queries, a db.SpendAuthorization, before *Terms, after Terms, c deed) error {
	var old []byte
	var err error
	if before != nil {
		if old, err = json.Marshal(before); err != nil {
			return err
		}
	}
	now, err := json.Marshal(after)
	if err != nil {
		return err
	}
	if c.id == uuid.Nil {
		c.id = canon.NewKey()
	}
	return q.SpendAuthorizationEventInsert(ctx, db.SpendAuthorizationEventInsertParams{
		AuthorizationID: a.AuthorizationID, Revision: a.Revision, EventID: c.id, Kind: c.kind, Actor: c.actor,
		Reason: optional(plain(c.reason)), Before: old, After: now,
	})
}

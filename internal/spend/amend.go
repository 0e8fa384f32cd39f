package spend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Amendment is a change of an authorization's terms.
type Amendment struct {
	// Revision is the one that the terms were read at; 0 for any.
	Revision int64
	// Key makes a repeat of the amendment a replay; empty for none.
	Key           string
	Actor, Reason string
	// RaiseBySats is added to the cap in all: what a person allows on top of
	// whatever it is.
	RaiseBySats int64
	// Change makes the new terms of the old ones. It may run more than once.
	Change func(Terms) (Terms, error)
}

// Amend changes an authorization's terms, audited: replay says that this very
// amendment was made before. What is held under it is decided by the new terms
// from then on. It is ErrNotFound, ErrRevoked, ErrRevision, a *TermsError, or a
// *BelowUsedError when the cap in all would be lower than what is spent and held.
func Amend(ctx context.Context, pool *pgxpool.Pool, authorizationID string, m Amendment) (a db.SpendAuthorization, replay bool, err error) {
	key := uuid.Nil
	if m.Key != "" {
		key = uuid.NewSHA1(amendments, []byte(authorizationID+"\n"+m.Key))
	}
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		q := db.New(tx)
		if a, err = forChange(ctx, q, authorizationID); err != nil {
			return err
		}
		if key != uuid.Nil {
			_, err := q.SpendAuthorizationEventGet(ctx, key)
			if replay = err == nil; replay || !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
		}
		a, err = amend(ctx, q, a, m, key)
		return err
	})
	if err != nil {
		return db.SpendAuthorization{}, false, fmt.Errorf("amend %s: %w", authorizationID, err)
	}
	return a, replay, nil
}

// amendments is the space that the ids of keyed amendments are made in.
var amendments = uuid.MustParse("6f0d1c1e-5c0b-5c55-9d4e-2b1f0a9f7a41")

func forChange(ctx context.Context, q *db.Queries, id string) (db.SpendAuthorization, error) {
	a, err := q.SpendAuthorizationGetForChange(ctx, id)
	if errors.Is(err, pgx.ErrNoRows) {
		return a, ErrNotFound
	}
	return a, err
}

func amend(ctx context.Context, q *db.Queries, a db.SpendAuthorization, m Amendment, key uuid.UUID) (db.SpendAuthorization, error) {
	switch {
	case a.RevokedAt != nil:
		return a, ErrRevoked
	case m.Revision != 0 && m.Revision != a.Revision:
		return a, fmt.Errorf("%w: it is %d", ErrRevision, a.Revision)
	}
	before, err := TermsOf(ctx, q, a)
	if err != nil {
		return a, err
	}
	after := before
	after.MaxPer = maps.Clone(before.MaxPer)
	if m.Change != nil {
		if after, err = m.Change(after); err != nil {
			return a, err
		}
	}
	if m.RaiseBySats != 0 {
		if after.MaxTotalSats == nil {
			return a, &TermsError{"max_total_sats", "is none that could be raised"}
		}
		raised := *after.MaxTotalSats + min(max(m.RaiseBySats, -MaxSats), MaxSats)
		after.MaxTotalSats = &raised
	}
	after = after.filled(a.Mode, time.Now())
	if err := after.check(a.Mode); err != nil {
		return a, err
	}
	kind, err := rebook(ctx, q, a, after, m.Actor)
	if err != nil {
		return a, err
	}
	constraints, err := json.Marshal(after.Constraints)
	if err != nil {
		return a, err
	}
	a, err = q.SpendAuthorizationAmend(ctx, db.SpendAuthorizationAmendParams{
		AuthorizationID: a.AuthorizationID, MaxTotalSats: after.MaxTotalSats, MaxPerCallSats: after.MaxPerCallSats,
		MaxPerDaySats: after.MaxPerDaySats, ThresholdSats: after.ThresholdSats, Constraints: constraints,
		OnExhaustion: after.OnExhaustion, UnknownPrice: after.UnknownPrice, Metadata: after.Metadata,
		NotBefore: after.NotBefore, ExpiresAt: after.ExpiresAt,
	})
	if err != nil {
		return a, err
	}
	if err := putPeriods(ctx, q, a.AuthorizationID, before.allPeriods(), after.allPeriods()); err != nil {
		return a, err
	}
	return a, note(ctx, q, a, &before, after, deed{kind: kind, actor: m.Actor, reason: m.Reason, id: key})
}

// rebook books what the cap in all changes by, and says what kind of change it is.
func rebook(ctx context.Context, q *db.Queries, a db.SpendAuthorization, after Terms, actor string) (kind string, err error) {
	switch {
	case after.MaxTotalSats == nil && a.MaxTotalSats == nil:
		return "amended", nil
	case after.MaxTotalSats == nil:
		return "", &TermsError{"max_total_sats", "cannot be taken away; raise it"}
	}
	var was int64
	if a.MaxTotalSats != nil {
		was = *a.MaxTotalSats
	}
	now, used := *after.MaxTotalSats, a.SpentSats+a.ReservedSats
	switch {
	case a.MaxTotalSats != nil && now == was:
		return "amended", nil
	case (a.MaxTotalSats == nil || now < was) && now < used:
		return "", &BelowUsedError{"max_total_sats", used}
	case now < was:
		return "lowered", bookTerms(ctx, q, a.AuthorizationID, "lower", "available", "outside", was-now, actor)
	}
	return "raised", bookTerms(ctx, q, a.AuthorizationID, "raise", "outside", "available", now-was, actor)
}

func putPeriods(ctx context.Context, q *db.Queries, id string, before, after map[string]int64) error {
	for period := range before {
		if _, stays := after[period]; !stays {
			if err := q.SpendPeriodDelete(ctx, db.SpendPeriodDeleteParams{AuthorizationID: id, Period: period}); err != nil {
				return err
			}
		}
	}
	for period, most := range after {
		if was, there := before[period]; there && was == most {
			continue
		}
		if err := q.SpendPeriodPut(ctx, db.SpendPeriodPutParams{AuthorizationID: id, Period: period, MaxSats: most}); err != nil {
			return err
		}
	}
	return nil
}

// Revoke ends an authorization, audited: nothing is held under it, or under what
// is below it, from then on; what is held is settled. Of one that is revoked it
// is a replay.
func Revoke(ctx context.Context, pool *pgxpool.Pool, authorizationID, actor, reason string) (a db.SpendAuthorization, replay bool, err error) {
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		q := db.New(tx)
		if a, err = forChange(ctx, q, authorizationID); err != nil {
			return err
		}
		if replay = a.RevokedAt != nil; replay {
			return nil
		}
		terms, err := TermsOf(ctx, q, a)
		if err != nil {
			return err
		}
		if a, err = q.SpendAuthorizationRevoke(ctx, db.SpendAuthorizationRevokeParams{
			AuthorizationID: authorizationID, RevokedBy: &actor, RevokeReason: optional(plain(reason)),
		}); err != nil {
			return err
		}
		return note(ctx, q, a, &terms, terms, deed{kind: "revoked", actor: actor, reason: reason})
	})
	if err != nil {
		return db.SpendAuthorization{}, false, fmt.Errorf("revoke %s: %w", authorizationID, err)
	}
	return a, replay, nil
}

// TermsOf are the terms that an authorization has now.
func TermsOf(ctx context.Context, q *db.Queries, a db.SpendAuthorization) (Terms, error) {
	t := Terms{
		MaxTotalSats: a.MaxTotalSats, MaxPerCallSats: a.MaxPerCallSats, MaxPerDaySats: a.MaxPerDaySats, ThresholdSats: a.ThresholdSats,
		OnExhaustion: a.OnExhaustion, UnknownPrice: a.UnknownPrice, Metadata: a.Metadata, NotBefore: a.NotBefore, ExpiresAt: a.ExpiresAt,
	}
	var err error
	if t.Constraints, err = constraintsOf(a); err != nil {
		return t, err
	}
	caps, err := q.SpendPeriodListMany(ctx, []string{a.AuthorizationID})
	if err != nil {
		return t, fmt.Errorf("read the caps of periods: %w", err)
	}
	for _, c := range caps {
		if c.Period == "day" {
			continue
		}
		if t.MaxPer == nil {
			t.MaxPer = map[string]int64{}
		}
		t.MaxPer[c.Period] = c.MaxSats
	}
	return t, nil
}

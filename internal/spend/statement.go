package spend

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Balance is where an authorization's sats are. Available is negative where more
// was paid than held, and where there is no cap.
type Balance struct{ AvailableSats, ReservedSats, SpentSats int64 }

// Line is a movement and the balance after it.
type Line struct {
	Entry db.SpendLedgerEntry
	After Balance
}

// Account is a page of an authorization's statement: what was there, what moved,
// what is there after it. What moved below the authorization moved in it.
type Account struct {
	Authorization db.SpendAuthorization
	From, Until   time.Time
	Opening       Balance
	Lines         []Line
	Closing       Balance
	// More says that other movements follow; Next is where their page begins.
	More bool
	Next Place
}

// Place is a place in a statement: after an entry. The zero place is its begin.
type Place struct {
	At              time.Time
	AuthorizationID string
	EntryID         uuid.UUID
}

// Statement is a page of the statement of an authorization over [from, until),
// with so many movements at the most, or ErrNotFound.
func Statement(ctx context.Context, q db.DBTX, authorizationID string, from, until time.Time, after Place, limit int) (Account, error) {
	queries := db.New(q)
	a, err := Get(ctx, q, authorizationID)
	if err != nil {
		return Account{}, err
	}
	if after.At.IsZero() {
		after.At = from
	}
	opening, err := queries.SpendLedgerEntryBalance(ctx, db.SpendLedgerEntryBalanceParams{
		AuthorizationID: authorizationID, BeforeAt: after.At,
		BeforeAuthorizationID: after.AuthorizationID, BeforeEntryID: after.EntryID,
	})
	if err != nil {
		return Account{}, fmt.Errorf("statement of %s: %w", authorizationID, err)
	}
	entries, err := queries.SpendLedgerEntryListBetween(ctx, db.SpendLedgerEntryListBetweenParams{
		AuthorizationID: authorizationID, AfterAt: after.At, AfterAuthorizationID: after.AuthorizationID, AfterEntryID: after.EntryID,
		UntilAt: until, MaxEntries: int32(limit + 1),
	})
	if err != nil {
		return Account{}, fmt.Errorf("statement of %s: %w", authorizationID, err)
	}
	s := Account{Authorization: a, From: from, Until: until, Opening: Balance(opening), Closing: Balance(opening)}
	if s.More = len(entries) > limit; s.More {
		entries = entries[:limit]
	}
	for _, e := range entries {
		s.Closing = s.Closing.after(e)
		s.Lines = append(s.Lines, Line{e, s.Closing})
		s.Next = Place{e.InsertedAt, e.AuthorizationID, e.EntryID}
	}
	return s, nil
}

func (b Balance) after(e db.SpendLedgerEntry) Balance {
	for account, sign := range map[string]int64{e.Debit: -1, e.Credit: 1} {
		n := sign * e.AmountSats
		switch account {
		case "available":
			b.AvailableSats += n
		case "reserved":
			b.ReservedSats += n
		case "spent":
			b.SpentSats += n
		}
	}
	return b
}

package spend

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
)

// Period is all of a statement's time, whichever page of it is read.
type Period struct {
	Opening, Closing Balance
	Sats             map[string]int64 // by kind of movement
	Movements        int64
}

// Over is what moved in an authorization, and below it, over [from, until).
func Over(ctx context.Context, q db.DBTX, authorizationID string, from, until time.Time) (Period, error) {
	queries := db.New(q)
	opening, err := queries.SpendLedgerEntryBalance(ctx, db.SpendLedgerEntryBalanceParams{AuthorizationID: authorizationID, BeforeAt: from})
	if err != nil {
		return Period{}, fmt.Errorf("balance of %s: %w", authorizationID, err)
	}
	sums, err := queries.SpendLedgerEntrySums(ctx, db.SpendLedgerEntrySumsParams{AuthorizationID: authorizationID, FromAt: from, UntilAt: until})
	if err != nil {
		return Period{}, fmt.Errorf("sums of %s: %w", authorizationID, err)
	}
	p := Period{Opening: Balance(opening), Closing: Balance(opening), Sats: map[string]int64{}}
	for _, s := range sums {
		p.Sats[s.Kind] += s.AmountSats
		p.Movements += s.Movements
		p.Closing = p.Closing.after(db.SpendLedgerEntry{Debit: s.Debit, Credit: s.Credit, AmountSats: s.AmountSats})
	}
	return p, nil
}

// Call names a call of a run.
type Call struct {
	RunKey     uuid.UUID
	ToolCallID string
}

// CallsOf are the reservations that the lines of a statement are about.
func CallsOf(ctx context.Context, q db.DBTX, lines []Line) (map[Call]db.SpendReservation, error) {
	var p db.SpendReservationListManyParams
	found := map[Call]db.SpendReservation{}
	for _, l := range lines {
		if l.Entry.RunKey == nil || l.Entry.ToolCallID == nil {
			continue
		}
		c := Call{*l.Entry.RunKey, *l.Entry.ToolCallID}
		if _, asked := found[c]; !asked {
			found[c] = db.SpendReservation{}
			p.RunKeys, p.ToolCallIds = append(p.RunKeys, c.RunKey), append(p.ToolCallIds, c.ToolCallID)
		}
	}
	rows, err := db.New(q).SpendReservationListMany(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("read the calls of a statement: %w", err)
	}
	for _, r := range rows {
		found[Call{r.RunKey, r.ToolCallID}] = r
	}
	return found, nil
}

// Levels are some authorizations with their caps of periods, in their order, as
// they were read at a moment.
func Levels(ctx context.Context, q db.DBTX, all []db.SpendAuthorization) (Chain, error) {
	ids := make([]string, 0, len(all))
	for _, a := range all {
		ids = append(ids, a.AuthorizationID)
	}
	read, err := chainOf(ctx, db.New(q), ids)
	if err != nil {
		return Chain{}, err
	}
	by := map[string]Level{}
	for _, l := range read.Levels {
		by[l.Authorization.AuthorizationID] = l
	}
	read.Levels = nil
	for _, id := range ids {
		read.Levels = append(read.Levels, by[id])
	}
	return read, nil
}

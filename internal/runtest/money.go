package runtest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// Budget is a grant of so many sats for all runs of user 1.
func Budget(maxTotalSats int64) spend.Grant {
	user := int64(1)
	return spend.Grant{OwnerUserID: &user, Terms: spend.Terms{MaxTotalSats: &maxTotalSats}}
}

// Authorize issues an authorization.
func Authorize(t testing.TB, pool *pgxpool.Pool, g spend.Grant) db.SpendAuthorization {
	t.Helper()
	a, _, err := spend.Create(context.WithoutCancel(t.Context()), pool, g, "test")
	require.NoError(t, err)
	return a
}

// Call is a tool call of a run that wants so many sats, of the class that may not
// be made twice.
func Call(r db.Run, callID string, sats int64) spend.Intent {
	return spend.Intent{
		Run: r, CallID: callID, Kind: spend.ForTool, Tool: "pay.invoice", Provider: "test", Boundary: spend.DedupeReconcileRequired,
		Quote: spend.Quote{AmountSats: sats, Known: true},
	}
}

// Hold does what an executor does before a call that spends: it reads the chain,
// asks policy, and commits the hold in a unit of that epoch; a refusal is decided
// again. denied is policy's reason, or what the call's own reservation says.
func (p *Process) Hold(ctx context.Context, in spend.Intent, epoch int64) (denied string, err error) {
	for {
		chain, _, err := spend.ChainOf(ctx, p.Pool, in.Run)
		if err != nil {
			return "", err
		}
		denied, err := p.HoldUnder(ctx, chain, in, epoch)
		if !errors.Is(err, spend.ErrRefused) {
			return denied, err
		}
	}
}

// HoldUnder is Hold with a chain that was read before; ErrRefused is its caller's.
func (p *Process) HoldUnder(ctx context.Context, chain spend.Chain, in spend.Intent, epoch int64) (denied string, err error) {
	e, err := chain.Decide(ds.PolicyEvaluationV1Input{}, in)
	if err != nil {
		return "", err
	}
	if e.Decision != policy.Allowed {
		return e.ReasonCode, nil
	}
	change, err := spend.Reserve(chain, in, e, epoch)
	if err != nil {
		return "", err
	}
	_, err = p.Log.Commit(ctx, runlog.Unit{
		RunKey: in.Run.RunKey, RunID: in.Run.RunID, Epoch: epoch,
		Decide: func(runlog.Head) (runlog.Change, error) { return change, nil },
	})
	err = spend.Cause(err)
	if !errors.Is(err, spend.ErrExists) {
		return "", err
	}
	r, read := spend.Reservation(ctx, p.Pool, in.Run.RunKey, in.CallID)
	if read != nil {
		return "", read
	}
	return string(spend.Existing(r, in)), nil
}

// Settle commits what make says of a call's reservation as it stands, and again
// when it has moved meanwhile.
func (p *Process) Settle(ctx context.Context, r db.Run, callID string, epoch int64, settle func(db.SpendReservation) (runlog.Change, error)) error {
	for {
		held, err := spend.Reservation(ctx, p.Pool, r.RunKey, callID)
		if err != nil {
			return err
		}
		c, err := settle(held)
		if err != nil {
			return err
		}
		if err := spend.Settle(ctx, p.Log, held, epoch, c); !errors.Is(err, spend.ErrMoved) {
			return err
		}
	}
}

// RequireBooks fails unless the counters of all authorizations are the sums of
// the ledger and of the reservations, and none is over its caps.
func RequireBooks(t testing.TB, pool *pgxpool.Pool) {
	t.Helper()
	require.NoError(t, Books(context.WithoutCancel(t.Context()), pool))
}

// Books says what is wrong with the books.
func Books(ctx context.Context, pool *pgxpool.Pool) error {
	drift, err := spend.Drift(ctx, pool)
	if err != nil {
		return err
	}
	if len(drift) > 0 {
		return fmt.Errorf("the ledger drifts: %+v", drift)
	}
	var over int
	if err := pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM spend_authorizations WHERE spent_sats + reserved_sats > max_total_sats + overage_sats)
		     + (SELECT count(*) FROM spend_periods WHERE captured_sats + held_sats > max_sats + overage_sats)`).Scan(&over); err != nil {
		return err
	}
	if over > 0 {
		return fmt.Errorf("%d caps are exceeded", over)
	}
	return nil
}

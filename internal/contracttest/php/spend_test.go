package php_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// payForCalls has a run of user 7 pay for a call, and hold money for another of
// which nobody knows what became.
func payForCalls(t *testing.T) {
	t.Helper()
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	user, most := int64(7), int64(1000)
	runtest.Authorize(t, pool, spend.Grant{AuthorizationID: "auth-paid", OwnerUserID: &user, RunID: "run-paid", Terms: spend.Terms{MaxTotalSats: &most}})
	e := runtest.Envelope()
	e.RunID, e.UserID, e.GuestScope = "run-paid", &user, nil
	r := runtest.Start(t, pool, e)
	for call, sats := range []int64{60, 70} {
		in := runtest.Call(r, []string{"call-1", "call-2"}[call], sats)
		in.Quote.Host = "data.example.com"
		denied, err := p.Hold(t.Context(), in, 0)
		require.NoError(t, err)
		require.Empty(t, denied)
		require.NoError(t, p.Settle(t.Context(), r, in.CallID, 0, func(held db.SpendReservation) (runlog.Change, error) {
			if call == 0 {
				return spend.Commit(held, spend.Settled{AmountSats: 40}, 0)
			}
			return spend.Mark(held, "unknown_settlement_outcome", 0), nil
		}))
	}
}

package contracttest_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

// fixtureMoney is what a call does with money: it is held, and what Then says
// becomes of it.
type fixtureMoney struct {
	RunID       string `json:"runId"`
	ToolCallID  string `json:"toolCallId"`
	AmountSats  int64  `json:"amountSats"`
	Host        string `json:"host,omitempty"`
	Payee       string `json:"payee,omitempty"`
	PaymentHash string `json:"paymentHash,omitempty"`
	Kind        string `json:"kind,omitempty"` // tool when empty
	// Then is start, mark, release, commit, maybe (committed, and perhaps not
	// billed), or stuck: started by an executor that is gone for good.
	Then     []string `json:"then,omitempty"`
	PaidSats int64    `json:"paidSats,omitempty"` // of a commit; what was held when 0
}

func (m fixtureMoney) happen(t *testing.T, rig *contracttest.Rig) {
	t.Helper()
	r, err := run.Get(t.Context(), rig.Pool, run.Everybody, m.RunID)
	require.NoError(t, err)
	in := runtest.Call(r, m.ToolCallID, m.AmountSats)
	in.Quote.Host, in.Quote.Payee, in.Quote.PaymentHash = m.Host, m.Payee, m.PaymentHash
	if m.Kind == spend.ForModel {
		in.Kind, in.Tool = spend.ForModel, "scripted"
	}
	denied, err := rig.Process.Hold(t.Context(), in, 0)
	require.NoError(t, err)
	require.Empty(t, denied, "policy refuses what the fixture holds")
	for _, then := range m.Then {
		m.then(t, rig, r, then)
	}
}

func (m fixtureMoney) then(t *testing.T, rig *contracttest.Rig, r db.Run, then string) {
	t.Helper()
	paid := spend.Settled{AmountSats: m.PaidSats, CorrelationID: "its-own-name", Proof: []byte(`{"preimage":"00"}`)}
	if paid.AmountSats == 0 {
		paid.AmountSats = m.AmountSats
	}
	if then == "stuck" {
		// Long ago, by the clock that says so.
		_, err := rig.Pool.Exec(t.Context(), `UPDATE spend_reservations SET reserved_at = reserved_at - interval '1 hour' WHERE run_key = $1 AND tool_call_id = $2`,
			r.RunKey, m.ToolCallID)
		require.NoError(t, err)
		return
	}
	require.NoError(t, rig.Process.Settle(t.Context(), r, m.ToolCallID, 0, func(held db.SpendReservation) (runlog.Change, error) {
		switch then {
		case "start":
			return spend.Start(held, 0), nil
		case "mark":
			return spend.Mark(held, "unknown_settlement_outcome", 0), nil
		case "release":
			return spend.Release(held, "provider_rejected", 0), nil
		case "commit":
			return spend.Commit(held, paid, 0)
		case "maybe":
			paid.MaybeBilled, paid.Proof = true, nil
			return spend.Commit(held, paid, 0)
		}
		return runlog.Change{}, fmt.Errorf("nothing is %q", then)
	}))
}

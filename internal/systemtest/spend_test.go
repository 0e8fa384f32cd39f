package systemtest_test

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/spend"
)

func TestEverySpendCommandTalksToAServer(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t))
	env := append(s.clientEnv(), "DATABASE_URL="+dbtest.URL(t))
	command := func(args ...string) string {
		t.Helper()
		got := finish(t, env, "", append([]string{"spend"}, args...)...)
		require.Equal(t, 0, got.code, "%v: %s", args, got.errors)
		return got.out
	}
	refused := func(code string, args ...string) {
		t.Helper()
		got := finish(t, env, "", append([]string{"spend"}, args...)...)
		require.Equal(t, 1, got.code, "%v: %s", args, got.out)
		require.Contains(t, got.errors, code, "%v", args)
	}
	object := func(args ...string) map[string]any {
		t.Helper()
		var v map[string]any
		require.NoError(t, json.Unmarshal([]byte(command(append(args, "--json")...)), &v))
		return v
	}

	text := command("authorize", "--id", "top", "--total", "1000", "--per-day", "800", "--tool", "pay.*", "--tool", "l402.*", "--max-fee", "5", "--expires", "24h")
	require.Regexp(t, `(?m)^authorization +top$`, text)
	require.Regexp(t, `(?m)^left +1000$`, text)
	require.Contains(t, text, `{"allowed_tools":["pay.*","l402.*"],"max_fee_sats":5}`)
	grant := filepath.Join(t.TempDir(), "grant.json")
	require.NoError(t, os.WriteFile(grant, []byte(`{"authorization_id":"of-run","parent_authorization_id":"top","scope_kind":"run","run_id":"run-7","mode":"delegated_budget","max_total_sats":500}`), 0o600))
	require.Regexp(t, `(?m)^2 +of-run +run +delegated_budget +live +500 `, command("authorize", "--file", grant))
	require.Regexp(t, `^auth_[0-9a-f]{32}$`, object("authorize", "--autopilot", "a-1", "--total", "1")["authorization"].(map[string]any)["authorization_id"])
	refused("max_total_sats", "authorize")
	refused("authorization_not_found", "show", "nowhere")
	refused("is no moment", "authorize", "--total", "1", "--expires", "soon")

	// An executor's calls: one is paid, of one nobody knows, two are left behind.
	pool := dbtest.New(t)
	p := runtest.NewProcess(t, pool)
	e := runtest.Envelope()
	user := int64(1)
	e.RunID, e.UserID, e.GuestScope, e.KeepOpen = "run-7", &user, nil, true
	r := runtest.Start(t, pool, e)
	for call, then := range map[string]func(db.SpendReservation) (runlog.Change, error){
		"paid": func(h db.SpendReservation) (runlog.Change, error) {
			return spend.Commit(h, spend.Settled{AmountSats: 40, Proof: []byte(`{"preimage":"00"}`)}, 0)
		},
		"unknown": func(h db.SpendReservation) (runlog.Change, error) { return spend.Mark(h, "timeout", 0), nil },
		"asked":   func(h db.SpendReservation) (runlog.Change, error) { return spend.Start(h, 0), nil },
		"begun":   func(db.SpendReservation) (runlog.Change, error) { return runlog.Change{}, nil },
	} {
		in := runtest.Call(r, call, 60)
		in.Quote.Payee = "\x1b[31m=1+1"
		denied, err := p.Hold(t.Context(), in, 0)
		require.NoError(t, err)
		require.Empty(t, denied)
		require.NoError(t, p.Settle(t.Context(), r, call, 0, then))
	}

	require.Len(t, object("list")["authorizations"], 3)
	require.Len(t, object("list", "--parent", "top")["authorizations"], 1)
	require.Regexp(t, `(?m)^of-run +user:1 +run run-7 +delegated_budget +live +500 +40 +180 +280 `, command("list", "--run", "run-7"))
	require.Empty(t, object("list", "--user", "2")["authorizations"])
	held := command("reservations", "--authorization", "top")
	require.Regexp(t, `run-7 +unknown +pay.invoice +"\\x1b\[31m=1\+1" +reconcile_required +60 +- +dedupe_reconcile_required +of-run +timeout`, held)
	require.NotContains(t, held, "\x1b")
	require.Len(t, object("reservations", "--state", "reconcile_required", "--user", "0")["reservations"], 1)
	require.Len(t, object("reservations", "--run", "run-7", "--limit", "3")["reservations"], 3)

	require.Regexp(t, `(?m)^total +600$`, command("amend", "of-run", "--total", "600", "--reason", "more sources"))
	refused("authorization_in_use", "amend", "of-run", "--total", "219", "--reason", "less")
	refused("authorization_changed", "amend", "of-run", "--total", "601", "--reason", "less", "--revision", "1")
	refused("say what is to change", "amend", "of-run", "--reason", "nothing")
	refused(`"reason" not set`, "amend", "of-run", "--total", "1")
	require.Regexp(t, `run-7 +unknown .* committed +60 +30 `, command("reconcile", "run-7", "unknown", "--outcome", "commit", "--amount", "30", "--reason", "looked it up", "--evidence", `{"lookup":"SETTLED"}`))
	refused("reservation_settled", "reconcile", "run-7", "unknown", "--outcome", "release", "--reason", "looked it up", "--evidence", `{"lookup":"FAILED"}`)
	refused("must be a JSON object", "reconcile", "run-7", "unknown", "--outcome", "commit", "--reason", "x", "--evidence", `yes`)

	require.Equal(t, "0 looked at: 0 given back, 0 spent, 0 whose outcome is unknown; 0 left\n", command("recover-stuck"))
	require.Equal(t, 0, finish(t, env, "", "run", "cancel", "run-7").code)
	p.WaitFor(t, r, event.TypeRunFinished)
	_, err := pool.Exec(t.Context(), `UPDATE spend_reservations SET reserved_at = reserved_at - interval '1 hour'`)
	require.NoError(t, err)
	got := finish(t, env, "", "spend", "recover-stuck", "--batch", "1")
	require.Equal(t, 0, got.code, got.errors)
	require.Regexp(t, `^\d looked at: \d given back, 0 spent, \d whose outcome is unknown; 0 left\n$`, got.out)
	require.Empty(t, got.errors, "nobody watches a bar there")
	for call, state := range map[string]string{"begun": spend.Released, "asked": spend.ReconcileRequired} {
		h, err := spend.Reservation(t.Context(), pool, r.RunKey, call)
		require.NoError(t, err)
		require.Equal(t, state, h.State, call)
	}

	statement := command("statement", "top")
	require.Regexp(t, `(?m)^\S+ +opening balance +0 +0 +0$`, statement)
	require.Regexp(t, `(?m)^\S+ +capture +run-7 +paid +pay.invoice .* 40 +960 +\d+ +\d+ +sha256:[0-9a-f]{64}$`, statement)
	require.Regexp(t, `(?m)^\S+ +closing balance +930 +60 +870$`, statement)
	require.Contains(t, statement, "10 movements: issued 1000, raised 0, lowered 0, held 240, spent 70, given back 110, overage 0, reversed 0")
	rows, err := csv.NewReader(strings.NewReader(command("statement", "top", "--csv"))).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+1+10+1+8)
	require.Equal(t, "'=1+1", strings.ReplaceAll(rows[3][7], "\x1b[31m", ""), "no formula")
	require.Len(t, object("statement", "of-run", "--from", "2026-01-01", "--limit", "2")["statement"].(map[string]any)["movements"], 2)
	refused("is no moment", "statement", "top", "--from", "yesterday")

	require.Regexp(t, `(?m)^state +revoked$`, command("revoke", "top", "--reason", "canceled"))
	require.Regexp(t, `(?m)^chain allows +\S+ state revoked, limited by top$`, command("show", "of-run"))

	require.Equal(t, "every counter is the sum of its ledger and of its calls\n", command("audit"))
	_, err = pool.Exec(t.Context(), `UPDATE spend_authorizations SET spent_sats = spent_sats - 1 WHERE authorization_id = 'top'`)
	require.NoError(t, err)
	drift := finish(t, env, "", "spend", "audit")
	require.Equal(t, 1, drift.code)
	require.Regexp(t, `(?m)^top +69 +70 +70 `, drift.out)
	require.Contains(t, drift.errors, "authorizations that are not what their ledger says: 1")
	_, err = pool.Exec(t.Context(), `UPDATE spend_authorizations SET spent_sats = spent_sats + 1 WHERE authorization_id = 'top'`)
	require.NoError(t, err)
	none := finish(t, nil, "", "spend", "audit")
	require.Equal(t, 1, none.code)
	require.Contains(t, none.errors, "DATABASE_URL is not set")
}

package contracttest_test

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/lease"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// Whoever may write to the database can change a log. The chain, the run's
// status, or a hash that was kept elsewhere tells.
func TestA39ALogChangedBehindItsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	s := &siege{world: w, id: "A39"}
	r, err := db.New(w.Pool).RunGet(t.Context(), w.ended)
	require.NoError(t, err)
	head, err := runlog.GetHead(t.Context(), w.Pool, r.RunKey)
	require.NoError(t, err)
	kept := runlog.Mark{Seq: head.Seq, Hash: canon.Digest(head.Hash)}
	_, err = runlog.Verify(t.Context(), w.Pool, r.RunKey, r.RunID, kept)
	require.NoError(t, err)
	const cutOff = `DELETE FROM run_log WHERE run_key = $1 AND seq > (SELECT latest_seq - 2 FROM run_heads WHERE run_key = $1)`
	const shorter = `UPDATE run_heads SET latest_seq = latest_seq - 2, latest_hash = (SELECT event_hash FROM run_log WHERE run_key = $1 ORDER BY seq DESC LIMIT 1) WHERE run_key = $1`
	for _, c := range []struct {
		attack string
		sql    []string
		remade bool
		kept   []runlog.Mark
		says   string
	}{
		{"a payload changed", []string{`UPDATE run_log SET payload = '{"message_id":"other"}' WHERE run_key = $1 AND event_type = 'run.started'`}, false, nil, "payload"},
		{"payload and its hash changed", []string{`UPDATE run_log SET payload = '{}', content_hash = sha256('{}') WHERE run_key = $1 AND event_type = 'run.started'`}, false, nil, "not the one that was hashed"},
		{"two events swapped", []string{
			`UPDATE run_log SET seq = -seq WHERE run_key = $1 AND seq IN (3, 4)`, `UPDATE run_log SET seq = 7 + seq WHERE run_key = $1 AND seq < 0`,
		}, false, nil, "not the one that was hashed"},
		{"one event taken out", []string{`DELETE FROM run_log WHERE run_key = $1 AND seq = 3`}, false, nil, "the next stored seq is 4"},
		{"cut off at the end", []string{cutOff}, false, nil, "the events end at"},
		{"cut off, and the head with it", []string{cutOff, shorter}, false, nil, "the end is cut off"},
		{"cut off, the head with it, and reopened", []string{cutOff, shorter, `UPDATE run_heads SET status = 'running' WHERE run_key = $1`}, false, []runlog.Mark{kept}, "its hash was kept"},
		{"made anew without any key", nil, true, []runlog.Mark{kept}, "not the one whose hash was kept"},
	} {
		tx, err := w.Pool.Begin(t.Context())
		require.NoError(t, err)
		for _, sql := range c.sql {
			_, err := tx.Exec(t.Context(), sql, r.RunKey)
			require.NoError(t, err, c.attack)
		}
		if c.remade {
			remake(t, tx, r)
			_, err = runlog.Verify(t.Context(), tx, r.RunKey, r.RunID)
			require.NoError(t, err, "the chain alone cannot tell: it has no key")
		}
		_, err = runlog.Verify(t.Context(), tx, r.RunKey, r.RunID, c.kept...)
		var broken *runlog.ChainError
		require.ErrorAs(t, err, &broken, c.attack)
		require.Contains(t, broken.Error(), c.says, c.attack)
		require.NoError(t, tx.Rollback(t.Context()))
		s.note(t, c.attack, "verify: "+broken.Error())
	}
}

// remake changes a run's first event and makes the chain anew.
func remake(t *testing.T, tx pgx.Tx, r db.Run) {
	t.Helper()
	var rows []db.RunLog
	require.NoError(t, runlog.Each(t.Context(), tx, r.RunKey, 0, func(e db.RunLog) error { rows = append(rows, e); return nil }))
	head, err := runlog.GetHead(t.Context(), tx, r.RunKey)
	require.NoError(t, err)
	prev := canon.Digest(head.PrevHash(r.RunID))
	for i, e := range rows {
		if i == 0 {
			e.Payload = []byte(`{"forged":true}`)
		}
		content := canon.Sum(e.Payload)
		prev, err = canon.EventHash(r.RunID, e.Seq, e.EventType, int(e.EventVersion), content, prev)
		require.NoError(t, err)
		for _, table := range []string{"run_log", "run_log_deltas"} {
			_, err := tx.Exec(t.Context(), "UPDATE "+table+" SET payload = $3, content_hash = $4, event_hash = $5 WHERE run_key = $1 AND seq = $2",
				r.RunKey, e.Seq, e.Payload, content[:], prev[:])
			require.NoError(t, err)
		}
	}
	_, err = tx.Exec(t.Context(), "UPDATE run_heads SET latest_hash = $2 WHERE run_key = $1", r.RunKey, prev[:])
	require.NoError(t, err)
}

func TestA42AForgedLease(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A42", contracttest.Options{})
	r, err := db.New(s.Pool).RunGet(t.Context(), s.live)
	require.NoError(t, err)
	h, ok := runtest.Hold(t, s.Process, r)
	require.True(t, ok)
	s.before = s.state(t) // the grant has raised the epoch

	_, ok = runtest.Hold(t, runtest.NewProcess(t, s.Pool), r)
	require.False(t, ok)
	s.note(t, "another owner takes a held run", "lease.ErrHeld")
	q := db.New(s.Pool)
	for name, epoch := range map[string]int64{
		"epoch + 1 without a grant": h.Epoch + 1, "a guessed epoch": 99, "the largest epoch": 1<<63 - 1, "a negative epoch": -1,
	} {
		_, err := s.Process.Log.Commit(t.Context(), runlog.Unit{RunKey: r.RunKey, RunID: r.RunID, Epoch: epoch,
			Decide: func(runlog.Head) (runlog.Change, error) {
				return runlog.Change{Events: []event.Event{event.StreamClosedV1{}}}, nil
			}})
		require.ErrorIs(t, err, runlog.ErrFenced, name)
		s.note(t, "a write with "+name, "runlog.ErrFenced")
		renewed, err := q.RunLeaseRenewMany(t.Context(), db.RunLeaseRenewManyParams{
			Ttl: runtest.TTL, RunKeys: []uuid.UUID{r.RunKey}, LeaseEpochs: []int64{epoch}})
		require.NoError(t, err)
		require.Empty(t, renewed, name)
		s.note(t, "a renewal with "+name, "nothing is renewed")
		require.NoError(t, q.RunLeaseRelease(t.Context(), db.RunLeaseReleaseParams{RunKey: r.RunKey, LeaseEpoch: epoch, Released: true}))
		live, err := lease.Live(t.Context(), s.Pool, r.RunKey)
		require.NoError(t, err)
		require.True(t, live, name)
		s.note(t, "a release with "+name, "nothing is released")
	}
	runtest.Expire(t, s.Pool, r)
	require.NoError(t, s.Process.Leases.Renew(t.Context()))
	live, err := lease.Live(t.Context(), s.Pool, r.RunKey)
	require.NoError(t, err)
	require.False(t, live)
	s.note(t, "a renewal after expiry", "nothing is renewed")

	other, ok := runtest.Hold(t, runtest.NewProcess(t, s.Pool), r)
	require.True(t, ok)
	s.before = s.state(t)
	_, err = h.Commit(t.Context(), func(runlog.Head) (runlog.Change, error) {
		return runlog.Change{Events: []event.Event{event.StreamClosedV1{}}}, nil
	})
	require.ErrorIs(t, err, lease.ErrLost)
	s.note(t, "a write of the holder before", "lease.ErrLost")
	runtest.LetGo(h)
	runtest.LetGo(other)
}

// serving makes a role that serves, and a pool of it.
func serving(t *testing.T, owner *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	role, password := "oa_serving_"+strings.ToLower(rand.Text()[:12]), rand.Text()
	_, err := owner.Exec(t.Context(), fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", role, password))
	require.NoError(t, err)
	require.NoError(t, pg.Grant(t.Context(), dbtest.URL(t), role))
	u, err := url.Parse(dbtest.URL(t))
	require.NoError(t, err)
	u.User = url.UserPassword(role, password)
	if q := u.Query(); q.Has("user") {
		q.Set("user", role)
		u.RawQuery = q.Encode()
	}
	pool, err := pg.Open(t.Context(), pg.Config{URL: u.String(), MaxConns: 8, AppName: "test serving"})
	require.NoError(t, err)
	t.Cleanup(func() {
		pool.Close()
		for _, sql := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			_, err := owner.Exec(contextWithoutEnd(t), sql)
			require.NoError(t, err)
		}
	})
	return pool
}

func TestA45TheServingRoleChangesNoLog(t *testing.T) {
	t.Parallel()
	owner := dbtest.New(t)
	pool := serving(t, owner)
	// All of the API's work, and an executor's, goes by the role.
	rig := contracttest.New(t, pool, contracttest.Options{})
	require.Equal(t, 202, rig.Do(t, startOf("r1")).Status)
	require.Equal(t, 202, rig.Do(t, frameOf("r1", "f1")).Status)
	r, err := db.New(owner).RunGet(t.Context(), "r1")
	require.NoError(t, err)
	h, ok := runtest.Hold(t, rig.Process, r)
	require.True(t, ok)
	require.NoError(t, rig.Process.Leases.Renew(t.Context()))
	rig.Happen(t, r, runtest.Reply("a", "b")...)
	runtest.LetGo(h)
	workTools(t, rig)
	whole := rig.Do(t, contracttest.Request{Target: "/internal/v1/runs/r1/stream"})
	require.Contains(t, string(whole.Body), "[DONE]")
	n, err := runlog.Retention{Pool: owner}.Fold(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.Equal(t, string(whole.Body), string(rig.Do(t, contracttest.Request{Target: "/internal/v1/runs/r1/stream"}).Body))

	servesMoney(t, rig)

	s := &siege{world: &world{Rig: contracttest.New(t, owner, contracttest.Options{}), t: t}, id: "A45"}
	before := s.state(t)
	for attack, sql := range map[string]string{
		"UPDATE of an event":           `UPDATE run_log SET payload = '{}'`,
		"UPDATE of a delta":            `UPDATE run_log_deltas SET payload = '{}'`,
		"DELETE of events":             `DELETE FROM run_log`,
		"DELETE in a partition":        `DELETE FROM run_log_default`,
		"INSERT into a partition":      `INSERT INTO run_log_default SELECT * FROM run_log`,
		"TRUNCATE of the log":          `TRUNCATE run_log`,
		"forged stretch":               `INSERT INTO run_log_folds SELECT * FROM run_log_folds`,
		"DELETE of stretches":          `DELETE FROM run_log_folds`,
		"move of the floor":            `UPDATE run_heads SET oldest_seq = 9, floor_hash = latest_hash`,
		"DELETE of heads":              `DELETE FROM run_heads`,
		"run given to another owner":   `UPDATE runs SET user_id = 2`,
		"DELETE of runs":               `DELETE FROM runs`,
		"UPDATE of a frame":            `UPDATE frames SET payload = '{}'`,
		"UPDATE of a receipt":          `UPDATE ds_predict_receipts SET receipt = '{}'`,
		"UPDATE of an evaluation":      `UPDATE ds_policy_evaluations SET document = '{}'`,
		"DELETE of evaluations":        `DELETE FROM ds_policy_evaluations`,
		"DELETE of refusals":           `DELETE FROM tool_refusals`,
		"a call's other arguments":     `UPDATE tool_tasks SET input = '{}', params_hash = ''`,
		"DELETE of calls":              `DELETE FROM tool_tasks`,
		"an approval of other things":  `UPDATE approvals SET args_hash = ''`,
		"an approval that never ends":  `UPDATE approvals SET expires_at = 'infinity'`,
		"DELETE of approvals":          `DELETE FROM approvals`,
		"UPDATE of a release":          `UPDATE skill_releases SET bundle = '{}'`,
		"spec given to another owner":  `UPDATE tool_specs SET owner = 'user:2'`,
		"lease of another run":         `UPDATE run_leases SET run_key = gen_random_uuid()`,
		"DELETE of leases":             `DELETE FROM run_leases`,
		"DELETE of nonces":             `DELETE FROM auth_nonces`,
		"UPDATE of what was booked":    `UPDATE spend_ledger_entries SET amount_sats = 1`,
		"DELETE of what was booked":    `DELETE FROM spend_ledger_entries`,
		"another owner's budget":       `UPDATE spend_authorizations SET owner_user_id = 2`,
		"DELETE of a budget":           `DELETE FROM spend_authorizations`,
		"UPDATE of what was held":      `UPDATE spend_reservations SET amount_sats = 1`,
		"a payment for somebody else":  `UPDATE spend_reservations SET authorization_id = 'other'`,
		"DELETE of a hold":             `DELETE FROM spend_reservations`,
		"UPDATE of an amendment":       `UPDATE spend_authorization_events SET actor = 'nobody'`,
		"a live artifact":              `INSERT INTO ds_artifact_pointers (signature_id) VALUES ('x')`,
		"applied migration forged":     `INSERT INTO goose_db_version (version_id, is_applied) VALUES (1, true)`,
		"DROP TABLE":                   `DROP TABLE run_log`,
		"ALTER TABLE":                  `ALTER TABLE run_log DROP COLUMN event_hash`,
		"CREATE TABLE in our schema":   `CREATE TABLE runtime.mine (a int)`,
		"trigger on the log":           `CREATE TRIGGER x BEFORE INSERT ON run_log EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
		"partition detached":           `ALTER TABLE run_log DETACH PARTITION run_log_default`,
		"CREATE SCHEMA":                `CREATE SCHEMA mine`,
		"CREATE ROLE":                  `CREATE ROLE mine`,
		"passwords read":               `SELECT rolpassword FROM pg_authid`,
		"file of the server read":      `SELECT pg_read_file('/etc/passwd')`,
		"program run":                  `COPY runs TO PROGRAM 'cat'`,
		"triggers switched off":        `SET session_replication_role = replica`,
		"role of the owner taken":      `SET ROLE ` + ownerName(t, owner),
		"rights given on":              `GRANT ALL ON run_log TO PUBLIC`,
		"log locked against everybody": `LOCK TABLE run_log IN ACCESS EXCLUSIVE MODE`,
	} {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql)
			return err
		})
		var refusal *pgconn.PgError
		if attack == "rights given on" {
			// A warning, not an error: nothing is given.
			var given bool
			require.NoError(t, owner.QueryRow(t.Context(), "SELECT has_table_privilege('public', 'run_log', 'DELETE')").Scan(&given))
			require.False(t, given)
			s.note(t, attack, "nothing is given")
			continue
		}
		require.ErrorAs(t, err, &refusal, attack)
		require.Equal(t, "42501", refusal.Code, "%s: %s", attack, refusal.Message)
		s.note(t, attack, refusal.Code+" "+refusal.Message)
	}
	require.Equal(t, before, s.state(t))
}

func ownerName(t *testing.T, owner *pgxpool.Pool) string {
	t.Helper()
	var name string
	require.NoError(t, owner.QueryRow(t.Context(), "SELECT quote_ident(current_user)").Scan(&name))
	return name
}

// servesMoney does by the role what the API does with money, calls and specs.
func servesMoney(t *testing.T, rig *contracttest.Rig) {
	t.Helper()
	do := func(method, target, body string, scope auth.Scope, status int) {
		t.Helper()
		a := rig.Do(t, contracttest.Request{Method: method, Target: "/internal/v1" + target, Body: body, Scope: scope})
		require.Equal(t, status, a.Status, string(a.Body))
	}
	do("POST", "/spend/authorizations", grantBody("auth-1", `,"max_total_sats":1000,"max_per_hour_sats":500`), "", 200)
	do("POST", "/runs", `{"runId":"r2","threadId":"t","userId":1,"authenticatedSession":true,"authorizationId":"auth-1"}`, "", 202)
	fixtureMoney{RunID: "r2", ToolCallID: "paid", AmountSats: 10, Then: []string{"start", "commit"}}.happen(t, rig)
	fixtureMoney{RunID: "r2", ToolCallID: "unknown", AmountSats: 10, Then: []string{"start", "mark"}}.happen(t, rig)
	do("POST", "/spend/reservations/r2/unknown/reconcile", `{"outcome":"release",`+evidence+`}`, auth.Operator, 200)
	do("POST", "/spend/authorizations/auth-1/amend", `{"revision":1,"reason":"more","changes":{"max_total_sats":2000,"clear":["max_per_hour_sats"]}}`, auth.Operator, 200)
	do("GET", "/spend/authorizations/auth-1/statement", "", "", 200)
	do("POST", "/spend/recover-stuck", `{}`, auth.Operator, 200)
	do("POST", "/spend/authorizations/auth-1/revoke", `{}`, "", 200)
	do("POST", "/tools/execute", `{"runId":"r2","toolCallId":"c1","tool":"email.send","input":{"to":"ada@example.com"}}`, "", 202)
	do("POST", "/tool-tasks/c1/cancel?runId=r2", `{}`, "", 202)
	do("POST", "/skills/tool-specs", toolSpec("acme.served", 1, ""), "", 200)
	do("POST", "/skills/skill-specs", skillSpec("acme-served", 1), "", 200)
	do("POST", "/skills/skill-specs/acme-served/1/publish", "", "", 200)
	runtest.RequireBooks(t, rig.Pool)
}

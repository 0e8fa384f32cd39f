package archtest_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// runbook are the statements that operators type to see how pointers, compiles
// and money stand; docs/operations.md has them word for word.
const runbook = "testdata/runbook.sql"

// runbookRows are rows for each of its statements to find.
const runbookRows = `
	INSERT INTO ds_artifact_pointers (signature_id, canary_percent) VALUES ('@openagents/a/B.v1', 5), ('@openagents/a/A.v1', 0);
	INSERT INTO ds_pointer_audits (signature_id, action, actor, reason) VALUES ('@openagents/a/A.v1', 'promote', 'ops', 'canary pass'), ('@openagents/a/A.v1', 'rollback', 'ops', 'incident');
	INSERT INTO ds_compile_reports (report_id, signature_id, job_hash, dataset_hash, compiler_version, started_at) VALUES ('r1', '@openagents/a/A.v1', 'sha256:1', 'sha256:2', 'x', clock_timestamp());
	INSERT INTO spend_authorizations (authorization_id, path, owner_user_id, scope_kind, max_total_sats, terms_hash, expires_at)
		VALUES ('auth_1', '{auth_1}', 1, 'owner', 100, 'sha256:3', 'infinity');
	INSERT INTO spend_reservations (run_key, tool_call_id, authorization_id, path, run_id, kind, amount_sats, state, retry_class, lease_epoch, evaluation_hash, failure_reason, marked_at)
		SELECT gen_random_uuid(), 'call_' || n, 'auth_1', '{auth_1}', 'run_1', 'tool', 15, CASE WHEN n < 3 THEN 'reconcile_required' ELSE 'reserved' END,
		       'dedupe_reconcile_required', 1, 'sha256:4', 'unknown_settlement_outcome', clock_timestamp() FROM generate_series(1, 3) n;`

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestTheRunbooksStatementsRunWordForWord(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	_, err := pool.Exec(t.Context(), runbookRows)
	require.NoError(t, err)
	text, err := os.ReadFile(runbook)
	require.NoError(t, err)
	asOperators(t, pool, func(ctx context.Context, c *pgx.Conn) {
		_, err := c.Exec(ctx, string(text))
		require.NoError(t, err, "the block as a whole")
		found := []int{}
		for statement := range strings.SplitSeq(strings.TrimSpace(string(text)), ";") {
			if strings.TrimSpace(statement) == "" {
				continue
			}
			rows, err := c.Query(ctx, statement)
			require.NoError(t, err, statement)
			n := 0
			for rows.Next() {
				n++
			}
			require.NoError(t, rows.Err(), statement)
			found = append(found, n)
		}
		require.Equal(t, []int{2, 2, 1, 1, 2}, found, "rows that each statement finds")
	})
}

var (
	sqlBlock    = regexp.MustCompile("(?ms)^```sql\n(.*?)^```$")
	placeholder = regexp.MustCompile(`:'[a-z_]+'`) // of psql
)

// What operators copy out of the documents works.
func TestEverySQLBlockOfTheDocumentsRuns(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	text, err := os.ReadFile(runbook)
	require.NoError(t, err)
	files, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	words := false
	for _, file := range files {
		doc, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, block := range sqlBlock.FindAllStringSubmatch(string(doc), -1) {
			words = words || filepath.Base(file) == "operations.md" && block[1] == string(text)
			asOperators(t, pool, func(ctx context.Context, c *pgx.Conn) {
				_, err := c.Exec(ctx, placeholder.ReplaceAllString(block[1], "'x'"))
				require.NoError(t, err, "%s:\n%s", file, block[1])
			})
		}
	}
	require.True(t, words, "docs/operations.md has the runbook's statements word for word")
}

// asOperators does something on a connection as psql opens one: with the search
// path that the database gives.
func asOperators(t *testing.T, pool *pgxpool.Pool, do func(context.Context, *pgx.Conn)) {
	t.Helper()
	config := pool.Config().ConnConfig.Copy()
	config.RuntimeParams = map[string]string{"search_path": `"$user", public`}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	c, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close(context.WithoutCancel(t.Context()))) }()
	do(t.Context(), c)
}

package pg_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/url"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func quiet(string) {}

// files are migrations, by name.
func files(t *testing.T, named map[string]string) fs.FS {
	t.Helper()
	dir := fstest.MapFS{}
	for name, up := range named {
		dir[name] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + up + "\n")}
	}
	return dir
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	return conn
}

func number(t *testing.T, conn *pgx.Conn, query string) int {
	t.Helper()
	var n int
	require.NoError(t, conn.QueryRow(t.Context(), query).Scan(&n))
	return n
}

func TestSessionsWorkInOurSchemaWithinTimeLimits(t *testing.T) {
	t.Parallel()
	pool, err := pg.Open(t.Context(), pg.Config{
		URL: dbtest.URL(t), MaxConns: 3, AppName: "a test", IdleInTransactionTimeout: 100 * time.Millisecond, LockTimeout: 250 * time.Millisecond, ByKeyOnly: true,
	})
	require.NoError(t, err)
	defer pool.Close()
	require.EqualValues(t, 3, pool.Config().MaxConns)
	for setting, want := range map[string]string{
		"search_path": "runtime", "application_name": "a test",
		"statement_timeout": "30s", "idle_in_transaction_session_timeout": "100ms", "lock_timeout": "250ms",
		"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off",
	} {
		var got string
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT current_setting($1)", setting).Scan(&got))
		require.Equal(t, want, got, setting)
	}

	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), "BEGIN")
	require.NoError(t, err)
	waiting, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = conn.Conn().WaitForNotification(waiting)
	var ended *pgconn.PgError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, "25P03", ended.Code, "the server ends a session that leaves a transaction open")
}

func TestABadURLIsExplainedWithoutItsPassword(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3tPassw0rd"
	for name, bad := range map[string]string{
		"empty":             " ",
		"not a URL":         "://" + secret,
		"another scheme":    "mysql://me:" + secret + "@localhost/db",
		"unescaped slash":   "postgres://me:" + secret + "/x@localhost:5432/db",
		"unescaped percent": "postgres://me:" + secret + "%zz@localhost/db",
		"bad port":          "postgres://me:" + secret + "@localhost:port/db",
		"bad sslmode":       "postgres://me:" + secret + "@localhost/db?sslmode=" + secret,
		"bad number":        "postgres://me:" + secret + "@localhost/db?connect_timeout=soon",
		"bad pool size":     "postgres://me:" + secret + "@localhost/db?pool_max_conns=many",
	} {
		_, err := pg.Open(t.Context(), pg.Config{URL: bad})
		require.ErrorIs(t, err, pg.ErrURL, name)
		require.NotContains(t, err.Error(), secret, name)
		for _, e := range []error{
			pg.Migrate(t.Context(), bad, fstest.MapFS{}, quiet),
			pg.Verify(t.Context(), bad, fstest.MapFS{}),
			pg.Listen(t.Context(), bad, "c", quiet, func() {}),
		} {
			require.ErrorIs(t, e, pg.ErrURL, name)
			require.NotContains(t, e.Error(), secret, name)
		}
	}

	_, err := pg.Open(t.Context(), pg.Config{URL: "postgres://me:" + secret + "@127.0.0.1:1/db?sslmode=disable"})
	require.ErrorContains(t, err, "reach the database")
	require.NotContains(t, err.Error(), secret)
}

func TestAPoolSizeInTheURLDisturbsNobody(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(dbtest.EmptyURL(t))
	require.NoError(t, err)
	q := u.Query()
	q.Set("pool_max_conns", "2")
	u.RawQuery = q.Encode()
	sized := u.String()
	fsys := files(t, map[string]string{"202601010000_a.sql": "CREATE TABLE runtime.a ();"})
	require.NoError(t, pg.Migrate(t.Context(), sized, fsys, quiet))
	pool, err := pg.Open(t.Context(), pg.Config{URL: sized})
	require.NoError(t, err)
	defer pool.Close()
	require.EqualValues(t, 2, pool.Config().MaxConns)
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	for _, cfg := range []pg.Config{
		{URL: "postgres://localhost/db", MaxConns: -1},
		{URL: "postgres://localhost/db", StatementTimeout: -time.Second},
		{URL: "postgres://localhost/db", IdleInTransactionTimeout: -time.Second},
		{URL: "postgres://localhost/db", LockTimeout: -time.Second},
	} {
		require.Error(t, cfg.Validate(), "%+v", cfg)
	}
}

func TestSixReplicasMigrateOnce(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	// Applied twice, the first fails, and the second has two rows.
	fsys := files(t, map[string]string{
		"202601010000_first.sql":  "CREATE TABLE runtime.marks (n int);",
		"202601010001_second.sql": "INSERT INTO runtime.marks SELECT 1 FROM pg_sleep(0.2);",
		"202601010002_third.sql":  "-- +goose NO TRANSACTION\nCREATE INDEX CONCURRENTLY marks_n ON runtime.marks (n);",
	})
	applied := make(chan string, 100)
	var replicas errgroup.Group
	for range 6 {
		replicas.Go(func() error {
			return pg.Migrate(t.Context(), url, fsys, func(line string) { applied <- line })
		})
	}
	require.NoError(t, replicas.Wait())
	require.Len(t, applied, 3, "each migration is reported by the replica that applied it")
	require.Regexp(t, `^applied 202601010000_first.sql in \d+ ms$`, <-applied)

	conn := connect(t, url)
	require.Equal(t, 1, number(t, conn, "SELECT count(*) FROM runtime.marks"))
	require.Equal(t, 3, number(t, conn, "SELECT count(*) FROM runtime.goose_db_version WHERE version_id > 0"))
	require.NoError(t, pg.Verify(t.Context(), url, fsys))
}

func TestAReplicaThatLosesTheRaceForTheSchemaGoesOn(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	first := connect(t, url)
	tx, err := first.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "CREATE SCHEMA runtime")
	require.NoError(t, err)

	migrated := make(chan error, 1)
	fsys := files(t, map[string]string{"202601010000_a.sql": "CREATE TABLE runtime.a ();"})
	go func() { migrated <- pg.Migrate(t.Context(), url, fsys, quiet) }()
	watch := connect(t, url)
	require.Eventually(t, func() bool {
		return number(t, watch, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE 'CREATE SCHEMA%'`) == 1
	}, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, tx.Commit(t.Context()))
	require.NoError(t, <-migrated)
}

func TestVerifyTellsWhatIsPendingAndUnknownAndChangesNothing(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	first := map[string]string{"202601010000_first.sql": "CREATE TABLE runtime.a ();"}
	other := map[string]string{"202601010001_second.sql": "CREATE TABLE runtime.b ();"}

	var diff *pg.SchemaError
	require.ErrorAs(t, pg.Verify(t.Context(), url, files(t, first)), &diff)
	require.Equal(t, []string{"202601010000_first.sql"}, diff.Pending)
	require.Equal(t, 0, number(t, connect(t, url), "SELECT count(*) FROM pg_namespace WHERE nspname = 'runtime'"))

	require.NoError(t, pg.Migrate(t.Context(), url, files(t, first), quiet))
	require.ErrorAs(t, pg.Verify(t.Context(), url, files(t, other)), &diff)
	require.Equal(t, pg.SchemaError{Pending: []string{"202601010001_second.sql"}, Unknown: []int64{202601010000}}, *diff)
	require.EqualError(t, diff, "the database's schema is not this version's: pending: 202601010001_second.sql; applied but unknown to this version: 202601010000")
}

func TestAMigrationMergedLateIsApplied(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	named := map[string]string{"202601010001_b.sql": "CREATE TABLE runtime.b ();"}
	require.NoError(t, pg.Migrate(t.Context(), url, files(t, named), quiet))
	named["202601010000_a.sql"] = "CREATE TABLE runtime.a ();"
	require.NoError(t, pg.Migrate(t.Context(), url, files(t, named), quiet))
	require.NoError(t, pg.Verify(t.Context(), url, files(t, named)))
}

func TestAFailedMigrationIsNamedAndLeavesTheEarlierOnes(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	fsys := files(t, map[string]string{
		"202601010000_good.sql": "CREATE TABLE runtime.good ();",
		"202601010001_bad.sql":  "CREATE TABLE runtime.half (); SELECT 1/0;",
	})
	err := pg.Migrate(t.Context(), url, fsys, quiet)
	require.ErrorContains(t, err, "apply 202601010001_bad.sql")
	require.ErrorContains(t, err, "division by zero")
	require.Equal(t, 1, number(t, connect(t, url), "SELECT count(*) FROM pg_class WHERE relname IN ('good', 'half')"))
}

func TestARoleThatMayNotCreateSchemasCanMigrateInTheOneMadeForIt(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t)
	conn := connect(t, url)
	role := fmt.Sprintf("migrator_%d", time.Now().UnixNano())
	for _, statement := range []string{"CREATE ROLE " + role + " LOGIN PASSWORD 'x'", "CREATE SCHEMA runtime AUTHORIZATION " + role} {
		_, err := conn.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		_, err := conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
		require.NoError(t, err)
	})
	cfg, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	limited := fmt.Sprintf("postgres://%s:x@/%s?host=%s&port=%d&sslmode=disable", role, cfg.Database, cfg.Host, cfg.Port)
	fsys := files(t, map[string]string{"202601010000_a.sql": "CREATE TABLE runtime.a ();"})
	require.NoError(t, pg.Migrate(t.Context(), limited, fsys, quiet))
	require.NoError(t, pg.Verify(t.Context(), limited, fsys))
}

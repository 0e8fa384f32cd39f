package dbtest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/devdb"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

// hangEnv makes the first test print its database's URL and never end, in a
// process that another test kills.
const hangEnv = "DBTEST_TEST_HANG"

func TestMain(m *testing.M) { dbtest.Main(m) }

func TestADatabaseIsFreshAndMigrated(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	require.NoError(t, pg.Verify(t.Context(), dbtest.URL(t), migrations.FS))

	var zone, path string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT current_setting('timezone'), current_setting('search_path')").Scan(&zone, &path))
	require.Equal(t, "Canada/Newfoundland", zone)
	require.Equal(t, pg.Schema, path)

	if os.Getenv(hangEnv) != "" {
		fmt.Println(dbtest.URL(t))
		select {}
	}
}

func TestEachTestHasItsOwnDatabase(t *testing.T) {
	t.Parallel()
	pool := dbtest.New(t)
	require.Same(t, pool, dbtest.New(t))
	_, err := pool.Exec(t.Context(), "CREATE TABLE mine (n int)")
	require.NoError(t, err)

	// The URL leads to the same database as the pool.
	conn, err := pgx.Connect(t.Context(), dbtest.URL(t))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "INSERT INTO runtime.mine VALUES (1)")
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))

	t.Run("another", func(t *testing.T) {
		t.Parallel()
		var exists bool
		require.NoError(t, dbtest.New(t).QueryRow(t.Context(), "SELECT to_regclass('mine') IS NOT NULL").Scan(&exists))
		require.False(t, exists)
	})
}

func TestAnEmptyDatabaseHasNoSchemaOfOurs(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), dbtest.EmptyURL(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	var exists bool
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT to_regnamespace('runtime') IS NOT NULL").Scan(&exists))
	require.False(t, exists)
}

// recorder is a test of its own whose end and result this test decides.
type recorder struct {
	testing.TB
	failed   bool
	log      strings.Builder
	cleanups []func()
}

func (r *recorder) Failed() bool                 { return r.failed }
func (r *recorder) Cleanup(f func())             { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Logf(format string, a ...any) { fmt.Fprintf(&r.log, format+"\n", a...) }

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func TestAFailedTestShowsItsRowsAndAPassedOneShowsNothing(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{true, false} {
		r := &recorder{TB: t, failed: failed}
		pool := dbtest.New(r)
		_, err := pool.Exec(t.Context(), "CREATE TABLE notes AS SELECT 'the row to see' AS text")
		require.NoError(t, err)
		r.end()
		if failed {
			require.Contains(t, r.log.String(), `{"text":"the row to see"}`)
			require.Contains(t, r.log.String(), "notes, 1 of 1 rows")
			drop(t, pool.Config().ConnConfig.Database)
			continue
		}
		require.Empty(t, r.log.String())
		_, err = pgx.Connect(t.Context(), pool.Config().ConnString())
		require.ErrorContains(t, err, "does not exist", "a passed test's database is dropped")
	}
}

// drop removes a database that was kept because its test failed.
func drop(t *testing.T, name string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dbtest.EmptyURL(t))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "DROP DATABASE IF EXISTS "+name)
	require.NoError(t, err)
	require.NoError(t, conn.Close(t.Context()))
}

// again starts this binary's first test in another process, on a private
// server whose files are in tmp.
func again(t *testing.T, tmp string, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestADatabaseIsFreshAndMigrated$")
	cmd.Env = append(append(os.Environ(), "TEST_DATABASE_URL=", "TMPDIR="+tmp), env...)
	return cmd
}

// openTmp is a folder for temporary files that the server's user can enter.
func openTmp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dbtest-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func TestAKilledTestBinaryLeavesNothingForLong(t *testing.T) {
	t.Parallel()
	tmp := openTmp(t)
	hung := again(t, tmp, hangEnv+"=1")
	stdout, err := hung.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, hung.Start())
	url, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), strings.TrimSpace(url))
	require.NoError(t, err)
	require.NoError(t, hung.Process.Kill())
	require.Error(t, hung.Wait())

	next := again(t, tmp)
	out, err := next.CombinedOutput()
	require.NoError(t, err, "%s", out)
	left, err := filepath.Glob(filepath.Join(tmp, "*"))
	require.NoError(t, err)
	require.Empty(t, left, "the next run removes what the killed one left, and its own files")

	waiting, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = conn.WaitForNotification(waiting)
	require.Error(t, err)
	require.NoError(t, waiting.Err(), "the killed binary's server still runs")
}

func TestWithoutPostgresTheFailureSaysHowToGetIt(t *testing.T) {
	t.Parallel()
	out, err := again(t, openTmp(t), "PG_BIN=/nonexistent").CombinedOutput()
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v", err)
	require.Contains(t, string(out), "tests need PostgreSQL: install it, or set TEST_DATABASE_URL")
	require.NotContains(t, string(out), "--- SKIP")
}

func TestOneServerServesManyTestBinaries(t *testing.T) {
	t.Parallel()
	dir := openTmp(t)
	server, err := devdb.Start(t.Context(), devdb.Config{Dir: dir}) // one without a template
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop(context.Background())) })
	admin := server.URL("postgres")
	const binaries = 4
	done := make(chan string, binaries)
	for range binaries {
		go func() {
			out, err := again(t, os.TempDir(), "TEST_DATABASE_URL="+admin).CombinedOutput()
			if err != nil {
				done <- fmt.Sprintf("%v\n%s", err, out)
				return
			}
			done <- ""
		}()
	}
	for range binaries {
		require.Empty(t, <-done)
	}
	conn, err := pgx.Connect(t.Context(), admin)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	var templates, unfinished int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FILTER (WHERE datname LIKE 'tpl\_%'),
		count(*) FILTER (WHERE datname LIKE 'tmp\_%') FROM pg_database`).Scan(&templates, &unfinished))
	require.Equal(t, 1, templates)
	require.Zero(t, unfinished)
}

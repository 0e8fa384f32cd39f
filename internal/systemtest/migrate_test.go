package systemtest_test

import (
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

func TestMigrateBringsTheSchemaUpAndVerifyTells(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + dbtest.EmptyURL(t)}

	before := finish(t, env, "", "migrate", "--verify")
	require.Equal(t, 1, before.code)
	require.Contains(t, before.errors, "run `openagents-runtime migrate`")

	first := finish(t, env, "", "migrate")
	require.Equal(t, 0, first.code, first.errors)
	require.Equal(t, count(t), strings.Count(first.out, "applied "), first.out)

	after := finish(t, env, "", "migrate", "--verify")
	require.Equal(t, 0, after.code, after.errors)

	again := finish(t, env, "", "migrate")
	require.Equal(t, 0, again.code, again.errors)
	require.NotContains(t, again.out, "applied ")
}

func TestMigrateWithoutADatabaseSaysWhatToSet(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"migrate"}, {"migrate", "--verify"}} {
		got := finish(t, nil, "", args...)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.errors, "DATABASE_URL")
	}
}

func TestSixThatMigrateAtOnceApplyEachMigrationOnce(t *testing.T) {
	t.Parallel()
	env := []string{"DATABASE_URL=" + dbtest.EmptyURL(t)}
	program(t)

	all := make([]said, 6)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = finish(t, env, "", "migrate") })
	}
	wg.Wait()

	applied := 0
	for _, one := range all {
		require.Equal(t, 0, one.code, one.errors)
		applied += strings.Count(one.out, "applied ")
	}
	require.Equal(t, count(t), applied)
	require.Equal(t, 0, finish(t, env, "", "migrate", "--verify").code)
}

// count is the number of migrations.
func count(t *testing.T) int {
	t.Helper()
	files, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return len(files)
}

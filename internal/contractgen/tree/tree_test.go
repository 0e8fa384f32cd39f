package tree_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/tree"
)

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

func TestEveryKindOfDifferenceIsSeen(t *testing.T) {
	t.Parallel()
	want := write(t, map[string]string{"a/same": "1", "a/changed": "1", "b/missing": "1"})
	have := write(t, map[string]string{"a/same": "1", "a/changed": "2", "old/orphan": "1"})
	diffs, err := tree.Diff(want, have)
	require.NoError(t, err)
	require.Equal(t, []tree.Difference{{"a/changed", tree.Changed}, {"b/missing", tree.Missing}, {"old/orphan", tree.Orphan}}, diffs)

	diffs, err = tree.Diff(want, filepath.Join(have, "nowhere"))
	require.NoError(t, err)
	require.Len(t, diffs, 3, "a folder that is not there lacks everything")
}

func TestSyncMakesEqualAndLeavesEqualFilesAlone(t *testing.T) {
	t.Parallel()
	want := write(t, map[string]string{"same": "1", "changed": "1", "d/missing": "1"})
	have := write(t, map[string]string{"same": "1", "changed": "2", "orphan": "1"})
	long := time.Now().Add(-time.Hour).Truncate(time.Second)
	require.NoError(t, os.Chtimes(filepath.Join(have, "same"), long, long))

	require.NoError(t, tree.Sync(want, have))

	diffs, err := tree.Diff(want, have)
	require.NoError(t, err)
	require.Empty(t, diffs)
	info, err := os.Stat(filepath.Join(have, "same"))
	require.NoError(t, err)
	require.True(t, info.ModTime().Equal(long))
}

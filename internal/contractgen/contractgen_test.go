package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/contractcopy"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/tree"
)

var sources = []string{"openapi", "schemas", "queries", "migrations"}

// command runs contractgen on a copy of the contract, with this repository's tools.
func command(t *testing.T, name, root string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(context.Background(), []string{name, "-root", root, "-module", contractcopy.Root(t)}, &out)
	return out.String(), err
}

// accepted is a copy of the contract whose generated code is fresh and which is
// its own accepted contract.
func accepted(t *testing.T) string {
	t.Helper()
	root := contractcopy.New(t, sources...)
	for _, name := range []string{"generate", "accept"} {
		_, err := command(t, name, root)
		require.NoError(t, err)
	}
	return root
}

func TestGeneratingFromNothingGivesWhatIsCommitted(t *testing.T) {
	t.Parallel()
	root := contractcopy.New(t, sources...)
	_, err := command(t, "generate", root)
	require.NoError(t, err)
	diffs, err := tree.Diff(filepath.Join(root, "gen"), filepath.Join(contractcopy.Root(t), "gen"))
	require.NoError(t, err)
	require.Empty(t, diffs, "run `make generate` and commit gen/")
}

func TestTheCheckPassesAndTellsThePullRequest(t *testing.T) {
	root := accepted(t)
	summary := filepath.Join(t.TempDir(), "summary.md")
	require.NoError(t, os.WriteFile(summary, []byte("before\n"), 0o600))
	t.Setenv("GITHUB_STEP_SUMMARY", summary)
	t.Setenv("CONTRACT_BASE", "")

	out, err := command(t, "check", root)

	require.NoError(t, err)
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	require.Equal(t, "runtime contract check passed", lines[len(lines)-1])
	require.Contains(t, out, "## Contract changes")
	told, err := os.ReadFile(summary)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(told), "before\n"), "the file is appended to")
	require.Contains(t, string(told), "## Contract changes")
}

// TestAChangeWithoutGeneratingIsRefused also wants the tree to stay as it was.
func TestAChangeWithoutGeneratingIsRefused(t *testing.T) {
	t.Parallel()
	root := accepted(t)
	contractcopy.Apply(t, root, contractcopy.Edit{
		File: "openapi/openapi.yaml", Path: "components|schemas|StartRunRequest|properties|label",
		Value: "{type: string, description: A label., maxLength: 10}",
	})
	require.NoError(t, os.WriteFile(filepath.Join(root, "gen", "event", "old.gen.go"), []byte("package event\n"), 0o600))
	before := contractTree(t, root)

	out, err := command(t, "check", root)

	require.ErrorContains(t, err, "drift: gen/openapi/runtime.yaml: generated code is out of date: the file is changed")
	require.ErrorContains(t, err, "drift: gen/api/api.gen.go: generated code is out of date")
	require.ErrorContains(t, err, "drift: gen/event/old.gen.go: generated code is out of date: the file is orphaned")
	require.ErrorContains(t, err, "run `make generate` and commit gen/")
	require.Contains(t, out, "label", "the summary names what is new")
	require.NotContains(t, out, "runtime contract check passed")
	require.Equal(t, before, contractTree(t, root))

	_, err = command(t, "generate", root)
	require.NoError(t, err)
	_, err = command(t, "check", root)
	require.NoError(t, err, "after generating, an addition passes")
}

func TestABreakingChangePassesOnceItIsAccepted(t *testing.T) {
	t.Parallel()
	root := accepted(t)
	contractcopy.Apply(t, root, contractcopy.Edit{
		File: "openapi/openapi.yaml", Path: "components|schemas|CancelRunRequest|properties|reason|maxLength", Value: "900",
	})
	_, err := command(t, "generate", root)
	require.NoError(t, err)

	_, err = command(t, "check", root)
	require.ErrorContains(t, err, "maxLength was decreased")
	require.ErrorContains(t, err, "run `make contract-accept`")

	_, err = command(t, "accept", root)
	require.NoError(t, err)
	out, err := command(t, "check", root)
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(out, "runtime contract check passed\n"))
}

func TestAContractThatDoesNotBundleIsNamedWithItsPlace(t *testing.T) {
	t.Parallel()
	root := contractcopy.New(t, sources...)
	contractcopy.Apply(t, root, contractcopy.Edit{
		File: "openapi/events.yaml", Path: "components|schemas|RunStartedV1|properties|message_id", Value: "{$ref: '#/definitions/Gone'}",
	})
	for _, name := range []string{"generate", "check", "accept"} {
		_, err := command(t, name, root)
		require.ErrorContains(t, err, "openapi/events.yaml:")
		require.ErrorContains(t, err, "write #/components/schemas/<Name>")
	}
}

func TestUnknownCommandsPrintTheUsage(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"lint"}} {
		require.ErrorContains(t, run(context.Background(), args, &bytes.Buffer{}), "usage: contractgen <command>")
	}
}

// contractTree answers every file below root with its content.
func contractTree(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		files[path] = string(content)
		return err
	}))
	return files
}

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// A patch is worth something only as long as it applies and its test exists.
func TestEveryPatchAppliesAndNamesATest(t *testing.T) {
	t.Parallel()
	all, err := readPatches("patches")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(all), 15)
	short := 0
	for _, p := range all {
		check := exec.CommandContext(t.Context(), "git", "apply", "--check", p.File)
		check.Dir = "../.."
		out, err := check.CombinedOutput()
		require.NoError(t, err, "%s no longer applies; write it anew:\n%s", p.Name, out)
		require.Regexp(t, "^Test[A-Za-z0-9]+$", p.Run)
		if p.Short {
			short++
		}
		files, err := filepath.Glob(filepath.Join("../..", p.Package, "*_test.go"))
		require.NoError(t, err)
		require.True(t, anyHas(t, files, `(?m)^func `+p.Run+`\(`), "%s: %s has no %s", p.Name, p.Package, p.Run)
	}
	require.Equal(t, 3, short, "CI tries three")
}

func anyHas(t *testing.T, files []string, pattern string) bool {
	t.Helper()
	for _, f := range files {
		content, err := os.ReadFile(f)
		require.NoError(t, err)
		if regexp.MustCompile(pattern).Match(content) {
			return true
		}
	}
	return false
}

func TestAPatchWithoutItsHeaderIsRefused(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"nothing":     "",
		"no diff":     "Breaks: x\nPackage: ./p\nRun: TestX\n",
		"no test":     "Breaks: x\nPackage: ./p\ndiff --git a/x b/x\n",
		"no package":  "Breaks: x\nRun: TestX\ndiff --git a/x b/x\n",
		"more than a": "Breaks: x\nPackage: ./p\nRun: TestX\nWhy: y\ndiff --git a/x b/x\n",
	} {
		file := filepath.Join(t.TempDir(), "p.patch")
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
		_, err := readPatch(file)
		require.Error(t, err, name)
	}
}

// The verdicts, on a module of one function.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	dir := tree(t.TempDir())
	write := func(name, content string) string {
		t.Helper()
		file := filepath.Join(string(dir), name)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
		return file
	}
	write("go.mod", "module m\n\ngo 1.26\n")
	write("m.go", "package m\n\nfunc two() int { return 2 }\n")
	write("m_test.go", "package m\n\nimport \"testing\"\n\nfunc TestTwo(t *testing.T) {\n\tif two() < 2 {\n\t\tt.Error(\"less\")\n\t}\n}\n")
	mutation := func(from, to string) patch {
		diff := "diff --git a/m.go b/m.go\n--- a/m.go\n+++ b/m.go\n@@ -1,3 +1,3 @@\n package m\n \n-" + from + "\n+" + to + "\n"
		return patch{Name: to, File: write("p.patch", diff), Package: ".", Run: "TestTwo"}
	}
	const now = "func two() int { return 2 }"
	for to, want := range map[string]verdict{
		"func two() int { return 1 }": noticed,
		"func two() int { return 3 }": unnoticed,
		"func two() int { return x }": unbuilt,
	} {
		got, err := dir.try(t.Context(), mutation(now, to))
		require.NoError(t, err)
		require.Equal(t, want, got, to)
	}
	got, err := dir.try(t.Context(), mutation("func three() int { return 3 }", "x"))
	require.NoError(t, err)
	require.Equal(t, unapplied, got)
	require.NoError(t, dir.requireGreen(context.Background(), []patch{{Package: ".", Run: "TestTwo"}}), "every patch was taken back")
	require.Error(t, dir.requireGreen(context.Background(), []patch{{Package: ".", Run: "TestThree"}}))
}

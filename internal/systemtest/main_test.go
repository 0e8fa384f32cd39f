// Package systemtest runs the built program as its users do and watches it from outside.
package systemtest_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// program is the path of the program, built once for all tests.
func program(t *testing.T) string {
	t.Helper()
	path, err := build()
	require.NoError(t, err)
	return path
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "oa-systemtest-")
	if err != nil {
		return "", err
	}
	if err := errors.Join(removeAfterUs(dir), os.Chmod(dir, 0o755)); err != nil { // other users run it too
		return "", err
	}
	path := filepath.Join(dir, "openagents-runtime")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/openagents-runtime")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return path, nil
})

// removeAfterUs has a shell remove the folder when this process ends, however
// it ends: its input is a pipe that nobody writes to.
func removeAfterUs(dir string) error {
	cmd := exec.Command("sh", "-c", `cat >/dev/null; rm -rf "$1"`, "sh", dir)
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdin = in
	keptOpen = out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("watch over %s: %w", dir, err)
	}
	return in.Close()
}

// keptOpen is the other end of that pipe.
var keptOpen *os.File

package devdb_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAServerEndsWithItsKilledParent(t *testing.T) {
	t.Parallel()
	p := startParent(t, openDir(t), nil)
	pid := serverPID(t, p.url)
	require.NoError(t, syscall.Kill(pid, 0))

	require.NoError(t, p.cmd.Process.Kill())
	require.Eventually(t, func() bool {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}, 5*time.Second, 5*time.Millisecond, "the server %d outlived its parent", pid)
}

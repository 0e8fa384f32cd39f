package ledger_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/wallet/ledger"
)

func open(t *testing.T, path string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Path: path, BalanceSats: 500})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestOneProcessAtATimeHasALedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	first := open(t, path)
	_, err := ledger.Open(ledger.Config{Path: path})
	require.ErrorContains(t, err, "another process")
	require.NoError(t, first.Close())
	open(t, path)
}

// A process that is killed in the middle of a line has told nobody what it says.
func TestALineThatWasCutOffIsDropped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	l := open(t, path)
	node := l.NodeKey()
	_, _, err := l.Issue(1000, "", time.Hour)
	require.NoError(t, err)
	require.NoError(t, l.Close())

	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(whole, `{"balance":12`...), 0o600))
	l = open(t, path)
	require.Equal(t, int64(500_000), l.BalanceMsat())
	require.Equal(t, node, l.NodeKey())
	_, _, err = l.Issue(1000, "", time.Hour)
	require.NoError(t, err)
	require.NoError(t, l.Close())
	require.NoError(t, open(t, path).Close())

	require.NoError(t, os.WriteFile(path, []byte("{\n"), 0o600))
	_, err = ledger.Open(ledger.Config{Path: path})
	require.ErrorContains(t, err, "cannot be read")
}

func TestAmountsThatCannotBeAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []ledger.Config{{BalanceSats: -1}, {FeeMsat: -1}, {BalanceSats: 1 << 62}} {
		c.Path = filepath.Join(t.TempDir(), "ledger")
		_, err := ledger.Open(c)
		require.ErrorContains(t, err, "amount")
	}
}

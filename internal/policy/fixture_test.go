package policy_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

// The record that every language reads as an example is one that replays.
func TestTheFixtureReplays(t *testing.T) {
	t.Parallel()
	stored, err := os.ReadFile("../../schemas/ds/fixtures/policy_evaluation.v1.json")
	require.NoError(t, err)
	e, err := policy.Replay(stored)
	require.NoError(t, err)
	require.Equal(t, policy.NeedsApproval, e.Decision)
}

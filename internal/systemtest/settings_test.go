package systemtest_test

import (
	"net/http"
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// The same frame again and again ends a run as early as the settings say.
func TestTheCountsOfLoopsAreSettings(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t), "RUNTIME_LOOP_WARNING=2", "RUNTIME_LOOP_CRITICAL=3", "RUNTIME_LOOP_BREAKER=4", "RUNTIME_LOOP_WINDOW=5")
	runID := uuid.NewString()
	a := call(t, http.MethodPost, s.api, "/runs", map[string]any{
		"runId": runID, "threadId": runID, "userId": userID, "authenticatedSession": true, "keepOpen": true,
	})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	for n := range 3 {
		a := call(t, http.MethodPost, s.api, "/runs/"+runID+"/frames", map[string]any{
			"frameId": "f-" + strconv.Itoa(n), "type": "tool_result", "payload": map[string]any{"result": "the same"},
		})
		require.Equal(t, http.StatusAccepted, a.status, a.body)
	}
	require.Contains(t, stream(t, s.api, runID, 0).rest(t).body, done)
	got := call(t, http.MethodGet, s.api, "/runs/"+runID, nil)
	require.Contains(t, got.body, "loop_detected")
}

package systemtest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestTheMetricsPageIsWellFormedAndDoesNotGrowWithTheTraffic(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.URL(t))
	var ids []string
	traffic := func() {
		runID, threadID := startRun(t, s.api)
		ids = append(ids, runID, threadID)
		reading := stream(t, s.api, runID, 0)
		say(t, s.api, runID, "What is 6 times 7?")
		require.NoError(t, reading.rest(t).err)
		other := uuid.NewString()
		ids = append(ids, other)
		for _, what := range []string{"/runs/" + other, "/" + other, "/threads/" + other + "/state"} {
			call(t, http.MethodGet, s.api, what, nil)
		}
	}
	traffic()
	before := page(t, s)
	for range 5 {
		traffic()
	}
	after := page(t, s)

	problems, err := promlint.New(strings.NewReader(after)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	require.Equal(t, series(before), series(after), "a label's values grow with the traffic")
	for _, id := range ids {
		require.False(t, strings.Contains(after, id), id)
	}
	for _, name := range []string{"log_events_total", "http_requests_total", "runs_finished_total", "model_calls_total", "lease_acquires_total", "stream_readers"} {
		require.True(t, strings.Contains(after, "openagents_runtime_"+name), name)
	}
}

func page(t *testing.T, s *server) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.ops+"/metrics", nil)
	require.NoError(t, err)
	a := do(t, req)
	require.NoError(t, a.err)
	require.Equal(t, http.StatusOK, a.status)
	return a.body
}

// series are the names with labels of the page's own metrics, without values.
func series(page string) []string {
	var all []string
	for line := range strings.Lines(page) {
		if name, _, found := strings.Cut(line, " "); found && strings.HasPrefix(name, "openagents_runtime_") {
			all = append(all, name)
		}
	}
	return all
}

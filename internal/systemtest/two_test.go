package systemtest_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// What is compared: the whole body but for comment lines.
func TestTwoProcessesServeOneRunInTheSameBytes(t *testing.T) {
	t.Parallel()
	database := dbtest.URL(t)
	a, b := serve(t, database), serve(t, database)

	runID, _ := startRun(t, a.api)
	fromA, fromB := stream(t, a.api, runID, 0), stream(t, b.api, runID, 0)
	say(t, b.api, runID, "What is 6 times 7?")

	first, second := fromA.rest(t), fromB.rest(t)
	require.NoError(t, first.err)
	require.NoError(t, second.err)
	require.Contains(t, first.body, done)
	require.Contains(t, first.body, `"type":"text-delta"`)
	require.Equal(t, withoutComments(first.body), withoutComments(second.body))
	for _, base := range []string{a.api, b.api} {
		again := call(t, http.MethodGet, base, "/runs/"+runID+"/stream", nil)
		require.Equal(t, withoutComments(first.body), withoutComments(again.body), "a late reader")
	}
}

func TestATokenIsGoodOnceForAllProcesses(t *testing.T) {
	t.Parallel()
	database := dbtest.URL(t)
	a, b := serve(t, database), serve(t, database)
	runID, _ := startRun(t, a.api)

	once := request(t, http.MethodGet, a.api, "/runs/"+runID, nil)
	require.Equal(t, http.StatusOK, do(t, once).status)
	replayed := request(t, http.MethodGet, b.api, "/runs/"+runID, nil)
	replayed.Header = once.Header
	for _, answer := range []answer{do(t, replayed), do(t, once)} {
		require.Equal(t, http.StatusUnauthorized, answer.status, answer.body)
		require.Contains(t, answer.body, "nonce_replayed")
	}
}

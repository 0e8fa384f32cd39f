package contracttest_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// Laravel has one user for all guests; what tells them apart is the scope.
func TestTwoGuestsOfOneUserNeverMeet(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	guests := []string{"guest-a", "guest-b"}
	for _, g := range guests {
		start := contracttest.Request{Method: "POST", Target: "/internal/v1/runs", User: 1, Guest: g, Body: map[string]any{
			"runId": "run-of-" + g, "threadId": "shared", "userId": 1, "guestScope": g, "authenticatedSession": false,
		}}
		require.Equal(t, http.StatusAccepted, r.Do(t, start).Status)
		say := contracttest.Request{Method: "POST", Target: "/internal/v1/runs/run-of-" + g + "/frames", User: 1, Guest: g, Body: map[string]any{
			"frameId": "f1", "type": "user_message", "payload": map[string]any{"text": "said by " + g},
		}}
		require.Equal(t, http.StatusAccepted, r.Do(t, say).Status)
	}
	for i, g := range guests {
		other := guests[1-i]
		for _, target := range []string{"/internal/v1/runs", "/internal/v1/runs?threadId=shared", "/internal/v1/threads/shared/state"} {
			a := r.Do(t, contracttest.Request{Target: target, User: 1, Guest: g})
			require.Equal(t, http.StatusOK, a.Status)
			require.Contains(t, string(a.Body), "run-of-"+g)
			require.NotContains(t, string(a.Body), other)
		}
		a := r.Do(t, contracttest.Request{Target: "/internal/v1/runs/run-of-" + other, User: 1, Guest: g})
		require.Equal(t, "run_not_found", a.Code())
	}
	a := r.Do(t, contracttest.Request{Target: "/internal/v1/runs", User: 1})
	require.JSONEq(t, `{"runs":[]}`, string(a.Body), "the shared user owns none of them")
}

func TestAnOperatorSeesEverybodysRunsAndActsForOneWhenItSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	read := contracttest.Request{Scope: "operator", Nobody: true}
	for _, id := range []string{w.live, w.other, w.ofGuest} {
		read.Target = "/internal/v1/runs/" + id
		require.Equal(t, http.StatusOK, w.Do(t, read).Status)
	}
	read.Nobody, read.User = false, 2
	read.Target = "/internal/v1/runs/" + w.live
	require.Equal(t, "run_not_found", w.Do(t, read).Code())
}

func TestPagesHoldEachRunOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	w.startMany(t, 20)
	for _, target := range []string{"/internal/v1/runs?limit=4", "/internal/v1/threads/thread-2/state?limit=4"} {
		seen := map[string]int{}
		for page, token := 0, ""; ; page++ {
			require.Less(t, page, 20, "pages without end")
			next := target
			if token != "" {
				next += "&pageToken=" + token
			}
			var list struct {
				Runs          []struct{ RunID, ThreadID string }
				NextPageToken string
			}
			w.Do(t, contracttest.Request{Target: next}).Into(t, &list)
			for _, r := range list.Runs {
				seen[r.RunID]++
			}
			if token = list.NextPageToken; token == "" {
				break
			}
		}
		for id, times := range seen {
			require.Equal(t, 1, times, "%s in %s", id, target)
		}
		require.GreaterOrEqual(t, len(seen), 15, fmt.Sprint(seen))
	}
}

package contracttest_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// retained ends the story's run and returns its events page and stream.
func retained(t *testing.T, r *contracttest.Rig) (id string, of db.Run, page api.RunEventPage, whole string) {
	t.Helper()
	id = story(t, r)
	of, err := db.New(r.Pool).RunGet(t.Context(), id)
	require.NoError(t, err)
	script := runtest.Reply()
	r.Happen(t, of, script[len(script)-2:]...)
	r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/events"}).Into(t, &page)
	return id, of, page, string(r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream"}).Body)
}

func TestFoldingIsNotSeenThroughTheAPI(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	id, _, page, whole := retained(t, r)
	n, err := runlog.Retention{Pool: r.Pool}.Fold(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)

	var folded api.RunEventPage
	r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/events"}).Into(t, &folded)
	require.Equal(t, page, folded)
	require.Equal(t, whole, string(r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream"}).Body))
	var snapshot api.Run
	r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id}).Into(t, &snapshot)
	require.Equal(t, "Let me look. Paris. Rome", snapshot.AssistantMessage.Text)
}

// After deltas have aged out, an old cursor is told where to go on, and going on
// there works: by the snapshot, by the stream, and by pages whose chain begins
// at the kept hash.
func TestAStaleCursorIsToldHowToStartAgain(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	id, of, before, whole := retained(t, r)
	keep := runlog.Retention{Pool: r.Pool, Deltas: time.Nanosecond}
	_, err := keep.Fold(t.Context())
	require.NoError(t, err)
	n, err := keep.AgeOut(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, n)

	stale := r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream?cursor=4"})
	require.Equal(t, http.StatusGone, stale.Status)
	restart := stale.Header.Get("X-Oa-Restart-Cursor")
	floor, err := strconv.ParseInt(restart, 10, 64)
	require.NoError(t, err)
	require.Positive(t, floor)

	rest := string(r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream?cursor=" + restart}).Body)
	_, after, _ := strings.Cut(whole, "id: "+restart+"\n\n")
	require.NotEmpty(t, after)
	require.Contains(t, rest, after)

	require.Equal(t, http.StatusGone, r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/events?cursor=0"}).Status)
	var page api.RunEventPage
	r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/events?cursor=" + restart}).Into(t, &page)
	require.Equal(t, before.Events[floor:], page.Events)
	require.NotNil(t, page.Events[0].PrevHash)

	var snapshot api.Run
	r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id}).Into(t, &snapshot)
	require.Equal(t, []int64{floor, before.Head}, []int64{snapshot.Floor, snapshot.Head})
	_, err = runlog.Verify(t.Context(), r.Pool, of.RunKey, of.RunID)
	require.NoError(t, err)
}

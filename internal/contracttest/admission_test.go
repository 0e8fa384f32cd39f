package contracttest_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

func startOf(runID string) contracttest.Request {
	return contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: fmt.Sprintf(
		`{"runId":%q,"threadId":"t","userId":1,"authenticatedSession":true}`, runID)}
}

func frameOf(runID, frameID string) contracttest.Request {
	return contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + runID + "/frames",
		Body: fmt.Sprintf(`{"frameId":%q,"type":"note","payload":{}}`, frameID)}
}

func requireRefusal(t *testing.T, a contracttest.Answer, code api.ErrorCode) {
	t.Helper()
	require.Equal(t, string(code), a.Code(), "answered %d %s", a.Status, a.Body)
	require.Equal(t, "1", a.Header.Get("Retry-After"))
}

// refused brings more work than is let in, and checks that it is answered with
// a code.
func refused(t *testing.T, code api.ErrorCode) bool {
	t.Helper()
	return t.Run(string(code), map[api.ErrorCode]func(*testing.T){
		api.TooManyFrames: tooManyFrames, api.OwnerBusy: ownerBusy, api.Overloaded: overdue,
	}[code])
}

// A run takes so many unanswered frames; a repeat of one of them is answered.
func tooManyFrames(t *testing.T) {
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{Admission: server.AdmissionConfig{MaxWaitingFrames: 2}})
	require.Equal(t, 202, r.Do(t, startOf("r1")).Status)
	require.Equal(t, 202, r.Do(t, frameOf("r1", "f1")).Status)
	require.Equal(t, 202, r.Do(t, frameOf("r1", "f2")).Status)
	requireRefusal(t, r.Do(t, frameOf("r1", "f3")), api.TooManyFrames)
	require.Equal(t, 200, r.Do(t, frameOf("r1", "f2")).Status, "a repeat brings no work")
	require.Equal(t, 202, r.Do(t, startOf("r2")).Status, "other runs are not full")
}

// An owner has so many runs at work, told by the tick and by what came since.
func ownerBusy(t *testing.T) {
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{Admission: server.AdmissionConfig{MaxRunsPerOwner: 2}})
	for _, id := range []string{"r1", "r2", "r3"} {
		require.Equal(t, 202, r.Do(t, startOf(id)).Status)
	}
	require.Equal(t, 202, r.Do(t, frameOf("r1", "f1")).Status)
	require.NoError(t, r.Admission.Once(t.Context()))
	require.Equal(t, 202, r.Do(t, frameOf("r2", "f1")).Status)
	requireRefusal(t, r.Do(t, frameOf("r3", "f1")), api.OwnerBusy)
	requireRefusal(t, r.Do(t, startOf("r4")), api.OwnerBusy)
	require.Equal(t, 202, r.Do(t, frameOf("r1", "f2")).Status, "the run is at work already")
	require.Equal(t, 202, r.Do(t, startOf("r3")).Status, "the run was started before")
	other := startOf("r5")
	other.User = 2
	other.Body = `{"runId":"r5","threadId":"t","userId":2,"authenticatedSession":true}`
	require.Equal(t, 202, r.Do(t, other).Status, "another owner is not busy")
	// When they are done there is room again.
	for _, id := range []string{"r1", "r2"} {
		_, err := r.Pool.Exec(t.Context(), "UPDATE runs SET runnable = false WHERE run_id = $1", id)
		require.NoError(t, err)
	}
	require.NoError(t, r.Admission.Once(t.Context()))
	require.Equal(t, 202, r.Do(t, startOf("r4")).Status)
}

// When runs wait too long for an executor, new work is refused; what is read,
// and cancels, are not. When they are taken, work is let in again.
func overdue(t *testing.T) {
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{
		Admission: server.AdmissionConfig{OverdueRuns: 2, MaxWait: time.Hour},
	})
	for _, id := range []string{"r1", "r2"} {
		require.Equal(t, 202, r.Do(t, startOf(id)).Status)
		require.Equal(t, 202, r.Do(t, frameOf(id, "f1")).Status)
	}
	require.NoError(t, r.Admission.Once(t.Context()))
	require.Equal(t, 202, r.Do(t, frameOf("r1", "f2")).Status, "nothing is overdue yet")
	_, err := r.Pool.Exec(t.Context(), "UPDATE runs SET updated_at = updated_at - interval '2 hours'")
	require.NoError(t, err)
	require.NoError(t, r.Admission.Once(t.Context()))
	requireRefusal(t, r.Do(t, frameOf("r1", "f3")), api.Overloaded)
	requireRefusal(t, r.Do(t, startOf("r3")), api.Overloaded)
	require.Equal(t, 200, r.Do(t, contracttest.Request{Target: "/internal/v1/runs/r1"}).Status)
	require.Equal(t, 202, r.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/runs/r2/cancel"}).Status)
	one, err := r.Pool.Exec(t.Context(), "UPDATE runs SET updated_at = clock_timestamp() WHERE run_id = 'r1'")
	require.NoError(t, err)
	require.EqualValues(t, 1, one.RowsAffected())
	require.NoError(t, r.Admission.Once(t.Context()))
	require.Equal(t, 202, r.Do(t, frameOf("r1", "f3")).Status)
}

// A run that an executor holds does not wait, however old it is.
func TestAHeldRunIsNotOverdue(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{
		Admission: server.AdmissionConfig{OverdueRuns: 1, MaxWait: time.Minute},
	})
	held := runtest.Run(t, r.Pool)
	r.Process.Message(t, held, "f1", "Hi")
	_, err := r.Pool.Exec(t.Context(), "UPDATE runs SET updated_at = updated_at - interval '2 hours'")
	require.NoError(t, err)
	h, ok := runtest.Hold(t, r.Process, held)
	require.True(t, ok)
	require.Equal(t, 202, r.Do(t, startOf("r1")).Status)
	require.NoError(t, r.Admission.Once(t.Context()))
	require.Equal(t, 202, r.Do(t, startOf("r2")).Status)
	runtest.LetGo(h)
	require.NoError(t, r.Admission.Once(t.Context()))
	require.Equal(t, http.StatusAccepted, r.Do(t, startOf("r3")).Status, "it waits since it was let go")
}

package systemtest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// slowly has the builtin model take seconds over longQuestion, and executors
// that are lost be missed after one.
var slowly = []string{"MODEL_BUILTIN_DELAY=50ms", "RUNTIME_LEASE_TTL=1s"}

const longQuestion = "Convert to upper case: the quick brown fox jumps over the lazy dog and then it sits down in the tall grass to wait " +
	"for the evening while the river goes by and the birds come home to the old trees on the other side of the hill"

func TestARunOutlivesTheProcessThatExecutesIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		signal os.Signal
		exit   int
	}{
		"SIGTERM": {syscall.SIGTERM, 0},
		"SIGKILL": {syscall.SIGKILL, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := dbtest.New(t)
			a, b := serve(t, dbtest.URL(t), slowly...), serve(t, dbtest.URL(t), slowly...)
			runID, threadID := startRun(t, a.api)
			fromA, fromB := stream(t, a.api, runID, 0), stream(t, b.api, runID, 0)
			say(t, a.api, runID, longQuestion)
			fromA.until(t, `"delta":"QUICK`)
			fromB.until(t, `"delta":"QUICK`)

			victim, broken, survivor, steady := a, fromA, b, fromB
			if executing(t, pool, runID) == b.cmd.Process.Pid {
				victim, broken, survivor, steady = b, fromB, a, fromA
			}
			require.Equal(t, victim.cmd.Process.Pid, executing(t, pool, runID))
			victim.signal(t, c.signal)
			require.Equal(t, c.exit, victim.wait(t))

			before := broken.rest(t)
			require.ErrorIs(t, before.err, io.ErrUnexpectedEOF, "a stream that ends early is broken, not ended")
			require.NotContains(t, before.body, done)
			seen := blocks(t, before.body)
			require.NotEmpty(t, seen)
			resumed := stream(t, survivor.api, runID, seen[len(seen)-1].seq).rest(t)
			require.NoError(t, resumed.err)
			seen = append(seen, blocks(t, resumed.body)...)

			undisturbed := steady.rest(t)
			require.NoError(t, undisturbed.err)
			require.Contains(t, undisturbed.body, done)
			require.Equal(t, blocks(t, undisturbed.body), seen, "every part once, in order")
			require.Equal(t, "completed", statusOf(t, survivor.api, runID))
			require.Contains(t, lastMessage(t, survivor.api, threadID), "ON THE OTHER SIDE OF THE HILL")
			require.Equal(t, lastMessage(t, survivor.api, threadID), assembled(t, seen))
		})
	}
}

// executing is the process that holds a run.
func executing(t *testing.T, pool *pgxpool.Pool, runID string) int {
	t.Helper()
	var owner string
	require.NoError(t, pool.QueryRow(t.Context(),
		"SELECT lease_owner FROM run_leases JOIN runs USING (run_key) WHERE run_id = $1 AND NOT released", runID).Scan(&owner))
	_, pid, _ := strings.Cut(owner, ":")
	n, err := strconv.Atoi(pid)
	require.NoError(t, err, owner)
	return n
}

func statusOf(t *testing.T, base, runID string) string {
	t.Helper()
	var run struct{ Status string }
	require.NoError(t, json.Unmarshal([]byte(call(t, http.MethodGet, base, "/runs/"+runID, nil).body), &run))
	return run.Status
}

// lastMessage is the text of the newest message of a thread.
func lastMessage(t *testing.T, base, threadID string) string {
	t.Helper()
	body := call(t, http.MethodGet, base, "/threads/"+threadID+"/state", nil).body
	var state struct {
		Messages []struct{ Text string }
	}
	require.NoError(t, json.Unmarshal([]byte(body), &state))
	require.NotEmpty(t, state.Messages, body)
	return state.Messages[len(state.Messages)-1].Text
}

// assembled is the text that a client has at the end: the last text part, what
// came before it was taken back.
func assembled(t *testing.T, all []block) string {
	t.Helper()
	text := map[string]string{}
	last := ""
	for _, b := range all {
		for line := range strings.SplitSeq(b.text, "\n") {
			var part struct{ Type, ID, Delta string }
			data, found := strings.CutPrefix(line, "data: {")
			if !found {
				continue
			}
			require.NoError(t, json.Unmarshal([]byte("{"+data), &part))
			if part.Type == "text-delta" {
				last = part.ID
				text[part.ID] += part.Delta
			}
		}
	}
	return text[last]
}

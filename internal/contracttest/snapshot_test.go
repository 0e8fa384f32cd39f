package contracttest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// story is a run of two frames: the first is answered in two steps, of which
// one attempt was discarded; the answer to the second is being written.
func story(t *testing.T, r *contracttest.Rig) string {
	t.Helper()
	e := runtest.Envelope()
	e.RunID, e.ThreadID, e.KeepOpen = "run-1", "thread-1", true
	of := runtest.Start(t, r.Pool, e)
	r.Process.Message(t, of, "f1", "What is the capital of France?")
	used := func(tokens int64) event.PredictFinishedV1 {
		return event.PredictFinishedV1{ReceiptID: "r", SignatureID: "s", StrategyID: "direct.v1", CompiledID: "c", Status: "succeeded",
			Provider: "builtin", Model: "builtin", Usage: ds.UsageV1{InputTokens: tokens, OutputTokens: 1, TotalTokens: tokens + 1, ModelCalls: 1}}
	}
	r.Happen(t, of,
		event.RunStartedV1{MessageID: "msg-1"}, event.RunStepStartedV1{Step: 1, FrameID: "f1", Attempt: 1}, // 3, 4
		event.MessageStartedV1{PartID: "t1"}, event.MessageDeltaV1{PartID: "t1", Delta: "Lyon"}, // 5, 6
		event.MessageDiscardedV1{PartID: "t1"}, event.RunExecutorLostV1{LostEpoch: 1, Attempt: 1}, // 7, 8
		event.RunStepStartedV1{Step: 1, FrameID: "f1", Attempt: 2},                                       // 9
		event.MessageStartedV1{PartID: "t2"}, event.MessageDeltaV1{PartID: "t2", Delta: "Let me look. "}, // 10, 11
		event.MessageFinishedV1{PartID: "t2", Text: "Let me look. "}, used(10), event.RunStepFinishedV1{Step: 1, FinishReason: "tool-calls"},
		event.RunStepStartedV1{Step: 2, FrameID: "f1", Attempt: 1},                                             // 15
		event.MessageStartedV1{PartID: "t3"}, event.MessageFinishedV1{PartID: "t3", Text: "Paris. "}, used(20), // 16, 17, 18
		event.RunStepFinishedV1{Step: 2, FinishReason: "stop"}, event.FrameFinishedV1{FrameID: "f1", FrameSeq: 1}, // 19, 20
	)
	r.Process.Message(t, of, "f2", "And of Italy?") // 21
	r.Happen(t, of, event.RunStepStartedV1{Step: 3, FrameID: "f2", Attempt: 1}, event.MessageStartedV1{PartID: "t4"},
		event.MessageDeltaV1{PartID: "t4", Delta: "Ro"}, event.MessageDeltaV1{PartID: "t4", Delta: "me"})
	return e.RunID
}

func TestASnapshotIsTheLogAtItsCursor(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	id := story(t, r)
	var snapshot api.Run
	r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id}).Into(t, &snapshot)
	require.Equal(t, "Let me look. Paris. Rome", snapshot.AssistantMessage.Text, "what was discarded is gone, what is open is there")
	require.False(t, snapshot.AssistantMessage.Finished)
	require.Equal(t, ds.UsageV1{InputTokens: 30, OutputTokens: 2, TotalTokens: 32, ModelCalls: 2}, snapshot.Usage)
	require.Equal(t, []int64{25, 25, 2, 1}, []int64{snapshot.Head, snapshot.Cursor, snapshot.FramesAccepted, snapshot.FramesFinished})

	// A stream from the cursor goes on exactly after the snapshot.
	a := r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream?cursor=25", StopAfter: "\n\n"})
	require.NotContains(t, string(a.Body), "data:")
	a = r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/stream?cursor=24", StopAfter: "id: 25\n"})
	require.Contains(t, string(a.Body), `"delta":"me"`)
}

func TestAThreadIsWhatWasSaid(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	story(t, r)
	var state api.ThreadState
	r.Do(t, contracttest.Request{Target: "/internal/v1/threads/thread-1/state"}).Into(t, &state)
	var said []string
	for _, m := range state.Messages {
		said = append(said, string(m.Role)+": "+strings.TrimSpace(m.Text))
	}
	require.Equal(t, []string{"user: What is the capital of France?", "assistant: Let me look. Paris.", "user: And of Italy?", "assistant: Rome"}, said)
	require.Equal(t, "run-1", *state.ActiveRunID)
}

// The pages of the log are its hash chain: each event's prevHash is the
// eventHash before it, over the bounds of pages too.
func TestPagesOfTheLogChain(t *testing.T) {
	t.Parallel()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	id := story(t, r)
	prev, cursor := "", int64(0)
	for seen := int64(0); ; {
		var page api.RunEventPage
		a := r.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + id + "/events?limit=4&cursor=" + jsonOf(t, cursor)})
		require.Equal(t, http.StatusOK, a.Status)
		a.Into(t, &page)
		for _, e := range page.Events {
			seen++
			require.Equal(t, seen, e.Seq)
			if prev != "" {
				require.Equal(t, prev, *e.PrevHash, "event %d", e.Seq)
			}
			prev = e.EventHash
		}
		require.Equal(t, page.NextCursor == page.Head, page.UpToDate)
		require.False(t, page.Closed)
		if cursor = page.NextCursor; page.UpToDate {
			require.Equal(t, int64(25), seen)
			return
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return string(raw)
}

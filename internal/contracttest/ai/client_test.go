package ai_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest/ai"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// server serves the streams of a database.
type server struct {
	*runtest.Process
	h   *stream.Handler
	url string
}

func newServer(t *testing.T) *server {
	t.Helper()
	p := runtest.NewProcess(t, dbtest.New(t))
	h := stream.New(p.Pool, p.Watch, stream.Config{Retry: 10 * time.Millisecond}, p.Metrics)
	srv := httptest.NewServer(runtest.Streams(p.Pool, h))
	t.Cleanup(func() {
		h.Shutdown()
		srv.Close()
	})
	return &server{p, h, srv.URL}
}

func (s *server) target(r db.Run) ai.Target { return ai.Target{API: s.url + "/runs", RunID: r.RunID} }

// write appends a script event by event while the client reads.
func (s *server) write(t *testing.T, r db.Run, script []event.Event) (wait func()) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, e := range script[:len(script)-2] {
			s.Append(t, r, e)
			<-time.After(time.Millisecond) // so that the client's connections fall into the writing
		}
		s.Append(t, r, script[len(script)-2:]...) // the terminal event and stream.closed are one commit
	})
	return wg.Wait
}

// releases is how many releases take the parts.
var releases = map[string]int{"": 5, "ai5": 5, "ai6": 4, "ai7": 2}

// Every part of every fixture passes the schemas of all releases that take the
// dialect, and each assembles the message from it.
func TestEveryReleaseReadsEveryFixture(t *testing.T) {
	t.Parallel()
	for _, parts := range []string{"", "ai6", "ai7"} {
		t.Run(cmp.Or(parts, "every"), func(t *testing.T) {
			t.Parallel()
			readFixtures(t, parts)
		})
	}
}

func readFixtures(t *testing.T, parts string) {
	files, err := filepath.Glob("../../../openapi/fixtures/stream/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	s := newServer(t)
	wants, runIDs := map[string]expected{}, []string{}
	for _, file := range files {
		log := readFixture(t, file)
		if log[len(log)-1].EventType() != event.TypeStreamClosed {
			continue // it has no end that a client could wait for
		}
		r := runtest.Run(t, s.Pool)
		s.Append(t, r, log[1:]...) // the run has its run.accepted
		want := expect(log, parts)
		want.file = filepath.Base(file)
		wants[r.RunID], runIDs = want, append(runIDs, r.RunID)
	}
	readings := ai.ReadRuns(t, s.url+"/runs", parts, runIDs...)
	require.Len(t, readings, releases[parts]*len(runIDs))
	for _, got := range readings {
		want := wants[got.RunID]
		name := want.file + " in release " + got.Release
		require.True(t, got.Resumable, name)
		require.Equal(t, want.errors, got.Errors, name)
		require.Len(t, got.Parts, want.parts, name)
		if want.text+want.reasoning == "" {
			continue // a release without text may show no message
		}
		require.NotNil(t, got.Message, name)
		require.Equal(t, "message-1", got.Message.ID, name)
		require.Equal(t, want.text, got.Message.Text(), name)
		require.Equal(t, want.reasoning, got.Message.Reasoning(), name)
	}
}

func readFixture(t *testing.T, file string) []event.Event {
	t.Helper()
	raw, err := os.ReadFile(file)
	require.NoError(t, err)
	var f struct {
		Events []struct {
			EventType    string          `json:"event_type"`
			EventVersion int             `json:"event_version"`
			Payload      json.RawMessage `json:"payload"`
		} `json:"events"`
	}
	require.NoError(t, json.Unmarshal(raw, &f))
	var out []event.Event
	for _, e := range f.Events {
		v, err := event.Decode(e.EventType, e.EventVersion, e.Payload)
		require.NoError(t, err)
		out = append(out, v)
	}
	return out
}

type expected struct {
	file            string
	parts           int
	text, reasoning string
	errors          []string
}

// expect is what a client makes of a log. What was taken back stays with clients
// that are told by data-discard and do not read it.
func expect(log []event.Event, parts string) expected {
	want := expected{errors: []string{}}
	var before expected // the step
	for _, e := range log {
		switch e := e.(type) {
		case event.RunStepStartedV1:
			before = want
			if parts == "ai7" && e.Attempt > 1 {
				continue
			}
		case event.StepDiscardedV1:
			if parts == "ai7" {
				want.text, want.reasoning = before.text, before.reasoning
			}
		case event.MessageDeltaV1:
			want.text += e.Delta
		case event.ReasoningDeltaV1:
			want.reasoning += e.Delta
		case event.RunFinishedV1:
			if e.Status == event.RunFinishedV1StatusFailed {
				want.errors = append(want.errors, cmp.Or(e.Reason, "The run failed: "+e.ReasonClass+"."))
			}
		case event.RunAcceptedV1, event.FrameAppendedV1, event.FrameFinishedV1, event.PredictFinishedV1, event.RunWaitingV1,
			event.RunWokenV1, event.RunCancelRequestedV1, event.RunExecutorLostV1, event.RunRecoveredV1, event.StreamClosedV1,
			event.PolicyDecisionV1, event.ToolStartedV1, event.ToolLateV1, event.ToolCancelRequestedV1, event.ToolReplayedV1:
			continue
		}
		want.parts++
	}
	return want
}

// A release that took the broken stream for the whole message would show half
// an answer as a finished one.
func TestAStreamThatIsBrokenOffIsAnErrorInEveryRelease(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	script := runtest.Reply("Half ", "an answer", " and its end")
	s.Append(t, r, script[:5]...)
	var wg sync.WaitGroup
	wg.Go(func() {
		const blocks = 5 * 6 // five releases, run.accepted and the five
		assert.Eventually(t, func() bool { return s.sent(t) == blocks }, time.Minute, 10*time.Millisecond)
		s.h.Shutdown()
	})
	readings := ai.Read(t, s.target(r))
	wg.Wait()
	for _, got := range readings {
		require.Len(t, got.Errors, 1, got.Release)
		require.Equal(t, "Half an answer", got.Message.Text(), got.Release)
	}
}

// sent is how many blocks readers were given.
func (s *server) sent(t *testing.T) float64 {
	families, err := s.Metrics.Registry.Gather()
	assert.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "openagents_runtime_stream_blocks_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

func TestAnEndedRunIsNothingToResume(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	last := s.Append(t, r, runtest.Reply("a")...).LastSeq
	target := s.target(r)
	target.Headers = map[string]string{"last-event-id": fmt.Sprint(last)}
	for _, got := range ai.Read(t, target) {
		require.False(t, got.Resumable, got.Release)
	}
}

// deltas are texts whose characters take one to four bytes, so that cuts fall
// into them.
func deltas() ([]string, string) {
	var out []string
	for i := range 60 {
		out = append(out, fmt.Sprintf("%d é漢😀\n", i))
	}
	return out, strings.Join(out, "")
}

// cuts are places in the first bytes of connections, far enough in that each
// connection gets a client on.
func cuts(t *testing.T, n int) []int {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed of the cuts: %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	out := make([]int, n)
	for i := range out {
		out[i] = 150 + r.IntN(400)
	}
	return out
}

func TestEveryReleaseGoesOnFromTheLastEventAfterACut(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	texts, whole := deltas()
	wait := s.write(t, r, runtest.Reply(texts...))
	readings := ai.Read(t, s.target(r), cuts(t, 12)...)
	wait()

	require.Len(t, readings, releases[""])
	for _, got := range readings {
		require.Empty(t, got.Errors, got.Release)
		require.Len(t, got.Parts, len(texts)+6, got.Release)
		require.Equal(t, whole, got.Message.Text(), got.Release)
		require.Len(t, got.Requests, 13, got.Release)
		last := int64(0)
		for _, q := range got.Requests[1:] {
			last = after(t, q.LastEventID, last)
		}
	}
}

// after reads an id, which must come after another.
func after(t *testing.T, id string, last int64) int64 {
	t.Helper()
	n, err := strconv.ParseInt(id, 10, 64)
	require.NoError(t, err)
	require.Greater(t, n, last)
	return n
}

func TestAChatThatReadsAgainAfterACutDoublesNothing(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	texts, whole := deltas()
	wait := s.write(t, r, runtest.Reply(texts...))
	got := ai.Replay(t, s.target(r), 300, 700, 1500, 2600)
	wait()

	require.Empty(t, got.Error)
	require.Equal(t, "ready", got.Status)
	require.Len(t, got.Messages, 1)
	require.Equal(t, "message-1", got.Messages[0].ID)
	require.Equal(t, whole, got.Messages[0].Text())
	require.Len(t, got.Finishes, 5)
	for _, f := range got.Finishes[:4] {
		require.True(t, f.IsDisconnect)
	}
	require.Equal(t, "stop", got.Finishes[4].FinishReason)
	for _, q := range got.Requests {
		require.Empty(t, q.LastEventID)
	}
}

// It sends its first cursor again with every request, beside Last-Event-ID.
func TestAnEventSourceReconnectsUntilThereIsNothingMore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	texts, whole := deltas()
	wait := s.write(t, r, runtest.Reply(texts...))
	got := ai.EventSource(t, s.target(r), cuts(t, 8)...)
	wait()

	require.Len(t, got.Requests, 10, "the first, one after each of 8 cuts, and one after the end")
	for i, q := range got.Requests {
		require.True(t, strings.HasSuffix(q.URL, "/stream?cursor=0"), q.URL)
		require.Equal(t, i > 0, q.LastEventID != "")
	}
	require.Equal(t, http.StatusNoContent, got.Requests[9].Status)

	text, last := "", int64(0)
	for _, e := range got.Events {
		last = after(t, e.LastEventID, last) // none twice, none out of order
		var part struct{ Type, Delta string }
		if e.Data != "[DONE]" {
			require.NoError(t, json.Unmarshal([]byte(e.Data), &part))
		}
		if part.Type == "text-delta" {
			text += part.Delta
		}
	}
	require.Equal(t, whole, text)
	require.Equal(t, "[DONE]", got.Events[len(got.Events)-1].Data)
}

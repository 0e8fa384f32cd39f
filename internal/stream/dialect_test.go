package stream_test

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func (g *rig) readIn(t testing.TB, r db.Run, dialect string, cursor int64) string {
	resp, err := g.srv.Client().Get(g.url(r) + "?parts=" + dialect + "&cursor=" + strconv.FormatInt(cursor, 10))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return events(string(body))
}

// broken is events of steps that are taken back and begun anew, in any order.
var broken = rapid.SliceOfN(rapid.SampledFrom([]event.Event{
	event.MessageDeltaV1{PartID: "text-1", Delta: "word"},
	event.RunStepStartedV1{Step: 1, FrameID: "frame-1", Attempt: 1},
	event.RunStepStartedV1{Step: 1, FrameID: "frame-1", Attempt: 2},
	event.StepDiscardedV1{Step: 1, FromSeq: 4, ToSeq: 9, Reason: event.StepDiscardedV1ReasonModelFailed},
}), 0, 30)

// Readers of one run share its blocks, whichever dialects they take: each gets
// its own, at the log's end as later from any cursor.
func TestEveryReaderGetsItsDialect(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{KeepBytes: 400, MaxReaders: 1000})
	rapid.Check(t, func(rt *rapid.T) {
		between, batch := broken.Draw(rt, "events"), rapid.IntRange(1, 9).Draw(rt, "events per commit")
		r := runtest.Run(t, g.Pool)
		reply := runtest.Reply("whole")
		ends := len(reply) - 2 // the terminal event and stream.closed are one commit

		live := make([]string, len(dialects))
		var wg sync.WaitGroup
		for i, name := range dialects {
			wg.Go(func() { live[i] = g.readIn(t, r, name, 0) })
		}
		script := append(append([]event.Event{}, between...), reply[:ends]...)
		for len(script) > 0 {
			n := min(batch, len(script))
			g.Append(t, r, script[:n]...)
			script = script[n:]
		}
		last := g.Append(t, r, reply[ends:]...).LastSeq
		wg.Wait()

		cursor := rapid.Int64Range(1, last-1).Draw(rt, "cursor")
		for i, name := range dialects {
			d, known := stream.DialectNamed(name)
			require.True(rt, known)
			whole := g.wantedIn(t, r, d)
			require.Equal(rt, whole, live[i], name)
			_, rest, found := strings.Cut(whole, fmt.Sprintf("id: %d\n\n", cursor))
			require.True(rt, found)
			require.Equal(rt, rest, g.readIn(t, r, name, cursor), name)
		}
	})
}

func TestAnUnknownDialectIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ai8", "AI7", "ai5,ai7", " ai5"} {
		_, known := stream.DialectNamed(name)
		require.False(t, known, name)
	}
}

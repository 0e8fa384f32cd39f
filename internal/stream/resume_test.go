package stream_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// wanted is the stream of a run, computed from its log alone.
func (g *rig) wanted(t testing.TB, r db.Run) string {
	t.Helper()
	return g.wantedIn(t, r, stream.AI5)
}

func (g *rig) wantedIn(t testing.TB, r db.Run, d stream.Dialect) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, runlog.Each(t.Context(), g.Pool, r.RunKey, 0, func(row db.RunLog) error {
		b, err := stream.Part(row, d)
		out.Write(b)
		return err
	}))
	return out.String()
}

func words(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("word%d ", i)
	}
	return out
}

func TestEveryCursorGivesTheRest(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	ack := g.Append(t, r, runtest.Reply(words(20)...)...)
	whole := g.readAll(t, r, 0)
	require.Equal(t, g.wanted(t, r), whole)
	require.True(t, strings.HasSuffix(whole, fmt.Sprintf("data: [DONE]\nid: %d\n\n", ack.LastSeq)))

	for cursor := int64(1); cursor < ack.LastSeq; cursor++ {
		_, rest, found := strings.Cut(whole, fmt.Sprintf("id: %d\n\n", cursor))
		require.True(t, found)
		require.Equal(t, rest, g.readAll(t, r, cursor))
	}
}

func TestALongLogIsReadPageByPage(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply(words(2000)...)...)
	require.Equal(t, g.wanted(t, r), g.readAll(t, r, 0))
}

// Wherever the connection breaks, in the middle of a block too, the parts
// joined together are those of one undisturbed read, while the run goes on.
func TestAnyDisconnectionsLoseAndRepeatNothing(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{KeepBytes: 400, MaxReaders: 1000})
	rapid.Check(t, func(rt *rapid.T) {
		texts := rapid.SliceOfN(hostile, 0, 30).Draw(rt, "deltas")
		cuts := rapid.SliceOfN(rapid.IntRange(0, 900), 0, 8).Draw(rt, "bytes until each cut")
		batch := rapid.IntRange(1, 7).Draw(rt, "events per commit")
		r := runtest.Run(t, g.Pool)
		script := runtest.Reply(texts...)

		var wg sync.WaitGroup
		wg.Go(func() {
			for len(script) > 0 {
				n := min(batch, len(script))
				if n >= len(script)-2 {
					n = len(script) // the terminal event and stream.closed are one commit
				}
				g.Append(t, r, script[:n]...)
				script = script[n:]
			}
		})
		var joined strings.Builder
		cursor := int64(0)
		for _, c := range cuts {
			if cursor = g.readSome(t, r, cursor, c, &joined); cursor < 0 {
				break
			}
		}
		if cursor >= 0 {
			require.Negative(rt, g.readSome(t, r, cursor, -1, &joined))
		}
		wg.Wait()
		require.Equal(rt, g.wanted(t, r), joined.String())
	})
}

// readSome reads about so many bytes of a stream, or to its end when negative,
// and returns the cursor to go on from: negative after [DONE]. Like a client it
// keeps whole blocks only.
func (g *rig) readSome(t testing.TB, r db.Run, cursor int64, limit int, into *strings.Builder) int64 {
	resp := g.get(t, r, cursor)
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return -1
	}
	require.Equal(t, http.StatusOK, resp.StatusCode)
	body := blocksOf(resp)
	if limit >= 0 {
		body = blocks{bufio.NewReader(io.LimitReader(resp.Body, int64(limit)))}
	}
	for {
		block, err := body.next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return cursor
		}
		require.NoError(t, err)
		into.WriteString(block)
		_, id, _ := strings.Cut(block, "id: ")
		_, err = fmt.Sscanf(id, "%d", &cursor)
		require.NoError(t, err)
		if strings.HasPrefix(block, "data: [DONE]\n") {
			return -1
		}
	}
}

func TestTwoProcessesGiveTheSameBytes(t *testing.T) {
	t.Parallel()
	a := newRigOn(t, dbtest.New(t), stream.Config{})
	b := newRigOn(t, secondPool(t), stream.Config{KeepBytes: 1})
	go tick(t, a)
	go tick(t, b)
	r := runtest.Run(t, a.Pool)

	bodies := make([]string, 6)
	var wg sync.WaitGroup
	for i := range bodies {
		g := []*rig{a, b}[i%2]
		wg.Go(func() { bodies[i] = g.readAll(t, r, 0) })
	}
	script := runtest.Reply(words(30)...)
	for i, e := range script[:len(script)-2] {
		[]*rig{a, b}[i%2].Append(t, r, e)
	}
	b.Append(t, r, script[len(script)-2:]...)
	wg.Wait()
	for _, body := range bodies {
		require.Equal(t, a.wanted(t, r), body)
	}
}

func TestAReaderBehindTheKeptEventsReadsTheLog(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{KeepBytes: 1})
	r := runtest.Run(t, g.Pool)
	live := blocksOf(g.get(t, r, 1))
	script := runtest.Reply(words(300)...)
	got := ""
	for i := 0; i < len(script); i += 100 {
		last := g.Append(t, r, script[i:min(i+100, len(script))]...).LastSeq
		if i == 0 {
			got = live.until(t, last)
		}
	}
	rest, err := io.ReadAll(live.r)
	require.NoError(t, err)
	require.Equal(t, g.wanted(t, r), "id: 1\n\n"+got+events(string(rest)))
}

func TestARunThatStaysOpenIsFollowedOn(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	e := runtest.Envelope()
	e.KeepOpen = true
	r := runtest.Start(t, g.Pool, e)
	live := blocksOf(g.get(t, r, 0))
	for range 3 {
		script := runtest.Reply("again")
		last := g.Append(t, r, script[1:len(script)-2]...).LastSeq
		live.until(t, last)
		last = g.Append(t, r, event.RunWaitingV1{WaitsFor: event.RunWaitingV1WaitsForFrame}).LastSeq
		live.until(t, last)
	}
	require.InDelta(t, 1, g.count(t, "stream_readers", ""), 0)
}

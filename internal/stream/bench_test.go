package stream_test

import (
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// BenchmarkPartOfADelta compares the way from a canonical payload with the one
// that decodes and encodes.
func BenchmarkPartOfADelta(b *testing.B) {
	for _, text := range []string{" word", strings.Repeat("a line of \"code\"\n", 60)} {
		payload, err := canon.Marshal(event.MessageDeltaV1{PartID: "text-1", Delta: text})
		require.NoError(b, err)
		for name, p := range map[string][]byte{"canonical": payload, "decoded": append([]byte(" "), payload...)} {
			row := db.RunLog{Seq: 4711, EventType: event.TypeMessageDelta, EventVersion: 1, Payload: p}
			b.Run(name+"/"+strconv.Itoa(len(text))+"B", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := stream.Part(row, stream.AI5); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkReplay reads a run of 5,000 events over HTTP from its beginning.
func BenchmarkReplay(b *testing.B) {
	const deltas = 5000
	g := newRig(b, stream.Config{})
	r := runtest.Run(b, g.Pool)
	last := g.Append(b, r, runtest.Reply(words(deltas)...)...).LastSeq
	var bytes int64
	for b.Loop() {
		resp, err := g.srv.Client().Get(g.url(r))
		require.NoError(b, err)
		if bytes, err = io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		require.NoError(b, resp.Body.Close())
	}
	b.SetBytes(bytes)
	b.ReportMetric(float64(last)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

package stream_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// A client that resumes from any seq gets the same bytes whether the run's
// deltas are there or folded.
func TestEveryCursorGivesTheSameBytesBeforeAndAfterFolding(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	script := runtest.Reply(append(words(300), `"quoted"`, `back\slash`, "line\nend", "\u2028", "", "😀")...)
	g.Append(t, r, script[:2]...)
	g.Append(t, r, event.ReasoningStartedV1{PartID: "r"}, event.ReasoningDeltaV1{PartID: "r", Delta: "why "},
		event.ReasoningDeltaV1{PartID: "r", Delta: "not"}, event.ReasoningFinishedV1{PartID: "r"})
	ack := g.Append(t, r, script[2:]...)
	before := make([]string, ack.LastSeq)
	for cursor := range before {
		before[cursor] = g.readAll(t, r, int64(cursor))
	}
	require.Equal(t, g.wanted(t, r), before[0])

	_, err := runlog.Retention{Pool: g.Pool}.Fold(t.Context())
	require.NoError(t, err)
	var raw int
	require.NoError(t, g.Pool.QueryRow(t.Context(), "SELECT count(*) FROM run_log_deltas").Scan(&raw))
	require.Zero(t, raw)
	for cursor := range before {
		require.Equal(t, before[cursor], g.readAll(t, r, int64(cursor)), cursor)
	}
}

// A client that was cut off while it read raw deltas reads on in folded ones.
func TestAStreamThatBreaksWhileItsRunFoldsGoesOn(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply(words(400)...)...)
	whole := g.wanted(t, r)
	var joined strings.Builder
	cursor := g.readSome(t, r, 0, 4000, &joined)
	_, err := runlog.Retention{Pool: g.Pool}.Fold(t.Context())
	require.NoError(t, err)
	require.Negative(t, g.readSome(t, r, cursor, -1, &joined))
	require.Equal(t, whole, joined.String())
}

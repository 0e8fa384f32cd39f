package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestAWellFormedTraceIsKept(t *testing.T) {
	t.Parallel()
	got := telemetry.NewTrace(parent, "vendor=1", "req-1")
	require.Equal(t, telemetry.Trace{Parent: parent, State: "vendor=1", RequestID: "req-1"}, got)
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", got.TraceID())
}

func TestAMalformedTraceIsReplacedAndNeverRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "garbage", strings.ToUpper(parent), parent + "\r\nx: y", parent + "-00", strings.Repeat("0", 4096),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"ff" + parent[2:],
	} {
		got := telemetry.NewTrace(bad, "vendor=1", "req-1")
		require.Len(t, got.TraceID(), 32, bad)
		require.NotEqual(t, bad, got.Parent)
		require.Empty(t, got.State, "the state belongs to the trace that was refused")
	}
	for _, bad := range []string{"", "a b", "a\nb", strings.Repeat("a", 129), "ü", `"`} {
		got := telemetry.NewTrace(parent, "", bad).RequestID
		require.NotEqual(t, bad, got)
		require.Regexp(t, `^req_[0-9a-f]{24}$`, got)
	}
	for _, bad := range []string{"no equals", "a=b\r\nc", strings.Repeat("a=", 400)} {
		require.Empty(t, telemetry.NewTrace(parent, bad, "r").State)
	}
}

func TestAnOutgoingCallIsANewSpanOfTheSameTrace(t *testing.T) {
	t.Parallel()
	in := telemetry.NewTrace(parent, "vendor=1", "req-1")
	out := in.Outgoing()
	require.Equal(t, in.TraceID(), out.TraceID())
	require.NotEqual(t, in.Parent, out.Parent)
	require.Equal(t, out.Parent, telemetry.NewTrace(out.Parent, "", "").Parent)
	require.Equal(t, in.RequestID, out.RequestID)
}

func TestEveryLogLineCarriesItsTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo).With("room", "test")
	ctx := telemetry.WithTrace(context.Background(), telemetry.NewTrace(parent, "", "req-1"))
	log.InfoContext(ctx, "line\nwith a break")
	require.Equal(t, 1, strings.Count(out.String(), "\n"), "one event is one line")
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", line["trace_id"])
	require.Equal(t, "req-1", line["x_request_id"])
	require.Equal(t, "test", line["room"])
}

package stream_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

var update = flag.Bool("update", false, "write the streams into the fixtures")

const fixtures = "../../openapi/fixtures/stream"

type fixture struct {
	Events []struct {
		EventType    string          `json:"event_type"`
		EventVersion int32           `json:"event_version"`
		Payload      json.RawMessage `json:"payload"`
	} `json:"events"`
	SSE string `json:"sse"`
	// Dialects has the streams that are not as in the dialect before.
	Dialects map[string]string `json:"dialects,omitempty"`
}

// dialects are all, in order.
var dialects = []string{"ai5", "ai6", "ai7"}

func TestALogGivesTheBytesOfItsFixture(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(fixtures + "/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			var f fixture
			require.NoError(t, json.Unmarshal(raw, &f))

			got := f
			got.SSE, got.Dialects = f.stream(t, "ai5"), nil
			for i, name := range dialects[1:] {
				if sse := f.stream(t, name); sse != f.stream(t, dialects[i]) {
					if got.Dialects == nil {
						got.Dialects = map[string]string{}
					}
					got.Dialects[name] = sse
				}
			}
			if *update {
				var out bytes.Buffer
				enc := json.NewEncoder(&out)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				require.NoError(t, enc.Encode(got))
				require.NoError(t, os.WriteFile(file, out.Bytes(), 0o600))
				return
			}
			require.Equal(t, f, got, "go test ./internal/stream -run Fixture -update writes the fixture anew")
		})
	}
}

func (f fixture) stream(t *testing.T, dialect string) string {
	d, known := stream.DialectNamed(dialect)
	require.True(t, known)
	var out strings.Builder
	for i, e := range f.Events {
		b, err := stream.Part(row(t, int64(i+1), e.EventType, e.EventVersion, e.Payload), d)
		require.NoError(t, err)
		out.Write(b)
	}
	return out.String()
}

// row is an event as the log holds it. Its payload must be all that its type
// has, so that a fixture is a payload that could be stored.
func row(t rapid.TB, seq int64, eventType string, version int32, payload []byte) db.RunLog {
	e, err := event.Decode(eventType, int(version), payload)
	require.NoError(t, err)
	stored, err := canon.Marshal(e)
	require.NoError(t, err)
	require.JSONEq(t, string(payload), string(stored))
	return db.RunLog{Seq: seq, EventType: eventType, EventVersion: version, Payload: stored}
}

func part(t rapid.TB, r db.RunLog) []byte {
	b, err := stream.Part(r, stream.AI5)
	require.NoError(t, err)
	return b
}

func TestEveryEventOfTheContractHasItsPart(t *testing.T) {
	t.Parallel()
	for _, name := range event.Types() {
		for v := 1; v <= event.Latest(name); v++ {
			payload := []byte(`{"status":"completed"}`) // the one member without which there is no part
			for _, d := range []stream.Dialect{stream.AI5, stream.AI6, stream.AI7} {
				b, err := stream.Part(db.RunLog{Seq: 7, EventType: name, EventVersion: int32(v), Payload: payload}, d)
				require.NoError(t, err)
				require.True(t, bytes.HasSuffix(b, []byte("id: 7\n\n")), "%s: %s", name, b)
			}
		}
	}
}

// A client that was sent past an event which this program cannot read would
// never get it.
func TestAnUnknownEventIsNotPassedOver(t *testing.T) {
	t.Parallel()
	for _, r := range []db.RunLog{
		{Seq: 1, EventType: "tomorrow.happened", EventVersion: 1, Payload: []byte(`{}`)},
		{Seq: 1, EventType: event.TypeMessageDelta, EventVersion: 99, Payload: []byte(`{"delta":"a","part_id":"p"}`)},
		{Seq: 1, EventType: event.TypeMessageDelta, EventVersion: 1, Payload: []byte(`{"delta":"a","part_id":"p`)},
		{Seq: 1, EventType: event.TypeRunFinished, EventVersion: 1, Payload: []byte(`{"status":"exploded"}`)},
	} {
		_, err := stream.Part(r, stream.AI5)
		require.Error(t, err, "%s %s", r.EventType, r.Payload)
	}
}

// What a hostile text would need to begin a line, a field or a block of its own.
var hostile = rapid.StringOf(rapid.OneOf(
	rapid.SampledFrom([]rune("\r\n\u0085\u2028\u2029\v\f\x00\x1c\x1d\x1e\\\"/:{} aé€😀\ufeff\ufffd")),
	rapid.Rune(),
))

func TestNoTextBreaksOutOfItsBlock(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := hostile.Draw(t, "text") + rapid.SampledFrom([]string{"", "\n\nid: 9\n\n", "\r\rdata: [DONE]\r\r", "\ndata: {}"}).Draw(t, "attack")
		id := hostile.Draw(t, "id")
		stop := event.RunFinishedV1FinishReason(text)
		for _, e := range []event.Event{
			event.MessageDeltaV1{PartID: id, Delta: text},
			event.ReasoningDeltaV1{PartID: id, Delta: text},
			event.MessageStartedV1{PartID: id},
			event.MessageFinishedV1{PartID: id, Text: text},
			event.MessageDiscardedV1{PartID: id},
			event.ReasoningStartedV1{PartID: id},
			event.ReasoningFinishedV1{PartID: id},
			event.RunStartedV1{MessageID: id},
			event.RunFinishedV1{Status: event.RunFinishedV1StatusFailed, Reason: text + "!"},
			event.RunFinishedV1{Status: event.RunFinishedV1StatusCompleted, FinishReason: &stop},
		} {
			payload, err := canon.Marshal(e)
			require.NoError(t, err)
			b := string(part(t, db.RunLog{Seq: 5, EventType: e.EventType(), EventVersion: 1, Payload: payload}))

			require.False(t, strings.ContainsAny(b, "\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"), "%q", b)
			data, isData := strings.CutPrefix(b, "data: ")
			require.True(t, isData)
			data, hasID := strings.CutSuffix(data, "\nid: 5\n\n")
			require.True(t, hasID)
			require.NotContains(t, data, "\n")
			var m map[string]string
			require.NoError(t, json.Unmarshal([]byte(data), &m))
			switch e := e.(type) {
			case event.MessageDeltaV1:
				require.Equal(t, map[string]string{"type": "text-delta", "id": id, "delta": text}, m)
			case event.ReasoningDeltaV1:
				require.Equal(t, map[string]string{"type": "reasoning-delta", "id": id, "delta": text}, m)
			case event.RunFinishedV1:
				if e.Status == event.RunFinishedV1StatusFailed {
					require.Equal(t, e.Reason, m["errorText"])
				}
			}
		}
	})
}

// What tools and people say stays within its part, whatever it is.
func TestNoToolBreaksOutOfItsBlock(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := hostile.Draw(t, "text") + rapid.SampledFrom([]string{"", "\n\nid: 9\n\n", "\r\rdata: [DONE]\r\r"}).Draw(t, "attack")
		input := map[string]any{hostile.Draw(t, "name"): []any{text, nil, true, 0.5, map[string]any{text: text}}}
		by := rapid.SampledFrom([]string{"model", "api"}).Draw(t, "by")
		state := rapid.SampledFrom([]event.ToolFinishedV1State{"succeeded", "failed", "canceled", "timed_out"}).Draw(t, "state")
		class := rapid.SampledFrom([]string{"approval_rejected", text}).Draw(t, "class")
		decided := rapid.SampledFrom([]event.ApprovalDecidedV1State{"approved", "rejected", "expired", "canceled"}).Draw(t, "decided")
		for _, e := range []event.Event{
			event.ToolRequestedV1{ToolCallID: text, ToolName: text, RequestedBy: event.ToolRequestedV1RequestedBy(by), Input: input},
			event.ToolProgressedV1{ToolCallID: text, RequestedBy: (*event.ToolProgressedV1RequestedBy)(&by), Output: input},
			event.ToolFinishedV1{ToolCallID: text, ToolName: text, RequestedBy: (*event.ToolFinishedV1RequestedBy)(&by), State: state,
				Output: input, ErrorClass: &class, ErrorMessage: &text},
			event.ApprovalRequestedV1{ApprovalID: text, ToolCallID: &text, RequestedBy: (*event.ApprovalRequestedV1RequestedBy)(&by), Title: text},
			event.ApprovalDecidedV1{ApprovalID: text, ToolCallID: &text, RequestedBy: (*event.ApprovalDecidedV1RequestedBy)(&by), State: decided, Reason: &text},
		} {
			payload, err := canon.Marshal(e)
			require.NoError(t, err)
			for _, d := range []stream.Dialect{stream.AI5, stream.AI6, stream.AI7} {
				block, err := stream.Part(db.RunLog{Seq: 5, EventType: e.EventType(), EventVersion: 1, Payload: payload}, d)
				require.NoError(t, err)
				b := string(block)
				require.False(t, strings.ContainsAny(b, "\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"), "%q", b)
				data, isData := strings.CutPrefix(b, "data: ")
				require.True(t, isData)
				data, hasID := strings.CutSuffix(data, "\nid: 5\n\n")
				require.True(t, hasID)
				require.NotContains(t, data, "\n")
				var m map[string]any
				require.NoError(t, json.Unmarshal([]byte(data), &m))
				if of, nested := m["data"].(map[string]any); nested {
					m = of
				}
				if e, asked := e.(event.ToolRequestedV1); asked {
					require.Equal(t, any(e.ToolName), m["toolName"])
					require.Equal(t, any(input), m["input"])
				}
			}
		}
	})
}

// The log's bytes are streamed as they are; decoding and encoding them must
// give the same.
func TestTheShortWayOfADeltaGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := event.MessageDeltaV1{PartID: hostile.Draw(t, "id"), Delta: hostile.Draw(t, "delta")}
		payload, err := canon.Marshal(e)
		require.NoError(t, err)
		spaced := append([]byte(" "), payload...) // no canonical form, so it is decoded
		r := db.RunLog{Seq: 1, EventType: e.EventType(), EventVersion: 1, Payload: payload}
		short := part(t, r)
		r.Payload = spaced
		require.Equal(t, string(part(t, r)), string(short))
	})
}

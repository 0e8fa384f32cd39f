package timeline

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
)

// place is where a search goes on: before an event of a run.
type place struct {
	run    uuid.UUID
	before int64
}

func (p place) String() string {
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(p.run[:], uint64(p.before)))
}

func parsePlace(s string) (p place, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(p.run)+8 {
		return p, false
	}
	copy(p.run[:], raw)
	p.before = int64(binary.BigEndian.Uint64(raw[len(p.run):]))
	return p, p.before > 0
}

// asked are the parts of words that the database looks for, as they stand in
// canonical JSON. What the cases of letters beyond ASCII are depends on how a
// database was made, so words are parted at these; the whole words are looked for
// in what is found.
func asked(words []string) []string {
	parts := []string{}
	for _, w := range words {
		for _, part := range strings.FieldsFunc(w, func(r rune) bool {
			return r > unicode.MaxASCII && (unicode.ToLower(r) != r || unicode.ToUpper(r) != r)
		}) {
			parts = append(parts, escaped(part))
		}
	}
	return parts
}

func escaped(text string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil { // a text has a form
		return text
	}
	return strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
}

// hit is what is shown of an event. It is none when the words are in what nobody
// said: in a member's name, or in a search like this one.
func (w *walk) hit(runID string, row db.RunLogSearchRow) (hit, bool) {
	text, role, ok := said(row)
	if !ok {
		return hit{}, false
	}
	words := w.words
	if !row.Whole { // the others are elsewhere in it
		words = words[:1]
	}
	excerpt, ok := excerpt(text, words)
	if !ok {
		return hit{}, false
	}
	return hit{RunID: runID, Seq: row.Seq, At: row.InsertedAt.UTC().Format(time.RFC3339Nano), Type: row.EventType, Role: role, Excerpt: excerpt}, true
}

// said is what an event says, and who said it.
func said(row db.RunLogSearchRow) (text, role string, ok bool) {
	var p struct {
		FrameType    string `json:"frame_type"`
		Payload      any    `json:"payload"`
		Text         string `json:"text"`
		ToolName     string `json:"tool_name"`
		RequestedBy  string `json:"requested_by"`
		Input        any    `json:"input"`
		Output       any    `json:"output"`
		ErrorMessage string `json:"error_message"`
		Reason       string `json:"reason"`
	}
	if row.Whole {
		d := json.NewDecoder(strings.NewReader(row.Payload))
		d.UseNumber()
		if d.Decode(&p) != nil {
			return "", "", false
		}
	}
	var parts []string
	switch row.EventType {
	case event.TypeFrameAppended:
		if p.FrameType == "tool_request" { // tool.requested tells it
			return "", "", false
		}
		role = frameRole(p.FrameType)
		parts = texts(p.Payload)
	case event.TypeMessageFinished:
		role, parts = "assistant", []string{p.Text}
	case event.TypeToolRequested:
		if role = "assistant"; p.RequestedBy == "api" {
			role = "user"
		}
		parts = append([]string{p.ToolName}, texts(p.Input)...)
	case event.TypeToolFinished:
		role, parts = "tool", append([]string{p.ToolName, p.ErrorMessage}, texts(p.Output)...)
	default:
		role, parts = "runtime", []string{p.Reason}
	}
	if !row.Whole { // a piece of a very large payload, as it stands there
		parts = []string{row.Payload}
	}
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	return strings.Join(parts, " "), role, p.ToolName != Name
}

func frameRole(frameType string) string {
	switch frameType {
	case "user_message":
		return "user"
	case "tool_result":
		return "tool"
	}
	return "event"
}

// texts are the texts and numbers of a value, by the names of its members.
func texts(v any) (all []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number:
		return []string{v.String()}
	case []any:
		for _, each := range v {
			all = append(all, texts(each)...)
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all = append(all, texts(v[name])...)
		}
	}
	return all
}

const around = 120 // characters before and after a match

// excerpt is what is around the first word, when all words are there.
func excerpt(text string, words []string) (string, bool) {
	line := []rune(strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " "))
	low := lower(line)
	first := -1
	for _, w := range words {
		at := strings.Index(low, lower([]rune(w)))
		if at < 0 {
			return "", false
		}
		if first < 0 {
			first = len([]rune(low[:at]))
		}
	}
	from, to := max(0, first-around), min(len(line), first+len([]rune(words[0]))+around)
	out := string(line[from:to])
	if from > 0 {
		out = "…" + out
	}
	if to < len(line) {
		out += "…"
	}
	return out, true
}

// lower makes each character small; it keeps their number.
func lower(line []rune) string {
	out := make([]rune, len(line))
	for i, r := range line {
		out[i] = unicode.ToLower(r)
	}
	return string(out)
}

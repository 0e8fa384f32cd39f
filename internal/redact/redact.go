// Package redact takes secrets out of a value.
//
// docs/redaction.md says what is taken out and what is left alone. Doing it
// twice gives what doing it once gave, and the time is linear in the size.
package redact

import (
	"encoding/json"
	"strings"
)

const (
	// Redacted stands where a secret was.
	Redacted = "[REDACTED]"
	// Version names the tables of this package; a change of what is taken out
	// changes it.
	Version = "redact/1"
	// MaxBytes bounds one value. What is larger is taken out as a whole, unread.
	MaxBytes = 16 << 20
)

// Text takes secrets out of free text: those of a known shape, those beside
// their name, and those that Know was told.
func Text(s string) string { return process.Text(s) }

// JSON takes secrets out of a JSON value: by the names of members and by what
// strings look like, strings that hold JSON included. What holds no secret
// comes back byte for byte. What is not JSON is treated as text and comes back
// as a JSON string.
func JSON(raw json.RawMessage) json.RawMessage { return process.JSON(raw) }

// Strings is JSON without what the names of members say: for a document whose
// members are names of things, such as a JSON Schema, which may well describe a
// password.
func Strings(raw json.RawMessage) json.RawMessage { return process.document(raw, false) }

// Map is JSON for a decoded object. It does not change v.
func Map(v map[string]any) map[string]any { return process.Map(v) }

// Know makes every later call of Text, JSON, Map and of a Filter take the
// secret out wherever it appears. Secrets shorter than MinKnown are too likely
// to be words; they are not taken, and the answer is false.
func Know(secret string) bool { return process.Add(secret) }

// process is what this process was configured with or has fetched.
var process Known

// Text is like the function, with the secrets of k alone.
func (k *Known) Text(s string) string {
	if len(s) > MaxBytes {
		return Redacted
	}
	return k.text(s, 0)
}

func (k *Known) text(s string, depth int) string {
	return text(s, indexes{k.index.Load()}, depth)
}

// maxPasses bounds how often a text is read again after a replacement: a
// replacement can bring two halves together.
const maxPasses = 4

func text(s string, known indexes, depth int) string {
	for range maxPasses {
		found := scan(s, known, depth)
		if len(found) == 0 {
			return s
		}
		s = replace(s, found)
	}
	if len(scan(s, known, depth)) > 0 {
		return Redacted
	}
	return s
}

// span is a part of a text that is a secret.
type span struct{ from, to int }

// replace writes Redacted in the place of spans, which are sorted and apart.
func replace(s string, spans []span) string {
	var b strings.Builder
	at := 0
	for _, sp := range spans {
		b.WriteString(s[at:sp.from])
		b.WriteString(Redacted)
		at = sp.to
	}
	b.WriteString(s[at:])
	return b.String()
}

// Package canon gives the same value the same bytes and the same hash in every language.
//
// The canonical form is RFC 8785 (JCS). Input must be I-JSON: what two languages
// could read differently is refused instead of being guessed at.
package canon

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// MaxDepth is how many arrays and objects may stand inside one another.
const MaxDepth = 128

// Error says where a text stops being canonicalisable and why. It never quotes
// a value of the text.
type Error struct {
	Offset  int    // bytes from the start of the text
	Pointer string // RFC 6901 pointer to the value, "" for the whole text
	Reason  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("canonical JSON: %s (at %q, byte %d)", e.Reason, e.Pointer, e.Offset)
}

// JSON returns the canonical form of one JSON text. The text itself is left as
// it is and shares no memory with the answer. Refused with an *Error: anything
// but exactly one JSON value, duplicate names, invalid UTF-8, lone surrogates,
// numbers that no double holds, integers beyond ±(2^53−1) (see number.go for
// the very large ones), and nesting deeper than MaxDepth.
func JSON(raw []byte) ([]byte, error) {
	e := encoder{src: raw, out: make([]byte, 0, len(raw))}
	if err := e.text(); err != nil {
		return nil, err
	}
	return e.out, nil
}

// Marshal returns the canonical form of a Go value, read by its json tags.
// Strings must be valid UTF-8: encoding/json would replace bad bytes in silence,
// and two different values would share one hash.
func Marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	if replaced(raw) {
		return nil, errNotUTF8
	}
	return JSON(raw)
}

// replaced says whether encoding/json had to replace a bad byte: it writes that
// as an escape, and a true U+FFFD as its three bytes. A text that speaks of the
// escape has its backslash escaped.
func replaced(raw []byte) bool {
	const mark = `\ufffd`
	for from := 0; ; {
		i := bytes.Index(raw[from:], []byte(mark))
		if i < 0 {
			return false
		}
		at := from + i
		before := 0
		for before < at && raw[at-1-before] == '\\' {
			before++
		}
		if before%2 == 0 {
			return true
		}
		from = at + len(mark)
	}
}

var errNotUTF8 = errors.New("canonical JSON: a string of the value is not valid UTF-8 " +
	"(or a json.RawMessage spells U+FFFD as an escape: pass it through canon.JSON first)")

// HashJSON is Hash of the value's canonical form.
func HashJSON(v any) (string, error) {
	b, err := Marshal(v)
	if err != nil {
		return "", err
	}
	return Hash(b), nil
}

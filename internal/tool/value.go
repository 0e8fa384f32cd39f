package tool

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
)

const (
	// maxInput and maxStoredInput bound a call's arguments, in bytes: what a tool
	// is called with, and what is kept of arguments that no tool is called with.
	maxInput       = 256 << 10
	maxStoredInput = 64 << 10
	maxMessage     = 4000 // characters of an error's message
)

var null = json.RawMessage("null")

// ParamsHash is the digest of a call's arguments: of their canonical form, or of
// the bytes when they have none.
func ParamsHash(input json.RawMessage) string {
	if whole, err := canon.JSON(input); err == nil {
		return canon.Hash(whole)
	}
	return canon.Hash(input)
}

// canonical is the canonical form of a JSON value. What has none is repaired:
// bad bytes become U+FFFD, of members with one name the last counts, and numbers
// that not every language can read become strings.
func canonical(raw json.RawMessage) (json.RawMessage, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return null, nil
	}
	whole, err := canon.JSON(raw)
	if err == nil {
		return whole, nil
	}
	v, err := decode(raw)
	if err != nil {
		return nil, err
	}
	return canon.Marshal(plain(v))
}

// decode reads a JSON value and keeps its numbers as they are written.
func decode(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows the value")
	}
	return v, nil
}

// plain makes a decoded value one that has a canonical form.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = plain(member)
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case json.Number:
		if _, err := canon.JSON([]byte(v)); err != nil {
			return v.String()
		}
	}
	return v
}

// shown is a value as it may be stored: redacted, canonical and within a bound.
// Redaction comes first, so that no half of a secret is left at a cut.
func shown(whole json.RawMessage, limit int) (out json.RawMessage, truncated bool, err error) {
	if out, err = canonical(redact.JSON(whole)); err != nil {
		return nil, false, err
	}
	if len(out) <= limit {
		return out, false, nil
	}
	out, err = cut(out, limit)
	return out, true, err
}

// cut makes a canonical value fit: long strings lose their ends, then long
// arrays. What is still too long is replaced by the beginning of its text.
func cut(whole json.RawMessage, limit int) (json.RawMessage, error) {
	for _, to := range []struct{ text, items int }{
		{limit / 2, len(whole)}, {limit / 8, len(whole)}, {limit / 32, 256}, {256, 64}, {64, 8},
	} {
		v, err := decode(whole)
		if err != nil {
			return nil, err
		}
		out, err := canon.Marshal(shorten(v, max(16, to.text), to.items))
		if err != nil {
			return nil, err
		}
		if len(out) <= limit {
			return out, nil
		}
	}
	head := string(whole[:min(len(whole), limit/4)])
	return canon.Marshal(map[string]any{"truncated": true, "bytes": len(whole), "head": strings.ToValidUTF8(head, "")})
}

func shorten(v any, text, items int) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = shorten(member, text, items)
		}
	case []any:
		v = v[:min(len(v), items)]
		for i := range v {
			v[i] = shorten(v[i], text, items)
		}
		return v
	case string:
		return clip(v, text)
	}
	return v
}

// clip cuts a text to so many bytes at the most, at the end of a character.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len("…")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:max(0, end)] + "…"
}

// message is an error's message as it may be stored.
func message(e *Error) string {
	return clip(redact.Text(runlog.Storable(e.Message)), maxMessage)
}

// argument is a call's input as it may be stored: an object, whatever was given.
func argument(input json.RawMessage) (map[string]any, json.RawMessage, error) {
	stored, _, err := shown(input, maxInput)
	if err == nil {
		if v, _ := decode(stored); v != nil {
			if object, ok := v.(map[string]any); ok {
				return object, stored, nil
			}
		}
	}
	text := clip(redact.Text(strings.ToValidUTF8(string(input), "\uFFFD")), maxStoredInput)
	object := map[string]any{"not_an_object": text}
	stored, err = canon.Marshal(object)
	return object, stored, err
}

package mcp

import (
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean takes out of a server's text what a person does not see or a terminal
// obeys, and cuts it to so many bytes. Line breaks and tabs stay when lines says
// so, else they are spaces.
func clean(s string, limit int, lines bool) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			if lines {
				return r
			}
			return ' '
		case r == '\u200c' || r == '\u200d': // scripts and emoji need them
			return r
		case r >= 0xE0000 && r <= 0xE0FFF, unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), unicode.Is(unicode.Co, r),
			r == '\u2028', r == '\u2029':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return cut(strings.TrimSpace(s), limit)
}

// cut cuts a text to so many bytes at the end of a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit - len("…")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:max(0, end)] + "…"
}

const maxDepth = 128 // of a schema; canonical JSON has no more

// told cleans the texts of a schema that a model reads. A schema that is too deep
// comes back as null, which is no schema.
func told(v any, depth int) any {
	if depth > maxDepth {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			if text, ok := member.(string); ok && (name == "description" || name == "title" || name == "$comment") {
				out[name] = clean(text, 1000, true)
				continue
			}
			out[name] = told(member, depth+1)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = told(v[i], depth+1)
		}
		return out
	}
	return v
}

// within makes a schema one of a member: what it refers to is found from the
// root of the whole.
func within(v any, at string, depth int) any {
	if depth > maxDepth {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, member := range v {
			ref, isText := member.(string)
			switch {
			case name == "$ref" && isText && strings.HasPrefix(ref, "#"):
				out[name] = at + ref[1:]
			case depth == 0 && (name == "$id" || name == "$schema"):
			case name == "const" || name == "enum" || name == "default" || name == "examples":
				out[name] = member
			default:
				out[name] = within(member, at, depth+1)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = within(v[i], at, depth+1)
		}
		return out
	}
	return v
}

func marshal(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil { // of values that were JSON or are made of strings and numbers
		return json.RawMessage("null")
	}
	return raw
}

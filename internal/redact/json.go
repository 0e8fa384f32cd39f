package redact

import (
	"bytes"
	"encoding/json"
	"strings"
)

// JSON is like the function, with the secrets of k alone.
func (k *Known) JSON(raw json.RawMessage) json.RawMessage { return k.document(raw, true) }

// document takes secrets out of a JSON value, by the names of members or not.
func (k *Known) document(raw json.RawMessage, byName bool) json.RawMessage {
	if len(raw) > MaxBytes {
		return json.RawMessage(`"` + Redacted + `"`)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return raw
	}
	if !json.Valid(raw) {
		return quote(k.Text(strings.ToValidUTF8(string(raw), "\uFFFD")))
	}
	out, changed := k.walk(raw, 0, byName)
	if !changed {
		return raw
	}
	return out
}

// Map is like the function, with the secrets of k alone. A value that JSON
// cannot hold is taken out.
func (k *Known) Map(v map[string]any) map[string]any {
	if v == nil {
		return nil
	}
	out := make(map[string]any, len(v))
	for name, value := range v {
		name, inside := k.name(name)
		out[name] = k.value(value, inside, 0)
	}
	return out
}

// name is a member's name as it is written, and what it says of the value.
func (k *Known) name(name string) (string, class) {
	c := classify(name)
	if c == ordinary && !plainName(name) {
		if v, changed := (view{text: name}).undo(); changed {
			c = classify(v.text)
		}
	}
	return k.text(name, 0), c
}

func plainName(s string) bool { return !escaped(s) }

// value is one value of a decoded object; under says what the names above say.
func (k *Known) value(v any, under class, depth int) any {
	if depth > maxNesting {
		return Redacted
	}
	switch v := v.(type) {
	case nil, bool:
		return v
	case string:
		return k.member(v, under, 0)
	case json.Number, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64:
		if under == secret {
			return Redacted
		}
		return v
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, value := range v {
			name, inside := k.name(name)
			out[name] = k.value(value, stricter(under, inside), depth+1)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			out[i] = k.value(value, under, depth+1)
		}
		return out
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return Redacted
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var plain any
	if err := dec.Decode(&plain); err != nil {
		return Redacted
	}
	return k.value(plain, under, depth+1)
}

const maxNesting = 1000

// stricter keeps what a name above has said, unless this one says more.
func stricter(above, here class) class {
	switch {
	case above == secret || here == secret:
		return secret
	case above == counted || here == counted:
		return counted
	case here == suspected:
		return suspected
	}
	return ordinary
}

// member is a string under a name.
func (k *Known) member(s string, under class, depth int) string {
	switch {
	case s == "" || s == Redacted:
		return s
	case len(s) > MaxBytes, under == secret, under == counted, under == suspected && looksRandom(s):
		return Redacted
	}
	if t := strings.TrimSpace(s); depth < maxDepth && len(t) > 2 && (t[0] == '{' || t[0] == '[' || t[0] == '"') && json.Valid([]byte(t)) {
		if out, changed := k.walk([]byte(t), depth+1, true); changed {
			s = string(out)
		}
	}
	return k.text(s, depth)
}

// walk rewrites a valid JSON text, string by string; all else is copied.
func (k *Known) walk(raw []byte, depth int, byName bool) ([]byte, bool) {
	type level struct {
		object bool
		above  class // of what the whole stands under
		here   class // of the member whose value comes next
	}
	var (
		out     bytes.Buffer
		stack   []level
		copied  int
		changed bool
		key     = true // the next string of an object is a name
	)
	under := func() class {
		if n := len(stack); n > 0 {
			return stricter(stack[n-1].above, stack[n-1].here)
		}
		return ordinary
	}
	swap := func(from, to int, text []byte) {
		out.Write(raw[copied:from])
		out.Write(text)
		copied, changed = to, true
	}
	for i := 0; i < len(raw); {
		switch c := raw[i]; c {
		case '{', '[':
			stack = append(stack, level{object: c == '{', above: under()})
			key = true
			i++
		case '}', ']':
			stack = stack[:len(stack)-1]
			i++
		case ',':
			key = true
			if n := len(stack); stack[n-1].object {
				stack[n-1].here = ordinary
			}
			i++
		case ':':
			key = false
			i++
		case '"':
			end := i + 1
			for raw[end] != '"' {
				if raw[end] == '\\' {
					end++
				}
				end++
			}
			end++
			s := unquote(raw[i:end])
			if n := len(stack); n > 0 && stack[n-1].object && key {
				name, c := k.name(s)
				if byName {
					stack[n-1].here = c
				}
				if name != s {
					swap(i, end, quote(name))
				}
			} else if text := k.member(s, under(), depth); text != s {
				swap(i, end, quote(text))
			}
			i = end
		default:
			end := i
			for end < len(raw) && strings.IndexByte(",]}: \t\r\n", raw[end]) < 0 {
				end++
			}
			if end == i {
				i++
				continue
			}
			if under() == secret && (raw[i] == '-' || digit(raw[i])) {
				swap(i, end, quote(Redacted))
			}
			i = end
		}
	}
	out.Write(raw[copied:])
	return out.Bytes(), changed
}

func unquote(raw []byte) string {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return string(raw) // cannot be: the text is valid JSON
	}
	return s
}

func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return []byte(`"` + Redacted + `"`)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

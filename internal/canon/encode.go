package canon

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// encoder reads src once from left to right and writes the canonical form to out.
type encoder struct {
	src     []byte
	pos     int
	out     []byte
	depth   int
	members []member // of all open objects, innermost last
	scratch []byte
}

// member is one written `"name":value` of an object.
type member struct {
	name       []byte // unescaped
	offset     int    // of the name, in src
	start, end int    // in out
}

func (e *encoder) text() error {
	e.space()
	if err := e.value(); err != nil {
		return err
	}
	e.space()
	if e.pos != len(e.src) {
		return e.fail(e.pos, "something follows the value")
	}
	return nil
}

func (e *encoder) fail(offset int, reason string) *Error {
	return &Error{Offset: offset, Reason: reason}
}

// under puts one more step before the pointer of an error on its way out.
func under(err error, step string) error {
	var e *Error
	if errors.As(err, &e) {
		const longest = 64
		if len(step) > longest {
			step = strings.ToValidUTF8(step[:longest], "") + "…"
		}
		e.Pointer = "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(step) + e.Pointer
	}
	return err
}

func (e *encoder) space() {
	for e.pos < len(e.src) {
		switch e.src[e.pos] {
		case ' ', '\t', '\n', '\r':
			e.pos++
		default:
			return
		}
	}
}

func (e *encoder) value() error {
	if e.pos == len(e.src) {
		return e.fail(e.pos, "the text ends where a value is due")
	}
	switch c := e.src[e.pos]; {
	case c == '{':
		return e.nested(e.object)
	case c == '[':
		return e.nested(e.array)
	case c == '"':
		_, err := e.str()
		return err
	case c == '-' || '0' <= c && c <= '9':
		return e.number()
	case c == 't':
		return e.literal("true")
	case c == 'f':
		return e.literal("false")
	case c == 'n':
		return e.literal("null")
	default:
		return e.fail(e.pos, "no JSON value begins like this")
	}
}

func (e *encoder) literal(word string) error {
	if !bytes.HasPrefix(e.src[e.pos:], []byte(word)) {
		return e.fail(e.pos, "no JSON value begins like this")
	}
	e.pos += len(word)
	e.out = append(e.out, word...)
	return nil
}

func (e *encoder) nested(inner func() error) error {
	if e.depth == MaxDepth {
		return e.fail(e.pos, "nested deeper than "+strconv.Itoa(MaxDepth))
	}
	e.depth++
	err := inner()
	e.depth--
	return err
}

func (e *encoder) array() error {
	e.pos++
	e.out = append(e.out, '[')
	e.space()
	if e.take(']') {
		e.out = append(e.out, ']')
		return nil
	}
	for i := 0; ; i++ {
		e.space()
		if err := e.value(); err != nil {
			return under(err, strconv.Itoa(i))
		}
		e.space()
		switch {
		case e.take(','):
			e.out = append(e.out, ',')
		case e.take(']'):
			e.out = append(e.out, ']')
			return nil
		default:
			return e.fail(e.pos, "an array goes on with , or ]")
		}
	}
}

func (e *encoder) object() error {
	e.pos++
	e.out = append(e.out, '{')
	base, first := len(e.members), len(e.out)
	e.space()
	if e.take('}') {
		e.out = append(e.out, '}')
		return nil
	}
	for {
		e.space()
		m := member{offset: e.pos, start: len(e.out)}
		if e.pos == len(e.src) || e.src[e.pos] != '"' {
			return e.fail(e.pos, "an object's member begins with its name in quotes")
		}
		var err error
		if m.name, err = e.str(); err != nil {
			return err
		}
		e.space()
		if !e.take(':') {
			return e.fail(e.pos, "a colon follows a member's name")
		}
		e.out = append(e.out, ':')
		e.space()
		if err := e.value(); err != nil {
			return under(err, string(m.name))
		}
		m.end = len(e.out)
		e.members = append(e.members, m)
		e.space()
		switch {
		case e.take(','):
			e.out = append(e.out, ',')
		case e.take('}'):
			if err := e.order(e.members[base:], first); err != nil {
				return err
			}
			e.members = e.members[:base]
			e.out = append(e.out, '}')
			return nil
		default:
			return e.fail(e.pos, "an object goes on with , or }")
		}
	}
}

// order brings an object's members, written from out[first] on, into the order
// of their names and refuses a name that comes twice.
func (e *encoder) order(ms []member, first int) error {
	sorted := true
	for i := 1; i < len(ms) && sorted; i++ {
		sorted = compareUTF16(ms[i-1].name, ms[i].name) < 0
	}
	if sorted {
		return nil
	}
	slices.SortStableFunc(ms, func(a, b member) int { return compareUTF16(a.name, b.name) })
	for i := 1; i < len(ms); i++ {
		if compareUTF16(ms[i-1].name, ms[i].name) == 0 {
			return under(e.fail(ms[i].offset, "a member's name comes twice"), string(ms[i].name))
		}
	}
	e.scratch = e.scratch[:0]
	for i, m := range ms {
		if i > 0 {
			e.scratch = append(e.scratch, ',')
		}
		e.scratch = append(e.scratch, e.out[m.start:m.end]...)
	}
	copy(e.out[first:], e.scratch)
	return nil
}

func (e *encoder) take(c byte) bool {
	if e.pos < len(e.src) && e.src[e.pos] == c {
		e.pos++
		return true
	}
	return false
}

// compareUTF16 compares two UTF-8 strings by their UTF-16 code units. The order
// of bytes is the same, but for characters beyond U+FFFF (lead bytes F0 to F4):
// as surrogates they stand before U+E000 to U+FFFF (lead bytes EE and EF).
func compareUTF16(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x >= 0xEE && y >= 0xEE && (x >= 0xF0) != (y >= 0xF0) {
			x, y = y, x
		}
		return int(x) - int(y)
	}
	return len(a) - len(b)
}

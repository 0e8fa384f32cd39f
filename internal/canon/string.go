package canon

import "unicode/utf8"

const hexDigits = "0123456789abcdef"

// str reads the string at pos, writes its canonical form and returns it
// unescaped. The answer may be part of src.
func (e *encoder) str() ([]byte, error) {
	e.pos++ // the opening quote
	begin := e.pos
	e.out = append(e.out, '"')
	for e.pos < len(e.src) {
		switch c := e.src[e.pos]; {
		case c == '"':
			e.out = append(e.out, e.src[begin:e.pos]...)
			e.out = append(e.out, '"')
			e.pos++
			return e.src[begin : e.pos-1], nil
		case c == '\\':
			return e.escaped(begin)
		case c < 0x20:
			return nil, e.fail(e.pos, "a control character stands unescaped in a string")
		case c < utf8.RuneSelf:
			e.pos++
		default:
			r, size := utf8.DecodeRune(e.src[e.pos:])
			if r == utf8.RuneError && size == 1 {
				return nil, e.fail(e.pos, "invalid UTF-8")
			}
			e.pos += size
		}
	}
	return nil, e.fail(e.pos, "the text ends inside a string")
}

// escaped goes on with a string that holds an escape; begin is where its first
// character stands.
func (e *encoder) escaped(begin int) ([]byte, error) {
	plain := append(make([]byte, 0, e.pos-begin+32), e.src[begin:e.pos]...)
	for e.pos < len(e.src) {
		switch c := e.src[e.pos]; {
		case c == '"':
			e.pos++
			e.out = append(appendEscaped(e.out, plain), '"')
			return plain, nil
		case c == '\\':
			r, err := e.escape()
			if err != nil {
				return nil, err
			}
			plain = utf8.AppendRune(plain, r)
		case c < 0x20:
			return nil, e.fail(e.pos, "a control character stands unescaped in a string")
		case c < utf8.RuneSelf:
			plain = append(plain, c)
			e.pos++
		default:
			r, size := utf8.DecodeRune(e.src[e.pos:])
			if r == utf8.RuneError && size == 1 {
				return nil, e.fail(e.pos, "invalid UTF-8")
			}
			plain = append(plain, e.src[e.pos:e.pos+size]...)
			e.pos += size
		}
	}
	return nil, e.fail(e.pos, "the text ends inside a string")
}

// escape reads one escape, or two that make a surrogate pair.
func (e *encoder) escape() (rune, error) {
	at := e.pos
	if at+1 == len(e.src) {
		return 0, e.fail(at, "the text ends inside a string")
	}
	e.pos += 2
	switch e.src[at+1] {
	case '"', '\\', '/':
		return rune(e.src[at+1]), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		high, ok := e.hex4(e.pos)
		if !ok {
			return 0, e.fail(at, `four hex digits follow \u`)
		}
		e.pos += 4
		if high < 0xD800 || high > 0xDFFF {
			return high, nil
		}
		low, ok := e.hex4(e.pos + 2)
		if high > 0xDBFF || !ok || e.src[e.pos] != '\\' || e.src[e.pos+1] != 'u' || low < 0xDC00 || low > 0xDFFF {
			return 0, e.fail(at, "a surrogate stands alone")
		}
		e.pos += 6
		return 0x10000 + (high-0xD800)<<10 + (low - 0xDC00), nil
	default:
		return 0, e.fail(at, "JSON knows no such escape")
	}
}

func (e *encoder) hex4(at int) (rune, bool) {
	if at+4 > len(e.src) {
		return 0, false
	}
	var r rune
	for _, c := range e.src[at : at+4] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// appendEscaped appends what stands between the quotes for valid UTF-8.
func appendEscaped[T ~[]byte | ~string](out []byte, s T) []byte {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c >= 0x20:
			out = append(out, c)
		case c == '\b':
			out = append(out, '\\', 'b')
		case c == '\t':
			out = append(out, '\\', 't')
		case c == '\n':
			out = append(out, '\\', 'n')
		case c == '\f':
			out = append(out, '\\', 'f')
		case c == '\r':
			out = append(out, '\\', 'r')
		default:
			out = append(out, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return out
}

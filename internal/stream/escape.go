package stream

import (
	"bytes"
	"unicode/utf8"
)

// appendEscaped appends what stands between the quotes of a JSON string, in its
// canonical form but for the line ends of appendRune.
func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ':
			b = appendRune(b, r)
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r == '\b':
			b = append(b, '\\', 'b')
		case r == '\f':
			b = append(b, '\\', 'f')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		}
	}
	return b
}

// appendLiteral appends what stands between the quotes of a string in canonical
// JSON, so that the bytes are those of appendEscaped.
func appendLiteral(b, literal []byte) []byte {
	if !bytes.Contains(literal, nextLine) && !bytes.Contains(literal, separators) {
		return append(b, literal...)
	}
	for len(literal) > 0 {
		r, size := utf8.DecodeRune(literal)
		b = appendRune(b, r)
		literal = literal[size:]
	}
	return b
}

var (
	nextLine   = []byte("\u0085")
	separators = []byte("\u2028")[:2] // what U+2028 and U+2029 begin with
)

// appendRune appends a character, escaped when it is one of Unicode's line
// ends. The protocol's lines end at CR and LF alone, which JSON escapes, but
// some clients split at these too.
func appendRune(b []byte, r rune) []byte {
	switch r {
	case '\u0085':
		return append(b, `\u0085`...)
	case '\u2028':
		return append(b, `\u2028`...)
	case '\u2029':
		return append(b, `\u2029`...)
	default:
		return utf8.AppendRune(b, r)
	}
}

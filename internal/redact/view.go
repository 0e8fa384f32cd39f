package redact

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// view is a text with escapes undone. offsets[i] is where byte i comes from in
// the text that was given; nil when nothing was undone.
type view struct {
	text    string
	offsets []int
}

func (v view) at(i int) int {
	if v.offsets == nil {
		return i
	}
	return v.offsets[i]
}

// undo takes one level of escapes away: %XX, \uXXXX, \", \/, \\, \n and their
// like, characters that are not seen, and letters that look like ASCII.
func (v view) undo() (view, bool) {
	if !escaped(v.text) {
		return v, false
	}
	s := v.text
	out := view{offsets: make([]int, 0, len(s)+1)}
	var b strings.Builder
	b.Grow(len(s))
	put := func(text string, at int) {
		b.WriteString(text)
		for range len(text) {
			out.offsets = append(out.offsets, v.at(at))
		}
	}
	changed := false
	for i := 0; i < len(s); {
		text, n := one(s[i:])
		changed = changed || n != len(text) || text != s[i:i+n]
		put(text, i)
		i += n
	}
	out.offsets = append(out.offsets, v.at(len(s)))
	out.text = b.String()
	return out, changed
}

func escaped(s string) bool {
	if strings.IndexByte(s, '%') >= 0 || strings.IndexByte(s, '\\') >= 0 {
		return true
	}
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return true
		}
	}
	return false
}

// one reads one character, undone, and says how many bytes it took.
func one(s string) (text string, n int) {
	switch c := s[0]; {
	case c == '%' && len(s) >= 3:
		if hi, lo := hexDigit(s[1]), hexDigit(s[2]); hi >= 0 && lo >= 0 {
			return string([]byte{byte(hi<<4 | lo)}), 3
		}
		return s[:1], 1
	case c == '\\' && len(s) >= 2:
		return unescape(s)
	case c < utf8.RuneSelf:
		return s[:1], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	return seen(r, s[:n]), n
}

func unescape(s string) (string, int) {
	switch s[1] {
	case '"', '\\', '/', '\'':
		return s[1:2], 2
	case 'n', 'r', 't', 'b', 'f':
		return " ", 2
	case 'u':
		if len(s) < 6 {
			return s[:1], 1
		}
		code := 0
		for i := 2; i < 6; i++ {
			d := hexDigit(s[i])
			if d < 0 {
				return s[:1], 1
			}
			code = code<<4 | d
		}
		if r := rune(code); utf8.ValidRune(r) {
			return seen(r, string(r)), 6
		}
	}
	return s[:1], 1
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// seen is what a reader takes a character for, where that is ASCII.
func seen(r rune, self string) string {
	if r < utf8.RuneSelf {
		return self
	}
	if ascii, ok := lookAlikes[r]; ok {
		return string(ascii)
	}
	if unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) {
		return ""
	}
	if folded := norm.NFKC.String(self); len(folded) == 1 {
		return folded
	}
	return self
}

// lookAlikes are the letters that are most often put in the place of ASCII ones.
var lookAlikes = map[rune]rune{}

func init() {
	from, to := []rune("асеһіјкорѕхуԁԛԝАВЕЅІЈКМНОРСТХУοανΑΒΕΖΗΙΚΜΝΟΡΤΥΧ‐‑‒–—−"), []rune("acehijkopsxydqwABESIJKMHOPCTXYoavABEZHIKMNOPTYX------")
	for i, r := range from {
		lookAlikes[r] = to[i]
	}
}

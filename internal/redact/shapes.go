package redact

import (
	"encoding/base64"
	"strings"
)

// shape is a kind of credential that its first letters give away.
type shape struct {
	prefix string
	// min is how many bytes follow the prefix at the least.
	min int
	// in says which bytes belong to it.
	in func(byte) bool
	// check, when there is one, sees the whole.
	check func(token string) bool
}

// shapes are found wherever the byte before them cannot belong to a word.
var shapes = []shape{
	// Models, code hosts, mail, chat, payments, clouds.
	{"sk-", 16, word, random}, {"sk_live_", 10, word, nil}, {"sk_test_", 10, word, nil}, {"rk_live_", 10, word, nil}, {"rk_test_", 10, word, nil},
	{"ghp_", 20, word, nil}, {"gho_", 20, word, nil}, {"ghu_", 20, word, nil}, {"ghs_", 20, word, nil}, {"ghr_", 20, word, nil}, {"github_pat_", 20, word, nil},
	{"glpat-", 16, word, random}, {"xoxa-", 10, word, random}, {"xoxb-", 10, word, random}, {"xoxe-", 10, word, random}, {"xoxp-", 10, word, random},
	{"xoxr-", 10, word, random}, {"xoxs-", 10, word, random}, {"xapp-", 10, word, random},
	{"AKIA", 16, upper, exactly16}, {"ASIA", 16, upper, exactly16}, {"AIza", 30, word, nil}, {"ya29.", 20, dotted, nil},
	{"re_", 16, word, random}, {"whsec_", 16, base64ish, nil}, {"SG.", 30, dotted, twoParts}, {"hf_", 20, word, random}, {"npm_", 30, word, nil},
	{"pypi-", 40, word, nil}, {"dop_v1_", 40, word, nil}, {"shpat_", 20, word, nil}, {"AGE-SECRET-KEY-1", 40, upper, nil},
	// Tokens that carry their claims.
	{"eyJ", 20, dotted, twoParts},
	// Money.
	{"cashuA", 20, base64ish, nil}, {"cashuB", 20, base64ish, nil}, {"nsec1", 50, lower, nil}, {"xprv", 90, word, nil}, {"zprv", 90, word, nil}, {"yprv", 90, word, nil},
	{"AgEDbG5k", 24, base64ish, nil}, {"0201036c6e64", 40, hexish, nil}, {"0201036C6E64", 40, hexish, nil}, // macaroons of lnd
	{"AgE", 80, base64ish, macaroon}, {"MDAx", 40, base64ish, macaroon},
	{"lndconnect://", 8, unspaced, nil}, {"lnc://", 8, unspaced, nil},
}

// byFirst lists the shapes by their first byte.
var byFirst [256][]int

func init() {
	for i, sh := range shapes {
		byFirst[sh.prefix[0]] = append(byFirst[sh.prefix[0]], i)
	}
}

// tokens finds every shape. After a token the search for its shape goes on
// behind it, so the time is linear.
func tokens(s string, emit func(from, to int)) {
	var behind [64]int
	for i := 0; i < len(s); i++ {
		if len(byFirst[s[i]]) == 0 || i > 0 && word(s[i-1]) {
			continue
		}
		for _, n := range byFirst[s[i]] {
			sh := &shapes[n]
			if i < behind[n] || !strings.HasPrefix(s[i:], sh.prefix) {
				continue
			}
			rest := i + len(sh.prefix)
			to := rest
			for to < len(s) && sh.in(s[to]) {
				to++
			}
			behind[n] = to
			for to > rest && s[to-1] == '.' {
				to-- // the end of a sentence
			}
			if to-rest >= sh.min && (sh.check == nil || sh.check(s[i:to])) {
				emit(i, to)
			}
		}
	}
}

func digit(c byte) bool     { return c >= '0' && c <= '9' }
func lowerCase(c byte) bool { return c >= 'a' && c <= 'z' }
func upperCase(c byte) bool { return c >= 'A' && c <= 'Z' }
func word(c byte) bool      { return digit(c) || lowerCase(c) || upperCase(c) || c == '_' || c == '-' }
func upper(c byte) bool     { return digit(c) || upperCase(c) }
func lower(c byte) bool     { return digit(c) || lowerCase(c) }
func dotted(c byte) bool    { return word(c) || c == '.' }
func base64ish(c byte) bool { return word(c) || c == '+' || c == '/' || c == '=' }
func hexish(c byte) bool    { return hexDigit(c) >= 0 }
func unspaced(c byte) bool {
	return c > ' ' && c < 0x7f && c != '"' && c != '\'' && c != '<' && c != '>'
}

// random tells a key from words that are joined by - or _: one part is long and
// has a digit, or capitals among small letters, or the whole is very long.
func random(token string) bool {
	for _, part := range strings.FieldsFunc(token, func(r rune) bool { return r == '-' || r == '_' }) {
		if len(part) >= 10 && mixed(part) {
			return true
		}
	}
	return len(token) >= 44 && mixed(token)
}

// mixed holds for text with a digit, or with a capital behind a small letter.
func mixed(s string) bool {
	for i := 0; i < len(s); i++ {
		if digit(s[i]) || i > 0 && upperCase(s[i]) && lowerCase(s[i-1]) {
			return true
		}
	}
	return false
}

func exactly16(token string) bool { return len(token) == len("AKIA")+16 }

func twoParts(token string) bool {
	first, second, ok := strings.Cut(token, ".")
	return ok && len(first) >= 8 && len(second) >= 8
}

// macaroon holds for base64 of a macaroon, in either serialisation.
func macaroon(token string) bool {
	raw, ok := decode64(token)
	return ok && (strings.Contains(raw, "identifier ") && strings.Contains(raw, "location ") ||
		strings.HasPrefix(raw, "\x02\x01") && strings.Contains(raw, "\x00\x00\x06\x20"))
}

// decode64 reads either alphabet, padded or not.
func decode64(s string) (string, bool) {
	s = strings.TrimRight(s, "=")
	enc := base64.RawStdEncoding
	if strings.ContainsAny(s, "-_") {
		enc = base64.RawURLEncoding
	}
	if len(s)%4 == 1 {
		s = s[:len(s)-1]
	}
	raw, err := enc.DecodeString(s)
	return string(raw), err == nil
}

const pemBegin, pemEnd = "-----BEGIN", "-----END"

// privateKeys finds PEM blocks of private keys; one without an end goes to the
// end of the text.
func privateKeys(s string, emit func(from, to int)) {
	const begin, end, dashes = pemBegin, pemEnd, "-----"
	for at := 0; ; {
		i := strings.Index(s[at:], begin)
		if i < 0 {
			return
		}
		from := at + i
		label, _, closed := strings.Cut(s[from+len(begin):min(len(s), from+len(begin)+64)], dashes)
		at = from + len(begin)
		if !closed || !strings.Contains(label, "PRIVATE") || !strings.Contains(label, "KEY") {
			continue
		}
		to := len(s)
		if j := strings.Index(s[at:], end); j >= 0 {
			to = at + j + len(end)
			if k := strings.Index(s[to:min(len(s), to+64)], dashes); k >= 0 {
				to += k + len(dashes)
			}
		}
		emit(from, to)
		at = to
	}
}

// schemes finds the credentials of an Authorization header anywhere in a text.
func schemes(s string, emit func(from, to int)) {
	for _, scheme := range []struct {
		name  string
		check func(credential string) bool
	}{
		{"bearer", func(c string) bool { return len(c) >= 20 || len(c) >= 8 && mixed(c) }},
		{"basic", func(c string) bool { raw, ok := decode64(c); return ok && strings.Contains(raw, ":") && printable(raw) }},
		{"l402", func(c string) bool { return len(c) >= 20 }},
		{"lsat", func(c string) bool { return len(c) >= 20 }},
	} {
		for at, f := 0, find(s, scheme.name); ; {
			start := f.from(at)
			if start < 0 {
				break
			}
			end := start + len(scheme.name)
			at = end
			from := end
			for from < len(s) && (s[from] == ' ' || s[from] == '\t') {
				from++
			}
			if from == end || start > 0 && word(s[start-1]) {
				at = from
				continue
			}
			to := from
			for to < len(s) && (base64ish(s[to]) || s[to] == '.' || s[to] == '~' || s[to] == ':') {
				to++
			}
			for to > from && (s[to-1] == '.' || s[to-1] == ':') {
				to--
			}
			if to > from && scheme.check(s[from:to]) {
				emit(from, to)
			}
			at = max(at, to)
		}
	}
}

// userInfo finds the name and password of URLs, and long names without one.
func userInfo(s string, emit func(from, to int)) {
	for at := 0; ; {
		i := strings.Index(s[at:], "://")
		if i < 0 {
			return
		}
		from := at + i + len("://")
		to, last := from, -1
		for to < len(s) && s[to] > ' ' && !strings.ContainsRune(`/?#"'<>\`, rune(s[to])) {
			if s[to] == '@' {
				last = to
			}
			to++
		}
		if last > from && (strings.Contains(s[from:last], ":") || last-from >= 16 && mixed(s[from:last])) {
			emit(from, last)
		}
		at = max(to, from)
	}
}

// preimages finds 64 hex digits near behind the word.
func preimages(s string, emit func(from, to int)) {
	const name, near, digits = "preimage", 24, 64
	for at, f := 0, find(s, name); ; {
		if at = f.from(at); at < 0 {
			return
		}
		at += len(name)
		for j := at; j < len(s) && j <= at+near; j++ {
			if !hexish(s[j]) || word(s[j-1]) {
				continue
			}
			to := j
			for to < len(s) && hexish(s[to]) && to-j <= digits {
				to++
			}
			if to-j == digits && (to == len(s) || !word(s[to])) {
				emit(j, to)
			}
		}
	}
}

// wrapped finds base64 of text in which there is a secret.
func wrapped(s string, known indexes, depth int, emit func(from, to int)) {
	const least = 20
	for i := 0; i < len(s); {
		if !base64ish(s[i]) {
			i++
			continue
		}
		from := i
		for i < len(s) && base64ish(s[i]) {
			i++
		}
		if i-from < least {
			continue
		}
		if raw, ok := decode64(s[from:i]); ok && printable(raw) && len(scan(raw, known, depth+1)) > 0 {
			emit(from, i)
		}
	}
}

func printable(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' && s[i] != '\n' && s[i] != '\r' && s[i] != '\t' || s[i] >= 0x7f {
			return false
		}
	}
	return len(s) > 0
}

// finder finds an ASCII word, which is given in small letters, in any case. Asked
// for ever later places, it reads the text once.
type finder struct {
	s, small string
	lo, up   int // where the first letter comes next, small and capital
}

func find(s, small string) *finder { return &finder{s: s, small: small, lo: -1, up: -1} }

// from is where the word comes first from at on, or -1.
func (f *finder) from(at int) int {
	for at+len(f.small) <= len(f.s) {
		if f.lo < at {
			f.lo = next(f.s, at, f.small[0])
		}
		if f.up < at {
			f.up = next(f.s, at, f.small[0]-('a'-'A'))
		}
		if at = min(f.lo, f.up); at+len(f.small) > len(f.s) {
			return -1
		}
		if strings.EqualFold(f.s[at:at+len(f.small)], f.small) {
			return at
		}
		at++
	}
	return -1
}

// next is where c comes from at on; len(s) when it does not.
func next(s string, at int, c byte) int {
	if i := strings.IndexByte(s[at:], c); i >= 0 {
		return at + i
	}
	return len(s)
}

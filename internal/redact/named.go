package redact

import (
	"math"
	"strings"
)

const (
	maxValue = 4096 // how far a value in a text is followed
	delimits = " \t\r\n&;,\"'`<>()[]{}|"
)

// named finds values beside their names in free text: password=…, "api_key":
// "…", ?access_token=…, Cookie: ….
func named(s string, emit func(from, to int)) {
	for i := 0; i < len(s); i++ {
		if s[i] != '=' && s[i] != ':' {
			continue
		}
		name, gap := nameBefore(s, i)
		if name == "" {
			continue
		}
		c := classify(name)
		if c == ordinary {
			continue
		}
		if from, to := valueAfter(s, i, name, c, gap); from < to {
			emit(from, to)
			i = to - 1
		}
	}
}

// nameBefore reads the name that ends before s[i], and whether it is apart from it.
func nameBefore(s string, i int) (name string, gap bool) {
	end := i
	for end > 0 && i-end < 2 && s[end-1] == ' ' {
		end--
		gap = true
	}
	if end > 0 && (s[end-1] == '"' || s[end-1] == '\'') {
		end--
	}
	if end > 0 && s[end-1] == '\\' {
		end--
	}
	start := end
	for start > 0 && end-start < maxName && (word(s[start-1]) || s[start-1] == '.') {
		start--
	}
	return s[start:end], gap
}

func valueAfter(s string, i int, name string, c class, gap bool) (from, to int) {
	sign := s[i]
	from = i + 1
	if from < len(s) && (s[from] == '=' || s[from] == '>') || strings.HasPrefix(s[from:], "//") {
		return 0, 0 // a comparison, an arrow, a URL
	}
	if i > 0 && sign == '=' && strings.IndexByte("!<>:", s[i-1]) >= 0 && s[i-1] != ':' {
		return 0, 0
	}
	for n := 0; n < 2 && from < len(s) && s[from] == ' '; n++ {
		from++
		gap = true
	}
	limit := min(len(s), from+maxValue)
	if from < len(s) && s[from] == '\\' && from+1 < len(s) && s[from+1] == '"' {
		from++
	}
	if from < limit && (s[from] == '"' || s[from] == '\'') {
		quote := s[from]
		from++
		for to = from; to < limit && s[to] != quote && s[to] != '\n'; to++ {
			if s[to] == '\\' && to+1 < limit && s[to+1] != quote {
				to++
			}
		}
		if to > from && s[to-1] == '\\' {
			to--
		}
		return sure(s, from, to, c, false)
	}
	if line := header(name); line {
		for to = from; to < limit && s[to] != '\n' && s[to] != '\r' && s[to] != '"' && s[to] != '\''; to++ {
		}
		if v := s[from:to]; strings.ContainsAny(v, "=0123456789") {
			return sure(s, from, to, c, false)
		}
		return 0, 0
	}
	for to = from; to < limit && strings.IndexByte(delimits, s[to]) < 0; to++ {
	}
	if to < len(s) && s[to] == '(' {
		return 0, 0 // the call of a function
	}
	for to > from && (s[to-1] == '.' || s[to-1] == ':') {
		to--
	}
	return sure(s, from, to, c, gap || sign == ':')
}

// header names the headers of which the whole line is the value.
func header(name string) bool {
	whole := strings.Join(split(name), "")
	return whole == "authorization" || whole == "proxyauthorization" || whole == "cookie" || whole == "setcookie"
}

// sure answers a value when its name and its looks say that it is a secret. In
// prose, a word behind "password: " is not one unless it has a digit, a sign, or
// is long.
func sure(s string, from, to int, c class, prose bool) (int, int) {
	v := s[from:to]
	switch {
	case v == "" || v == Redacted || strings.HasPrefix(v, "$") || strings.HasPrefix(v, "{"):
		return 0, 0
	case c == counted && len(v) < 6 && strings.Trim(v, "0123456789.") == "":
		return 0, 0
	case v == "true" || v == "false" || v == "null" || v == "nil" || v == "undefined":
		return 0, 0
	case c == suspected:
		if !looksRandom(v) {
			return 0, 0
		}
	case prose && len(v) < 16 && !strings.ContainsAny(v, "0123456789!#$%^*+=/@~"):
		return 0, 0
	}
	return from, to
}

// looksRandom holds for long values without spaces whose letters are spread as
// in a key, and that are no id, hash, moment, number, invoice or address.
func looksRandom(v string) bool {
	if len(v) < 16 || strings.ContainsAny(v, " \t\n") || plainlyPublic(v) || !scrambled(v) {
		return false
	}
	var count [256]int
	for i := 0; i < len(v); i++ {
		count[v[i]]++
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(v))
			bits -= p * math.Log2(p)
		}
	}
	return bits >= 3.2
}

// scrambled tells a key from words with a number: small letters, capitals and
// digits, or letters and digits that change places often.
func scrambled(v string) bool {
	var small, capital, number bool
	changes := 0
	for i := 0; i < len(v); i++ {
		small, capital, number = small || lowerCase(v[i]), capital || upperCase(v[i]), number || digit(v[i])
		if i > 0 && digit(v[i]) != digit(v[i-1]) {
			changes++
		}
	}
	return small && capital && number || changes >= 5
}

// plainlyPublic holds for the shapes of what is never a secret.
func plainlyPublic(v string) bool {
	if rest, ok := strings.CutPrefix(v, "sha256:"); ok {
		v = rest
	}
	if i := strings.LastIndexByte(v, '_'); i > 0 && i <= 12 {
		v = v[i+1:] // run_…, call_…
	}
	hexes, others := 0, 0
	for i := 0; i < len(v); i++ {
		switch {
		case hexish(v[i]):
			hexes++
		case v[i] != '-' && v[i] != ':' && v[i] != '.' && v[i] != 'T' && v[i] != 'Z' && v[i] != '+':
			others++
		}
	}
	if others == 0 && hexes > 0 {
		return true // hex, a UUID, a moment, a number
	}
	for _, prefix := range []string{"lnbc", "lntb", "lnbcrt", "bc1", "tb1", "npub1", "note1", "http://", "https://", "/"} {
		if strings.HasPrefix(strings.ToLower(v), prefix) {
			return true
		}
	}
	return false
}

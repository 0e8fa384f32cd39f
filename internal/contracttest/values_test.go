package contracttest_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
)

// values makes instances of the contract's schemas, and spoils them.
type values struct {
	rng *rand.Rand
	doc contracttest.Document
}

// fit makes an instance of the schema at a pointer. Optional members come half
// of the time.
func (v values) fit(pointer string) any {
	s, where := v.doc.At(pointer)
	if enum, ok := s["enum"].([]any); ok {
		return enum[v.rng.IntN(len(enum))]
	}
	if c, ok := s["const"]; ok {
		return c
	}
	switch s["type"] {
	case "object":
		return v.object(s, where)
	case "array":
		list := []any{}
		for range v.rng.IntN(4) {
			list = append(list, v.fit(where+"/items"))
		}
		return list
	case "string":
		return v.text(s)
	case "boolean":
		return v.rng.IntN(2) == 0
	case "integer":
		low, high := bound(s, "minimum", 0), bound(s, "maximum", 1000)
		switch v.rng.IntN(4) {
		case 0:
			return low
		case 1:
			return high
		default:
			return low + v.rng.Int64N(min(high-low, 1000)+1)
		}
	default:
		panic(fmt.Sprintf("no values of the type %v at %s", s["type"], where))
	}
}

func (v values) object(s map[string]any, where string) map[string]any {
	o := map[string]any{}
	properties, _ := s["properties"].(map[string]any)
	required, _ := s["required"].([]any)
	for _, name := range sortedKeys(properties) {
		if slices.Contains(required, any(name)) || v.rng.IntN(2) == 0 {
			o[name] = v.fit(where + "/properties/" + name)
		}
	}
	if s["additionalProperties"] == true {
		for range v.rng.IntN(4) {
			o[v.word()] = v.anything(2)
		}
	}
	return o
}

// anything is some JSON value that every language reads alike.
func (v values) anything(depth int) any {
	switch n := v.rng.IntN(7); {
	case n == 0 && depth > 0:
		o := map[string]any{}
		for range v.rng.IntN(3) {
			o[v.word()] = v.anything(depth - 1)
		}
		return o
	case n == 1 && depth > 0:
		return []any{v.anything(depth - 1), v.anything(depth - 1)}
	case n == 2:
		return v.rng.IntN(2) == 0
	case n == 3:
		return nil
	case n == 4:
		return v.rng.Int64N(1 << 53)
	case n == 5:
		return v.rng.NormFloat64()
	default:
		return v.unicode()
	}
}

// text makes a string that a string schema takes.
func (v values) text(s map[string]any) string {
	low, high := bound(s, "minLength", 0), bound(s, "maxLength", 40)
	if s["format"] == "date-time" {
		return time.UnixMicro(v.rng.Int64N(1 << 52)).UTC().Format(time.RFC3339Nano)
	}
	pattern, ok := s["pattern"].(string)
	if !ok {
		text := []rune(v.unicode() + v.word())
		for int64(len(text)) < low {
			text = append(text, 'x')
		}
		return string(text[:min(int64(len(text)), high)])
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	var b strings.Builder
	for v.match(&b, parsed, int(min(high, 40))); int64(b.Len()) < low; v.match(&b, parsed, int(min(high, 40))) {
		b.Reset()
	}
	return b.String()
}

// match writes a text that a pattern takes.
func (v values) match(b *strings.Builder, re *syntax.Regexp, most int) {
	repeat := func(low, high int) {
		for range low + v.rng.IntN(high-low+1) {
			v.match(b, re.Sub[0], most)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		i := v.rng.IntN(len(re.Rune)/2) * 2
		b.WriteRune(re.Rune[i] + rune(v.rng.IntN(int(min(re.Rune[i+1], re.Rune[i]+500)-re.Rune[i])+1)))
	case syntax.OpStar:
		repeat(0, most-1)
	case syntax.OpPlus:
		repeat(1, most-1)
	case syntax.OpQuest:
		repeat(0, 1)
	case syntax.OpRepeat:
		repeat(re.Min, max(re.Min, re.Max))
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			v.match(b, sub, most)
		}
	case syntax.OpCapture:
		v.match(b, re.Sub[0], most)
	case syntax.OpAlternate:
		v.match(b, re.Sub[v.rng.IntN(len(re.Sub))], most)
	}
}

func (v values) word() string {
	letters := "abcdefghijklmnopqrstuvwxyzABCXYZ_-./~ 0123456789"
	b := make([]byte, 1+v.rng.IntN(12))
	for i := range b {
		b[i] = letters[v.rng.IntN(len(letters))]
	}
	return string(b)
}

// oddTexts are texts that programs stumble over.
var oddTexts = []string{
	"", " ", "\x00", "a\x00b", "\r\n\r\ndata: [DONE]\n\n", "id: 999\n", "\u2028\u2029", "\ufffd", "\ufeff", "\u202eabc",
	"e\u0301", "\U0001F600", "\U0010FFFF", "\u0130\u0131", "<script>alert(1)</script>", "&<>\"'\\/", "'; DROP TABLE runs; --",
	"${jndi:ldap://x}", "%00%0a", "../../etc/passwd", "null", "undefined", "NaN", "-1", "1e9", "0x10", "true", "[]", "{}",
}

func (v values) unicode() string {
	if v.rng.IntN(3) > 0 {
		return oddTexts[v.rng.IntN(len(oddTexts))]
	}
	text := make([]rune, v.rng.IntN(20))
	for i := range text {
		text[i] = rune(v.rng.IntN(0xD800))
	}
	return string(text)
}

// oddNumbers are numbers, as written in JSON, that languages read differently
// or that lie at a bound.
var oddNumbers = []string{
	"0", "-0", "-1", "1", "0.1", "1.0", "1e3", "-1e-7", "2147483647", "2147483648", "4294967296", "9007199254740991",
	"9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808", "1e21", "1e308", "1e400", "-1e400",
	"0.30000000000000004", "100000000000000000000", strings.Repeat("9", 400),
}

func (v values) number() json.RawMessage {
	return json.RawMessage(oddNumbers[v.rng.IntN(len(oddNumbers))])
}

// place is one value within a document.
type place struct {
	set    func(any)
	remove func() // nil in an array
	get    any
}

func places(root any) []place {
	var all []place
	switch n := root.(type) {
	case map[string]any:
		for _, k := range sortedKeys(n) {
			all = append(all, place{func(x any) { n[k] = x }, func() { delete(n, k) }, n[k]})
			all = append(all, places(n[k])...)
		}
	case []any:
		for i := range n {
			all = append(all, place{func(x any) { n[i] = x }, nil, n[i]})
			all = append(all, places(n[i])...)
		}
	}
	return all
}

// wrongType is a value of another type than x.
func (v values) wrongType(x any) any {
	for {
		y := []any{nil, true, json.RawMessage("17"), 0.5, "text", []any{}, map[string]any{}}[v.rng.IntN(7)]
		if fmt.Sprintf("%T", y) != fmt.Sprintf("%T", x) {
			return y
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func bound(s map[string]any, name string, otherwise int64) int64 {
	n, given := s[name].(json.Number)
	if !given {
		return otherwise
	}
	i, err := strconv.ParseInt(n.String(), 10, 64)
	if err != nil {
		panic(err)
	}
	return i
}

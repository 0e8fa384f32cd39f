package builtin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// find is something of a known kind in a text.
type find struct {
	kind, text string
	start, end int
	used       bool
}

// finds are all of them, in the order of the text.
type finds struct {
	text string
	all  []find
}

var finders = []struct {
	kind string
	re   *regexp.Regexp
}{
	{"url", regexp.MustCompile(`https?://[^\s<>"”']+[^\s<>"”'.,;:!?)]`)},
	{"email", regexp.MustCompile(`[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}`)},
	{"uuid", regexp.MustCompile(`\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b`)},
	{"date-time", regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?`)},
	{"date", regexp.MustCompile(`\b\d{4}-\d{2}-\d{2}\b|\b(?i:\d{1,2}(?:st|nd|rd|th)? (?:of )?(?:january|february|march|april|may|june|july|august|september|october|november|december),? \d{4})\b|\b(?i:(?:january|february|march|april|may|june|july|august|september|october|november|december) \d{1,2}(?:st|nd|rd|th)?,? \d{4})\b`)},
	{"time", regexp.MustCompile(`\b\d{1,2}:\d{2}(?::\d{2})?\b`)},
	{"phone", regexp.MustCompile(`\+\d[\d ()-]{6,}\d`)},
	{"number", regexp.MustCompile(`-?\b\d{1,3}(?:,\d{3})+(?:\.\d+)?\b|-?\b\d+(?:\.\d+)?`)},
	{"quoted", quoted},
	{"name", regexp.MustCompile(`\p{Lu}[\p{L}'’-]*(?: (?:of |de |van |von |the )?\p{Lu}[\p{L}'’-]*)*`)},
}

// mostFinds bounds what is looked for of each kind, so that a long text costs
// no more than its length; what comes later is not seen.
const mostFinds = 300

// scan finds the typed things of a text; a stretch belongs to the first kind
// that claims it, except that names are also found inside quotes.
func scan(text string) finds {
	f := finds{text: text}
	var taken []find
	free := func(start, end int) bool {
		for _, t := range taken {
			if start < t.end && end > t.start {
				return false
			}
		}
		return true
	}
	for _, k := range finders {
		for _, m := range k.re.FindAllStringSubmatchIndex(text, mostFinds) {
			start, end := m[0], m[1]
			if k.kind == "quoted" {
				for g := 2; g+1 < len(m); g += 2 {
					if m[g] >= 0 {
						start, end = m[g], m[g+1]
					}
				}
			}
			if k.kind != "quoted" && !free(start, end) {
				continue
			}
			x := find{kind: k.kind, text: text[start:end], start: start, end: end}
			if k.kind == "name" && !isName(text, &x) {
				continue
			}
			f.all = append(f.all, x)
			if k.kind != "quoted" {
				taken = append(taken, x)
			}
		}
	}
	slices.SortStableFunc(f.all, func(a, b find) int { return a.start - b.start })
	return f
}

// isName drops the word that is capitalised only because a sentence begins.
func isName(text string, x *find) bool {
	before := strings.TrimRight(text[:x.start], " \t\n\"“'(-•*")
	atStart := before == "" || strings.ContainsAny(before[len(before)-1:], ".!?:")
	for atStart {
		first, rest, more := strings.Cut(x.text, " ")
		l := strings.ToLower(first)
		if !stopwords[l] && !imperative[l] && !notOpeners[l] {
			break
		}
		if !more {
			return false
		}
		x.start += len(first) + 1
		x.text = rest
	}
	return x.text != "I"
}

var notOpeners = set("please hello hi hey dear thanks thank yes no not new set schedule add remind create update delete remove today tomorrow yesterday next order book buy call contact meeting subject name from date note there here after before since because while during under over about customer user look up check")

func (f finds) texts(kinds ...string) []string {
	var out []string
	for _, x := range f.all {
		if slices.Contains(kinds, x.kind) && !slices.Contains(out, x.text) {
			out = append(out, x.text)
		}
	}
	return out
}

var ordinal = regexp.MustCompile(`(\d)(?:st|nd|rd|th)\b`)

// isoDate writes a date as YYYY-MM-DD.
func isoDate(s string) (string, bool) {
	s = ordinal.ReplaceAllString(s, "$1")
	s = strings.ReplaceAll(strings.ReplaceAll(s, ",", ""), " of ", " ")
	for _, layout := range []string{"2006-01-02", "2 January 2006", "January 2 2006"} {
		if t, err := time.Parse(layout, titled(s)); err == nil {
			return t.Format(time.DateOnly), true
		}
	}
	return "", false
}

func titled(s string) string {
	f := strings.Fields(strings.ToLower(s))
	for i, w := range f {
		f[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(f, " ")
}

func isoDateTime(s string) (string, bool) {
	s = strings.Replace(s, " ", "T", 1)
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.Format(time.RFC3339), true
		}
	}
	return "", false
}

// flatten writes JSON as "key: value" for people; other text stays.
func flatten(s string) string {
	var v any
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if d.Decode(&v) != nil || d.More() {
		return strings.TrimSpace(s)
	}
	var b bytes.Buffer
	flattenInto(&b, "", v, 0)
	return strings.TrimSuffix(b.String(), "; ")
}

func flattenInto(b *bytes.Buffer, path string, v any, depth int) {
	label := func(key string) string {
		if path == "" {
			return key
		}
		return path + " " + key
	}
	switch x := v.(type) {
	case map[string]any:
		if depth > 20 {
			return
		}
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			flattenInto(b, label(k), x[k], depth+1)
		}
	case []any:
		if depth > 20 {
			return
		}
		for i, e := range x {
			flattenInto(b, label(fmt.Sprint(i+1)), e, depth+1)
		}
	default:
		if path != "" {
			fmt.Fprintf(b, "%s: ", path)
		}
		if v == nil {
			v = "none"
		}
		fmt.Fprintf(b, "%v; ", v)
	}
}

package builtin

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// filler fills a schema from a text. What it takes from the text it takes once,
// so that two numbers do not both become the age.
type filler struct {
	root    *schema
	thread  thread
	text    string
	found   finds
	numbers finds
	// near holds the stems beside each of numbers, the nearest first.
	near  [][2][]string
	stems map[string]bool
	// taken are the places that a pattern matched.
	taken map[int]bool
}

func newFiller(root *schema, t thread, text string) *filler {
	f := &filler{root: root, thread: t, text: text, found: scan(text), numbers: scan(numberWords(text)), stems: setOf(stems(text)), taken: map[int]bool{}}
	for _, x := range f.numbers.all {
		before := rawWords(clause(f.numbers.text[max(0, x.start-60):x.start], true))
		after := rawWords(clause(f.numbers.text[x.end:min(len(f.numbers.text), x.end+60)], false))
		slices.Reverse(before)
		f.near = append(f.near, [2][]string{nearest(before), nearest(after)})
	}
	return f
}

// mark remembers what has been taken; calling the result goes back to it.
func (f *filler) mark() func() {
	found, numbers, taken := slices.Clone(f.found.all), slices.Clone(f.numbers.all), maps.Clone(f.taken)
	return func() {
		copy(f.found.all, found)
		copy(f.numbers.all, numbers)
		f.taken = taken
	}
}

// maxDepth bounds nesting, which references can make endless.
const maxDepth = 12

// fill answers a request for structured output: JSON that fits the schema.
func (t thread) fill(raw json.RawMessage) (string, error) {
	root, err := parseSchema(raw)
	if err != nil {
		return "", err
	}
	text := t.ask
	for _, r := range t.results {
		text += "\n" + r.content
	}
	v, _, err := newFiller(root, t, text).value(root, "", true, 0)
	if err != nil {
		return "", err
	}
	return encode(v)
}

func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(b.String()), nil
}

// value fills one schema; found says whether the text told it. With must unset
// an untold value is nil; with must set it is whatever fits.
func (f *filler) value(s *schema, name string, must bool, depth int) (v any, found bool, err error) {
	if s, err = s.resolve(f.root); err != nil {
		return nil, false, err
	}
	if depth > maxDepth {
		return f.last(s), false, nil
	}
	if len(s.Const) > 0 {
		return s.Const, must, nil
	}
	if len(s.Enum) > 0 {
		return f.enum(s, must)
	}
	if options := append(slices.Clone(s.AnyOf), s.OneOf...); len(options) > 0 && len(s.Properties) == 0 {
		return f.option(options, name, must, depth)
	}
	switch s.typ() {
	case "object":
		return f.object(s, must, depth)
	case "array":
		return f.array(s, name, must, depth)
	case "integer", "number":
		v, found = f.number(s, name, must, s.typ() == "integer")
	case "boolean":
		v, found = f.boolean(s, name, must)
	case "null":
		return nil, must, nil
	default:
		v, found = f.str(s, name, must)
	}
	if !found && s.nullable() {
		v = nil
	}
	return v, found, nil
}

// last is what stands where nesting is too deep to go on.
func (f *filler) last(s *schema) any {
	switch {
	case s.nullable():
		return nil
	case s.typ() == "object":
		return map[string]any{}
	case s.typ() == "array":
		return []any{}
	case s.typ() == "string":
		return ""
	default:
		return json.Number("0")
	}
}

// option takes the first alternative that the text tells, else the first that
// is more than null.
func (f *filler) option(options []*schema, name string, must bool, depth int) (any, bool, error) {
	for _, o := range options {
		undo := f.mark()
		v, found, err := f.value(o, name, false, depth+1)
		if err != nil {
			return nil, false, err
		}
		if found && v != nil {
			return v, true, nil
		}
		undo()
	}
	for _, o := range options {
		r, err := o.resolve(f.root)
		if err != nil {
			return nil, false, err
		}
		if r.typ() == "null" && len(r.Const) == 0 {
			return nil, false, nil
		}
	}
	if !must {
		return nil, false, nil
	}
	return f.value(options[0], name, true, depth+1)
}

// object fills what is required, and what else the text tells. Values that are
// easy to tell apart are taken first, and numbers beside their names before
// the others.
func (f *filler) object(s *schema, must bool, depth int) (any, bool, error) {
	var names []string
	for _, n := range s.Required {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	var optional []string
	for n := range s.Properties {
		if !slices.Contains(names, n) {
			optional = append(optional, n)
		}
	}
	slices.Sort(optional)
	type field struct {
		name     string
		schema   *schema
		required bool
		order    int
	}
	var fields []field
	for i, n := range append(names, optional...) {
		p := s.Properties[n]
		if p == nil {
			p = &schema{}
		}
		r, err := p.resolve(f.root)
		if err != nil {
			return nil, false, err
		}
		fields = append(fields, field{n, p, i < len(names), f.order(r, n)})
	}
	slices.SortStableFunc(fields, func(a, b field) int { return a.order - b.order })
	out := map[string]any{}
	any, complete, undo := false, true, f.mark()
	for _, x := range fields {
		v, found, err := f.value(x.schema, x.name, x.required && must, depth+1)
		if err != nil {
			return nil, false, err
		}
		if found || x.required && must {
			out[x.name] = v
		}
		any = any || found
		complete = complete && (found || !x.required)
	}
	// The top may be incomplete: the caller asks for what is missing.
	if !must && !complete && depth > 0 {
		undo()
		return nil, false, nil
	}
	return out, any || must, nil
}

func (f *filler) order(s *schema, name string) int {
	switch t := s.typ(); {
	case len(s.Const) > 0, len(s.Enum) > 0, t == "boolean":
		return 0
	case t == "integer" || t == "number":
		if f.beside(s, name) >= 0 {
			return 1
		}
		return 2
	case t == "object", t == "array":
		return 5
	case s.Format != "" || s.Pattern != "":
		return 3
	case overlap(nameWords(name), []string{"body", "message", "text", "content", "description", "summary", "query", "note", "answer", "reply", "response"}):
		return 6
	default:
		return 4
	}
}

// nameWords cuts a property name into lower-case words: dueDate, due_date.
func nameWords(name string) []string {
	return words(camel.ReplaceAllString(strings.NewReplacer("_", " ", "-", " ", ".", " ", "/", " ").Replace(name), "$1 $2"))
}

var camel = regexp.MustCompile(`([\p{Ll}\d])(\p{Lu})`)

// hints are words that speak for a value of an enum without naming it.
var hints = map[string]map[string]bool{
	"positive": set("good great love loved excellent happy amazing wonderful fantastic perfect nice thank thanks best awesome glad delighted recommend pleased"),
	"negative": set("bad terrible hate hated awful angry broken worst poor disappointed disappointing slow unhappy useless refund crash crashes crashed fails failed wrong never"),
	"high":     set("urgent urgently asap immediately critical emergency important"),
	"urgent":   set("urgently asap immediately critical emergency"),
	"low":      set("whenever minor trivial eventually someday cosmetic"),
	"bug":      set("crash crashes crashed error broken fails failed bug exception defect"),
	"billing":  set("invoice charged charge refund payment card bill subscription price"),
	"question": set("how what why where wondering"),
}

func (f *filler) enum(s *schema, must bool) (any, bool, error) {
	text := setOf(words(f.text))
	best, score := -1, 0.0
	for i, raw := range s.Enum {
		var word string
		if json.Unmarshal(raw, &word) != nil {
			if slices.Contains(f.found.texts("number"), string(raw)) && score < 1 {
				best, score = i, 1
			}
			continue
		}
		var in, all float64
		for _, w := range nameWords(word) {
			all++
			if text[w] {
				in += 1.2
			} else if st := stem(w); !stopwords[w] && f.stems[st] {
				in++
			}
		}
		if all > 0 && in >= all && in > score {
			best, score = i, in
		}
		n := 0.0
		for w := range hints[strings.ToLower(word)] {
			if text[w] {
				n++
			}
		}
		if n > 0 && 0.5+n/100 > score {
			best, score = i, 0.5+n/100
		}
	}
	if best >= 0 {
		return s.Enum[best], true, nil
	}
	if !must {
		return nil, false, nil
	}
	for _, raw := range s.Enum {
		if len(s.Default) > 0 && bytes.Equal(raw, s.Default) {
			return raw, false, nil
		}
	}
	for _, neutral := range []string{`null`, `"unknown"`, `"other"`, `"none"`, `"neutral"`, `"general"`, `"normal"`, `"medium"`} {
		for _, raw := range s.Enum {
			if string(raw) == neutral {
				return raw, false, nil
			}
		}
	}
	return s.Enum[0], false, nil
}

var denies = set("not no without never isn't don't doesn't wasn't non")

func (f *filler) boolean(s *schema, name string, must bool) (any, bool) {
	label := setOf(stems(strings.Join(nameWords(name), " ")))
	all := words(f.text)
	for i, w := range all {
		if !label[stem(w)] {
			continue
		}
		for _, before := range all[max(0, i-3):i] {
			if denies[before] {
				return false, true
			}
		}
		if i+1 < len(all) && (all[i+1] == "no" || all[i+1] == "false") || i+2 < len(all) && all[i+1] == "is" && denies[all[i+2]] {
			return false, true
		}
		return true, true
	}
	if !must {
		return nil, false
	}
	var d bool
	if json.Unmarshal(s.Default, &d) == nil {
		return d, false
	}
	return false, false
}

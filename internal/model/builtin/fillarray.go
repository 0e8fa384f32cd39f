package builtin

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

func (f *filler) array(s *schema, name string, must bool, depth int) (any, bool, error) {
	items := s.Items
	if items == nil {
		items = &schema{}
	}
	items, err := items.resolve(f.root)
	if err != nil {
		return nil, false, err
	}
	out := []any{}
	for _, p := range s.PrefixItems {
		v, _, err := f.value(p, name, true, depth+1)
		if err != nil {
			return nil, false, err
		}
		out = append(out, v)
	}
	told, err := f.items(s, items, name, depth)
	if err != nil {
		return nil, false, err
	}
	seen := map[string]bool{}
	for _, v := range told {
		key := fmt.Sprint(v)
		if !seen[key] {
			seen[key] = true
			out = append(out, v)
		}
	}
	found := len(out) > len(s.PrefixItems)
	if most := value(s.MaxItems, len(out)); len(out) > most {
		out = out[:max(most, 0)]
	}
	if !must && !found {
		return nil, false, nil
	}
	least := min(value(s.MinItems, 0), 1000)
	for n := 0; len(out) < least; n++ {
		v, err := f.pad(items, name, n, s.UniqueItems, seen, depth)
		if err != nil {
			return nil, false, err
		}
		out = append(out, v)
	}
	return out, found, nil
}

// items are the members that the text tells.
func (f *filler) items(list, s *schema, name string, depth int) ([]any, error) {
	switch {
	case len(s.Const) > 0 || len(s.AnyOf) > 0 || len(s.OneOf) > 0:
		return nil, nil
	case len(s.Enum) > 0:
		return f.mentioned(s), nil
	case s.typ() == "integer", s.typ() == "number":
		var out []any
		for {
			v, found := f.number(s, name, false, s.typ() == "integer")
			if !found {
				return out, nil
			}
			out = append(out, v)
		}
	case s.typ() == "object":
		return f.rows(s, depth)
	case s.typ() == "string":
		var out []any
		for _, v := range f.strings(s, name, list.Description+" "+s.Description) {
			if v, fits := fit(s, v); fits {
				out = append(out, v)
			}
		}
		return out, nil
	default:
		return nil, nil
	}
}

func (f *filler) mentioned(s *schema) []any {
	var out []any
	for _, raw := range s.Enum {
		one := &schema{Enum: []json.RawMessage{raw}}
		if v, found, err := f.enum(one, false); err == nil && found {
			out = append(out, v)
		}
	}
	return out
}

var segmentEnd = regexp.MustCompile(`\n|;`)

// rows fills one object for each line, or else for each sentence, of which the
// text tells something.
func (f *filler) rows(s *schema, depth int) ([]any, error) {
	if depth > 4 {
		return nil, nil
	}
	segments := segmentEnd.Split(f.text, -1)
	if len(segments) == 1 {
		segments = sentences(f.text)
	}
	if len(segments) == 1 {
		if _, rest, ok := strings.Cut(f.text, ":"); ok {
			segments = listItems(rest)
		}
	}
	var out []any
	for _, seg := range segments[:min(len(segments), 100)] {
		if strings.HasSuffix(strings.TrimSpace(seg), ":") {
			continue
		}
		v, found, err := newFiller(f.root, f.thread, seg).value(s, "", false, depth+1)
		if err != nil {
			return nil, err
		}
		if found {
			out = append(out, v)
		}
	}
	return out, nil
}

func (f *filler) strings(s *schema, name, description string) []string {
	n := nameWords(name)
	is := func(list ...string) bool { return overlap(list, n) }
	switch {
	case s.Format == "email" || is("emails", "recipients", "to"):
		if all := f.found.texts("email"); len(all) > 0 || s.Format == "email" {
			return all
		}
	case s.Format == "uri" || s.Format == "url" || is("urls", "links"):
		return f.found.texts("url")
	case s.Format == "date":
		var out []string
		for _, d := range f.found.texts("date") {
			if iso, ok := isoDate(d); ok {
				out = append(out, iso)
			}
		}
		return out
	case s.Format != "":
		return nil
	}
	if list := f.listAfter(n); len(list) > 0 {
		return list
	}
	switch {
	case is("people", "names", "attendees", "persons", "participants", "cities", "places", "companies", "entities", "authors", "guests", "invitees"):
		return f.found.texts("name")
	case is("sentences", "points", "lines", "steps"):
		return sentences(f.text)
	case is("words"):
		return rawWords(f.text)
	case is("keywords", "tags", "topics"):
		return frequent(f.text, 5)
	}
	if all := f.found.texts("quoted"); len(all) > 0 {
		return all
	}
	if _, rest, ok := strings.Cut(f.text, ":"); ok {
		if list := listItems(rest); len(list) > 1 {
			return list
		}
	}
	if m := commaList.FindString(f.text); m != "" {
		return listItems(m)
	}
	return nil
}

var commaList = regexp.MustCompile(`[\p{L}\d'’-]+(?: [\p{L}\d'’-]+)?(?:, [\p{L}\d'’-]+(?: [\p{L}\d'’-]+)?)*,? and [\p{L}\d'’-]+(?: [\p{L}\d'’-]+)?`)

// listAfter finds "ingredients: flour, eggs and milk".
func (f *filler) listAfter(name []string) []string {
	if len(name) == 0 {
		return nil
	}
	label := regexp.QuoteMeta(strings.Join(name, " "))
	label = strings.TrimSuffix(label, "s")
	re := compilePattern(`(?i)\b` + label + `s?\b(?:\s*[:=]|\s+(?:are|is|include|including|such as|like))\s*([^.;\n]+)`)
	if re == nil {
		return nil
	}
	if m := re.FindStringSubmatch(f.text); m != nil {
		return listItems(m[1])
	}
	return nil
}

// frequent gives the content words that a text uses most, in the order in
// which they first appear.
func frequent(text string, n int) []string {
	tf, first := map[string]int{}, map[string]string{}
	var order []string
	for _, w := range words(text) {
		if stopwords[w] || len(w) < 4 {
			continue
		}
		st := stem(w)
		if tf[st]++; tf[st] == 1 {
			first[st] = w
			order = append(order, st)
		}
	}
	ranked := slices.Clone(order)
	slices.SortStableFunc(ranked, func(a, b string) int { return tf[b] - tf[a] })
	keep := setOf(ranked[:min(n, len(ranked))])
	var out []string
	for _, st := range order {
		if keep[st] {
			out = append(out, first[st])
		}
	}
	return out
}

// pad makes a member that the text did not tell, because the schema wants more.
func (f *filler) pad(s *schema, name string, n int, unique bool, seen map[string]bool, depth int) (any, error) {
	v, _, err := f.value(s, name, true, depth+1)
	if err != nil || !unique {
		return v, err
	}
	for try := 0; seen[fmt.Sprint(v)] && try < 50; try++ {
		switch {
		case len(s.Enum) > 0:
			v = s.Enum[(n+try)%len(s.Enum)]
		case s.typ() == "string":
			text, _ := fit(s, fmt.Sprintf("%s %d", f.anyText(name), n+try+1))
			v = text
		case s.typ() == "integer", s.typ() == "number":
			bumped, ok := rat(json.RawMessage(fmt.Sprint(n + try + 1)))
			if ok {
				v = decimal(s.bounded(bumped, s.typ() == "integer"))
			}
		case s.typ() == "boolean":
			v = try%2 == 0
		}
	}
	seen[fmt.Sprint(v)] = true
	return v, nil
}

package builtin

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

var (
	afterPlace  = regexp.MustCompile(`\b(?:in|at|near|for|to|of)\s+(\p{Lu}[\p{L}'’-]*(?:[ -]\p{Lu}[\p{L}'’-]*)*)`)
	afterFrom   = regexp.MustCompile(`\bfrom\s+(\p{Lu}[\p{L}'’-]*(?:[ -]\p{Lu}[\p{L}'’-]*)*)`)
	afterTo     = regexp.MustCompile(`\bto\s+(\p{Lu}[\p{L}'’-]*(?:[ -]\p{Lu}[\p{L}'’-]*)*)`)
	afterPerson = regexp.MustCompile(`\b(?:for|with|to|by|named|called|name is|am|from|contact|customer|user|invite|assign(?:ed)? to|this is)\s+(\p{Lu}[\p{L}'’-]*(?: \p{Lu}[\p{L}'’-]*)*)`)
	searchFor   = regexp.MustCompile(`(?is)^(?:please |can you |could you |i want to |help me )?(?:search|look up|look for|find|google|query|fetch|get|show|research)(?: me)?(?: (?:the|our|my|this) (?:web|internet|docs|documentation|knowledge base|catalog|site|archive|timeline|history|log|thread|conversation)| online| docs| documentation)?(?: (?:for|about|on))?\s+(.+?)[\s.?!]*$`)
	saying      = regexp.MustCompile(`(?is)\b(?:saying|that says|says|that reads|reading|with the (?:text|message|body)|to say|remind me to|reminder to|note that|note to|tell(?:ing)? (?:him|her|them) (?:that )?)[\s:]+(.+?)\s*$`)
	aboutWhat   = regexp.MustCompile(`(?i)\b(?:about|regarding|titled|concerning|subject|entitled|called|on the topic of)\s+["“]?([^,.;\n"”]+)`)
	whenWords   = regexp.MustCompile(`(?i)\b(?:(?:this|next|on) )?(?:today|tomorrow|tonight|monday|tuesday|wednesday|thursday|friday|saturday|sunday)\b(?: (?:morning|afternoon|evening|night))?|\bnext (?:week|month|year)\b|\bin \d+ (?:minutes|hours|days|weeks)\b`)
	clockTime   = regexp.MustCompile(`(?i)\b\d{1,2}(?::\d{2})?\s?(?:am|pm)\b|\b\d{1,2}:\d{2}\b|\bnoon\b|\bmidnight\b`)
	codeLike    = regexp.MustCompile(`#\d+\b|\b[A-Z]{2,}-?\d+\b|\b[A-Z]+\d[A-Z\d-]*\b`)
	afterCount  = regexp.MustCompile(`\b\d+\s*(?:x |× |pieces of |units of |boxes of )?\s*(\p{L}[\p{L} -]*)`)
	currency    = regexp.MustCompile(`\b(?:USD|EUR|GBP|JPY|CHF|CAD|AUD|SEK|NOK|DKK|BTC)\b`)
	repository  = regexp.MustCompile(`(?:^|[\s("'])([A-Za-z0-9][\w.-]*)/([A-Za-z0-9](?:[\w.-]*\w)?)(?:$|[\s)"'.,;:!?#])`)
	language    = regexp.MustCompile(`\b(?:in|to|into)\s+(English|French|German|Spanish|Italian|Dutch|Japanese|Chinese|Russian|Portuguese|Arabic|Korean|Polish|Swedish|Go|Python|JavaScript|TypeScript|PHP|Ruby|Rust|Java)\b`)
)

// str fills a string: by format, by a label in the text, by what the name is
// for, and at last by whatever is left.
func (f *filler) str(s *schema, name string, must bool) (any, bool) {
	if v, ok := f.strFound(s, name); ok {
		if v, fits := fit(s, v); fits {
			return v, true
		}
	}
	if !must {
		return nil, false
	}
	for _, raw := range append([]json.RawMessage{s.Default}, s.Examples...) {
		var d string
		if json.Unmarshal(raw, &d) == nil {
			if v, fits := fit(s, d); fits {
				return v, false
			}
		}
	}
	if s.Pattern != "" {
		if v, ok := sample(s.Pattern, value(s.MinLength, 0)); ok {
			return v, false
		}
	}
	fallback := map[string]string{
		"email": "unknown@example.com", "uri": "https://example.com/", "url": "https://example.com/", "date": "1970-01-01",
		"date-time": "1970-01-01T00:00:00Z", "time": "00:00:00Z", "uuid": "00000000-0000-0000-0000-000000000000",
		"hostname": "example.com", "ipv4": "0.0.0.0", "ipv6": "::", "duration": "PT0S",
	}
	if d, ok := fallback[s.Format]; ok {
		return d, false
	}
	v, _ := fit(s, f.anyText(name))
	return v, false
}

func value(p *int, none int) int {
	if p == nil {
		return none
	}
	return *p
}

// fit brings a text within the lengths of a schema, and says whether the
// pattern and the format allow it.
func fit(s *schema, v string) (string, bool) {
	r := []rune(v)
	if m := value(s.MaxLength, len(r)); len(r) > m {
		r = r[:max(m, 0)]
	}
	for n := min(value(s.MinLength, 0), 100_000); len(r) < n; {
		r = append(r, '.')
	}
	v = string(r)
	if s.Pattern != "" {
		if re := compilePattern(s.Pattern); re == nil || !re.MatchString(v) {
			return v, false
		}
	}
	return v, true
}

// take uses up the first thing of a kind.
func (f *filler) take(kinds ...string) (string, bool) {
	for i := range f.found.all {
		if x := &f.found.all[i]; slices.Contains(kinds, x.kind) && !x.used {
			x.used = true
			return x.text, true
		}
	}
	return "", false
}

// takeText uses up what stands at a text that another rule found.
func (f *filler) takeText(text string) (string, bool) {
	text = strings.TrimSpace(text)
	for i := range f.found.all {
		if x := &f.found.all[i]; strings.Contains(text, x.text) || strings.Contains(x.text, text) {
			if x.used {
				return "", false
			}
			x.used = true
		}
	}
	return text, text != ""
}

func (f *filler) strFound(s *schema, name string) (string, bool) {
	switch s.Format {
	case "email", "idn-email":
		return f.take("email")
	case "uri", "url", "iri", "uri-reference":
		return f.take("url")
	case "uuid":
		return f.take("uuid")
	case "date":
		if d, ok := f.take("date"); ok {
			return isoDate(d)
		}
		return "", false
	case "date-time":
		if d, ok := f.take("date-time"); ok {
			return isoDateTime(d)
		}
		if d, ok := f.take("date"); ok {
			iso, ok := isoDate(d)
			return iso + "T00:00:00Z", ok
		}
		return "", false
	case "time", "hostname", "ipv4", "ipv6", "duration":
		return "", false
	}
	if s.Pattern != "" {
		if re := compilePattern(s.Pattern); re != nil {
			free := strings.TrimSuffix(strings.TrimPrefix(s.Pattern, "^"), "$")
			if re := compilePattern(`(?:^|[\s("'#])(` + free + `)(?:$|[\s)"',.;:!?])`); re != nil {
				for _, m := range re.FindAllStringSubmatchIndex(f.text, mostFinds) {
					if m[2] < m[3] && !f.taken[m[2]] {
						f.taken[m[2]] = true
						return f.text[m[2]:m[3]], true
					}
				}
			}
		}
	}
	if v, ok := f.labelled(name); ok {
		return v, true
	}
	return f.byName(s, name)
}

// labelled finds "due date: Friday" and "the title is …".
func (f *filler) labelled(name string) (string, bool) {
	label := nameWords(name)
	if len(label) == 0 {
		return "", false
	}
	for i := range label {
		label[i] = regexp.QuoteMeta(label[i])
	}
	re := compilePattern(`(?i)\b` + strings.Join(label, `[ _-]?`) + `\b(?:\s*[:=]\s*|\s+(?:is|are|was|will be|called|named)\s+)(?:"([^"\n]+)"|“([^”\n]+)”|([^,;\n]+?)(?:[,;\n]|[.!?](?:\s|$)|\s+and\s+(?:my|the|his|her|our|their|it|she|he|they|i)\b|$))`)
	if re == nil {
		return "", false
	}
	m := re.FindStringSubmatch(f.text)
	if m == nil {
		return "", false
	}
	return f.takeText(m[1] + m[2] + m[3])
}

func (f *filler) match(re *regexp.Regexp) (string, bool) {
	for _, m := range re.FindAllStringSubmatch(f.text, mostFinds) {
		if v, ok := f.takeText(strings.TrimRight(m[len(m)-1], " .!?\"”'")); ok {
			return v, true
		}
	}
	return "", false
}

// byName uses what a property of this name is usually for.
func (f *filler) byName(s *schema, name string) (string, bool) {
	n := nameWords(name)
	about := append(slices.Clone(n), words(s.Description)...)
	is := func(list ...string) bool { return overlap(list, n) }
	says := func(list ...string) bool { return overlap(list, about) }
	try := func(rules ...func() (string, bool)) (string, bool) {
		for _, r := range rules {
			if v, ok := r(); ok {
				return v, true
			}
		}
		return "", false
	}
	kind := func(kinds ...string) func() (string, bool) { return func() (string, bool) { return f.take(kinds...) } }
	by := func(re *regexp.Regexp) func() (string, bool) { return func() (string, bool) { return f.match(re) } }
	if m := repository.FindStringSubmatch(f.text); m != nil {
		switch name { // as in openagents/runtime
		case "owner":
			return m[1], true
		case "repo":
			return m[2], true
		case "repository":
			return m[1] + "/" + m[2], true
		}
	}
	switch {
	case says("email", "e-mail") && !is("subject", "body", "message", "text", "content", "title"):
		return f.take("email")
	case is("url", "link", "uri", "website", "page"):
		return f.take("url")
	case is("to", "recipient", "recipients", "receiver"):
		return try(kind("email"), by(afterTo), kind("name"))
	case is("date", "day", "when", "due", "deadline"):
		return try(kind("date", "date-time"), by(whenWords))
	case is("time", "hour", "at"):
		return try(by(clockTime), kind("date-time"))
	case is("phone", "telephone", "mobile"):
		return f.take("phone")
	case is("currency"):
		return f.match(currency)
	case is("language", "lang", "locale"):
		return f.match(language)
	case is("origin", "from", "departure", "source"):
		return f.match(afterFrom)
	case is("destination"):
		return try(by(afterTo), by(afterPlace))
	case is("city", "location", "place", "country", "where", "town", "region", "address"):
		return try(by(afterPlace), kind("name"))
	case is("expression", "formula", "calculation", "equation"):
		e := strings.TrimSpace(leadOut.ReplaceAllString(leadIn.ReplaceAllString(strings.ToLower(f.text), ""), ""))
		return e, strings.ContainsAny(e, "0123456789")
	case is("query", "q", "search", "keyword", "keywords", "term", "terms", "question"):
		return try(kind("quoted"), by(searchFor))
	case is("subject", "title", "headline", "topic"):
		return try(kind("quoted"), by(aboutWhat))
	case is("body", "message", "text", "content", "note", "comment", "task", "reminder", "description", "details"):
		return try(kind("quoted"), by(saying))
	case is("answer", "reply", "response"):
		return f.thread.talk(), true
	case is("summary"):
		if all := sentences(f.text); len(all) > 0 {
			return strings.Join(central(all, 1), " "), true
		}
		return "", false
	case is("product", "item", "article", "goods", "thing"):
		return try(kind("quoted"), by(afterCount))
	case is("id", "ticket", "order", "code", "number", "reference", "sku", "issue", "repo", "repository"):
		return try(kind("uuid"), by(codeLike))
	case is("name", "person", "customer", "user", "contact", "assignee", "author", "owner", "who", "attendee", "company", "sender"):
		return try(func() (string, bool) {
			if v := nameIn(f.text); v != "" {
				return f.takeText(v)
			}
			return "", false
		}, by(afterPerson), kind("name"))
	}
	return "", false
}

// anyText is what a required string holds when no rule knows better.
func (f *filler) anyText(name string) string {
	if overlap(nameWords(name), []string{"body", "message", "text", "content", "description", "query", "input", "note", "title", "subject"}) || name == "" {
		return f.text
	}
	for _, kind := range []string{"quoted", "name"} {
		if v, ok := f.take(kind); ok {
			return v
		}
	}
	return "unknown"
}

package builtin

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

var (
	summarises = regexp.MustCompile(`(?i)\b(?:summari[sz]e|sum up|tl;?dr|shorten|give (?:me )?(?:a|the) (?:short )?summary|key points?|main points?|in short)\b`)
	howShort   = regexp.MustCompile(`(?i)\bin (?:just )?(one|two|three|four|five|1|2|3|4|5|a) (?:short )?(?:sentences?|lines?|bullets?)\b`)
	listing    = regexp.MustCompile(`(?i)^(?:please )?(?:list|extract|find|give me|show(?: me)?|name|what are)\b(?: all)?(?: of)?(?: the)?\s+(e-?mail(?: addresse?)?s?|urls?|links?|dates?|numbers?|names?|sentences|words)\b`)
)

// digest summarises or lists out of a text that the message holds, or else the
// latest long message of the thread.
func (t thread) digest() (string, bool) {
	head := t.ask
	if i := strings.IndexAny(head, ":\n"); i >= 0 {
		head = head[:i]
	}
	if len(head) > 200 {
		head = head[:200]
	}
	if m := listing.FindStringSubmatch(head); m != nil {
		if found := extract(strings.ToLower(m[1]), t.given(len(m[0]))); len(found) > 0 {
			return "- " + strings.Join(found, "\n- "), true
		}
		return "I find no " + strings.ToLower(m[1]) + " there.", true
	}
	at := summarises.FindStringIndex(t.ask)
	if at == nil {
		return "", false
	}
	text := t.given(at[1])
	all := sentences(text)
	if len(all) == 0 {
		return "Give me the text to summarise, after a colon.", true
	}
	n := min(max(len(all)/3, 1), 3)
	if m := howShort.FindStringSubmatch(t.ask); m != nil {
		n = map[string]int{"one": 1, "a": 1, "1": 1, "two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4, "five": 5, "5": 5}[strings.ToLower(m[1])]
	}
	return strings.Join(central(all, n), " "), true
}

// given is the text that an instruction is about.
func (t thread) given(after int) string {
	if i := strings.IndexAny(t.ask, ":\n"); i >= 0 && strings.TrimSpace(t.ask[i+1:]) != "" {
		return t.ask[i+1:]
	}
	if m := quoted.FindStringSubmatch(t.ask); m != nil {
		return m[1] + m[2] + m[3]
	}
	if all := sentences(t.ask); len(all) > 2 {
		return strings.Join(all[1:], " ")
	}
	for i := len(t.earlier) - 1; i >= 0; i-- {
		if len(sentences(t.earlier[i].Content)) > 1 {
			return t.earlier[i].Content
		}
	}
	return t.ask[after:]
}

// central picks the n sentences whose words the text uses most, and keeps
// their order. The first sentence has an advantage: texts say there what they
// are about.
func central(all []string, n int) []string {
	if n >= len(all) {
		return all
	}
	tf := map[string]int{}
	for _, s := range all {
		for w := range setOf(stems(s)) {
			tf[w]++
		}
	}
	type rated struct {
		at    int
		score float64
	}
	var r []rated
	for i, s := range all {
		st := stems(s)
		sum := 0
		seen := map[string]bool{}
		for _, w := range st {
			if !seen[w] {
				sum += tf[w] - 1
				seen[w] = true
			}
		}
		score := float64(sum) / float64(max(len(st), 4))
		if i == 0 {
			score = score*1.5 + 0.1
		}
		r = append(r, rated{i, score})
	}
	slices.SortStableFunc(r, func(a, b rated) int {
		if a.score > b.score {
			return -1
		}
		if a.score < b.score {
			return 1
		}
		return a.at - b.at
	})
	r = r[:n]
	slices.SortFunc(r, func(a, b rated) int { return a.at - b.at })
	var out []string
	for _, x := range r {
		out = append(out, all[x.at])
	}
	return out
}

func extract(kind, text string) []string {
	f := scan(text)
	switch kind = strings.TrimSuffix(strings.ReplaceAll(kind, "-", ""), "s"); {
	case strings.HasPrefix(kind, "email"):
		return f.texts("email")
	case kind == "url" || kind == "link":
		return f.texts("url")
	case kind == "date":
		return f.texts("date")
	case kind == "number":
		return f.texts("number")
	case kind == "name":
		return f.texts("name")
	case kind == "sentence":
		return sentences(text)
	default:
		return rawWords(text)
	}
}

// fromResults answers from what tools returned.
func (t thread) fromResults() string {
	var out []string
	for _, r := range t.results {
		name := r.tool
		if name == "" {
			name = "the tool"
		}
		text := flatten(r.content)
		failed := failureOf(r.content)
		switch {
		case failed != "":
			out = append(out, fmt.Sprintf("The tool %s did not do it: %s", name, failed))
		case strings.TrimSpace(text) == "":
			out = append(out, fmt.Sprintf("The tool %s returned nothing.", name))
		case len(text) <= 600:
			out = append(out, fmt.Sprintf("According to %s: %s", name, text))
		default:
			out = append(out, fmt.Sprintf("According to %s: %s", name, t.relevant(text)))
		}
	}
	return strings.Join(out, "\n")
}

// failureOf is why a call failed, when its result says that it did: an object
// with an error and a message.
func failureOf(content string) string {
	var failed struct{ Error, Message string }
	if json.Unmarshal([]byte(content), &failed) != nil || failed.Error == "" || failed.Message == "" {
		return "" // it is what the tool found
	}
	return failed.Message
}

// relevant cuts a long result to the sentences that the question is about.
func (t thread) relevant(text string) string {
	var from []source
	for _, s := range sentences(text) {
		from = append(from, source{text: s, stems: stems(s), weight: 1})
	}
	if best := choose(stems(t.ask), nil, t.ask, from); len(best) > 0 {
		return strings.TrimPrefix(cite(best), " ")
	}
	var all []string
	for _, s := range from {
		all = append(all, s.text)
	}
	return strings.Join(central(all, 3), " ")
}

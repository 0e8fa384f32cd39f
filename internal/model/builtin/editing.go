package builtin

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

var (
	quoted     = regexp.MustCompile(`"([^"]+)"|“([^”]+)”|(?:^|[\s:(])'([^']+)'(?:$|[\s.,;:!?)])`)
	caseWord   = regexp.MustCompile(`(?i)\b(upper ?case|capital letters|all caps|lower ?case|title ?case)\b`)
	caseVerb   = regexp.MustCompile(`(?i)^(?:please |can you |could you )?(?:convert|write|make|put|turn|change|transform|uppercase|lowercase|upper ?case|lower ?case|print|rewrite)\b`)
	reverses   = regexp.MustCompile(`(?i)^(?:please |can you |could you )?(?:reverse|spell backwards|write backwards)\b(?: the)?(?: (words|word|string|text|sentence|letters|phrase|order of(?: the)? words))?(?: (?:in|of))?:?\s*(.+)$`)
	counts     = regexp.MustCompile(`(?i)(?:how many|count(?: the)?(?: number of)?)\s+(words|letters|characters|sentences|vowels|lines|digits)\b(.*)$`)
	letterIn   = regexp.MustCompile(`(?i)(?:how many|count(?: the)?)\s+(?:times does |letters? |of the letter )?["'“]?(\p{L})["'”]?(?:'?s)?\s+(?:letters? |appears? |are |is |occurs? )*(?:there )?in\s+(?:the word )?(.+)$`)
	sorts      = regexp.MustCompile(`(?i)^(?:please )?(?:sort|order|alphabeti[sz]e)\b[^:]*:\s*(.+)$`)
	echoes     = regexp.MustCompile(`(?i)^(?:please )?(?:repeat(?: after me)?|echo|say)(?:\s*:\s*|\s+)(.+)$`)
	operandEnd = regexp.MustCompile(`^[\s:]*(?:are |is |does )?(?:there )?(?:in |of )?(?:the |this |following )*(?:word |words |string |text |sentence |phrase |following )*(?:to |into |in )?(?:upper ?case|lower ?case|title ?case|capital letters|all caps)?[\s:]*`)
)

// operand is what an instruction works on: what stands in quotes, after a colon
// or else in the rest of it.
func operand(whole, rest string) string {
	if m := quoted.FindStringSubmatch(whole); m != nil {
		return m[1] + m[2] + m[3]
	}
	if _, after, ok := strings.Cut(whole, ":"); ok && strings.TrimSpace(after) != "" {
		return strings.TrimSpace(after)
	}
	rest = operandEnd.ReplaceAllString(rest, "")
	return strings.Trim(rest, " \t\n?\"“”")
}

// editing changes or counts a text that the message holds.
func (t thread) editing() (string, bool) {
	s := t.ask
	if m := letterIn.FindStringSubmatch(s); m != nil {
		in := operand(s[len(s)-len(m[2]):], m[2])
		n := strings.Count(strings.ToLower(in), strings.ToLower(m[1]))
		return fmt.Sprintf("The letter %q is in %s %s.", strings.ToLower(m[1]), quote(in), times(n)), true
	}
	if m := counts.FindStringSubmatch(s); m != nil {
		if in := operand(s, m[2]); in != "" && !strings.EqualFold(in, "this") {
			what := strings.ToLower(m[1])
			return fmt.Sprintf("There are %d %s in %s.", count(what, in), what, quote(in)), true
		}
	}
	if m := reverses.FindStringSubmatch(s); m != nil {
		in := operand(s, m[2])
		if strings.Contains(strings.ToLower(m[1]), "words") {
			f := strings.Fields(in)
			slices.Reverse(f)
			return strings.Join(f, " "), true
		}
		r := []rune(in)
		slices.Reverse(r)
		return string(r), true
	}
	if m := caseWord.FindStringSubmatchIndex(s); m != nil && caseVerb.MatchString(s) {
		return changeCase(s, m), true
	}
	if m := sorts.FindStringSubmatch(s); m != nil {
		items := listItems(m[1])
		slices.SortStableFunc(items, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
		return strings.Join(items, ", "), true
	}
	if m := echoes.FindStringSubmatch(s); m != nil && !strings.Contains(strings.ToLower(s), " in ") {
		return operand(s, m[1]), true
	}
	return "", false
}

func changeCase(s string, at []int) string {
	verb := caseVerb.FindStringIndex(s)
	rest := strings.TrimSpace(s[at[1]:])
	// "make hello upper case": the text stands between verb and case.
	if verb[1] < at[0] {
		if middle := strings.TrimSpace(s[verb[1]:at[0]]); !strings.EqualFold(middle, "to") && !strings.EqualFold(middle, "in") &&
			!strings.EqualFold(middle, "this to") && !strings.EqualFold(middle, "this in") {
			for _, p := range []string{" to", " into", " in", " all"} {
				middle = strings.TrimSuffix(middle, p)
			}
			rest = middle
		}
	}
	in := operand(s, rest)
	switch w := strings.ToLower(strings.ReplaceAll(s[at[2]:at[3]], " ", "")); {
	case w == "lowercase":
		return strings.ToLower(in)
	case w == "titlecase":
		f := strings.Fields(strings.ToLower(in))
		for i := range f {
			r := []rune(f[i])
			r[0] = unicode.ToUpper(r[0])
			f[i] = string(r)
		}
		return strings.Join(f, " ")
	default:
		return strings.ToUpper(in)
	}
}

func count(what, s string) int {
	n := 0
	switch what {
	case "words":
		return len(rawWords(s))
	case "sentences":
		return len(sentences(s))
	case "lines":
		return strings.Count(s, "\n") + 1
	}
	for _, r := range s {
		switch {
		case what == "characters",
			what == "letters" && unicode.IsLetter(r),
			what == "digits" && unicode.IsDigit(r),
			what == "vowels" && strings.ContainsRune("aeiouAEIOU", r):
			n++
		}
	}
	return n
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	default:
		return fmt.Sprintf("%d times", n)
	}
}

var itemEnd = regexp.MustCompile(`\s*(?:[,;\n]+(?:\s*and\s+)?|\s+and\s+)\s*`)

// listItems cuts "a, b and c".
func listItems(s string) []string {
	var out []string
	for _, i := range itemEnd.Split(s, -1) {
		if i = strings.Trim(i, " \t.?!-*•"); i != "" {
			out = append(out, i)
		}
	}
	return out
}

package builtin

import (
	"math"
	"strings"
	"unicode"
)

// words gives the lower-case words of a text; apostrophes inside stay.
func words(s string) []string {
	var out []string
	for _, w := range rawWords(s) {
		out = append(out, strings.ToLower(w))
	}
	return out
}

func rawWords(s string) []string {
	fields := strings.FieldsFunc(strings.ReplaceAll(s, "’", "'"), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\''
	})
	out := fields[:0]
	for _, f := range fields {
		if f = strings.Trim(f, "'"); f != "" {
			out = append(out, f)
		}
	}
	return out
}

var stopwords = set(`a an and any are as at be been but by can could did do does for from had has have he her
	hers him his how i if in into is it its just me my of on or our ours please she should so some tell than that
	the their them then there these they this those to us was we were what when where which who whom whose why will
	with would you your yours about also am let's i'm it's what's who's where's when's give show say said kindly`)

// alike joins words that people use for one another.
var alike = map[string]string{
	"called": "name", "named": "name", "call": "name", "reside": "live", "home": "live", "cost": "price", "fee": "price",
	"begin": "start", "begun": "start", "began": "start", "commence": "start", "open": "start", "ended": "end",
	"finish": "end", "close": "end", "bought": "buy", "purchase": "buy", "wrote": "write", "written": "write",
	"author": "write", "born": "birth", "birthday": "birth", "founded": "found", "established": "found", "built": "build",
	"made": "make", "sent": "send", "mail": "email", "e-mail": "email", "met": "meet", "led": "lead", "won": "win",
	"ran": "run", "taught": "teach", "held": "hold", "favourite": "favorit", "favorite": "favorit", "colour": "color",
	"job": "work", "occupation": "work", "lookup": "search", "find": "search", "told": "tell", "left": "leave",
	"forecast": "weather", "picture": "image", "photo": "image", "children": "child", "people": "person",
}

// stem brings the forms of a word together: plural, -ing, -ed, -ly, possessive.
func stem(w string) string {
	w = strings.TrimSuffix(w, "'s")
	if a, ok := alike[w]; ok {
		return a
	}
	cut := func(suffix, to string, keep int) bool {
		if strings.HasSuffix(w, suffix) && len(w)-len(suffix) >= keep {
			w = w[:len(w)-len(suffix)] + to
			return true
		}
		return false
	}
	switch {
	case cut("ies", "y", 2), cut("sses", "ss", 2), cut("xes", "x", 2), cut("ches", "ch", 2), cut("shes", "sh", 2):
	case strings.HasSuffix(w, "ss"), strings.HasSuffix(w, "us"), strings.HasSuffix(w, "is"):
	default:
		cut("s", "", 3)
	}
	switch {
	case cut("ation", "", 4), cut("ator", "", 4), cut("ating", "", 4), cut("ated", "", 4), cut("ate", "", 4):
	case cut("ing", "", 3), cut("ed", "", 3), cut("ly", "", 4), cut("er", "", 4), cut("or", "", 4), cut("ion", "", 4):
	}
	if n := len(w); n > 4 && w[n-1] == w[n-2] && strings.IndexByte("bdgmnprt", w[n-1]) >= 0 {
		w = w[:n-1]
	}
	w = strings.TrimSuffix(w, "e")
	if a, ok := alike[w]; ok {
		return a
	}
	return w
}

// stems gives the stems of a text's content words.
func stems(s string) []string {
	var out []string
	for _, w := range words(s) {
		if !stopwords[w] {
			out = append(out, stem(w))
		}
	}
	return out
}

func set(list string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(list) {
		m[w] = true
	}
	return m
}

func setOf(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, w := range list {
		m[w] = true
	}
	return m
}

var abbreviations = set("mr mrs ms dr prof st vs no e.g i.e etc inc ltd co jr sr")

// sentences cuts a text at sentence ends and line ends.
func sentences(s string) []string {
	var out []string
	runes := []rune(s)
	start := 0
	flush := func(end int) {
		if t := strings.TrimSpace(string(runes[start:end])); t != "" {
			out = append(out, t)
		}
		start = end
	}
	for i, r := range runes {
		switch {
		case r == '\n':
			flush(i + 1)
		case r == '.' || r == '!' || r == '?':
			j := i + 1
			for j < len(runes) && strings.ContainsRune(`"'”’)`, runes[j]) {
				j++
			}
			if j < len(runes) && !unicode.IsSpace(runes[j]) {
				continue
			}
			if r == '.' {
				before := strings.Fields(string(runes[start:i]))
				if len(before) > 0 {
					last := strings.ToLower(strings.Trim(before[len(before)-1], `"'(`))
					if abbreviations[last] || len(last) == 1 && last >= "a" && last <= "z" && last != "i" {
						continue
					}
				}
			}
			flush(j)
		}
	}
	flush(len(runes))
	return out
}

// scores rates each document against the query's stems by BM25, and says which
// share of the query's weight it holds.
func scores(query []string, docs [][]string) (score, share []float64) {
	const k1, b = 1.2, 0.5
	total, df := 0, map[string]int{}
	for _, d := range docs {
		total += len(d)
		for w := range setOf(d) {
			df[w]++
		}
	}
	mean := float64(max(total, 1)) / float64(max(len(docs), 1))
	idf := func(w string) float64 {
		return math.Log(1 + (float64(len(docs))-float64(df[w])+0.5)/(float64(df[w])+0.5))
	}
	unique := setOf(query)
	score, share = make([]float64, len(docs)), make([]float64, len(docs))
	for i, d := range docs {
		tf := map[string]int{}
		for _, w := range d {
			tf[w]++
		}
		found := 0
		seen := map[string]bool{}
		for _, w := range query {
			if seen[w] || tf[w] == 0 {
				continue
			}
			seen[w] = true
			found++
			f := float64(tf[w])
			score[i] += idf(w) * f * (k1 + 1) / (f + k1*(1-b+b*float64(len(d))/mean))
		}
		if len(unique) > 0 {
			share[i] = float64(found) / float64(len(unique))
		}
	}
	return score, share
}

package builtin

import (
	"regexp"
	"strings"
	"unicode"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// source is a sentence that may answer, and where it comes from.
type source struct {
	text, intro string
	stems       []string
	weight      float64
}

var (
	instructs = regexp.MustCompile(`(?i)\b(?:you|your|answer|respond|reply|always|never|do not|don't|must)\b`)
	timeLike  = regexp.MustCompile(`(?i)\b\d{1,4}\b|\b(?:january|february|march|april|may|june|july|august|september|october|november|december|monday|tuesday|wednesday|thursday|friday|saturday|sunday|today|tomorrow|yesterday|noon|midnight|morning|evening|spring|summer|autumn|winter|century)\b`)
	placeLike = regexp.MustCompile(`\b(?:in|at|near|from|to|on|under|behind|between|inside)\s+(?:the\s+)?(?:[A-Z]|\w+)`)
	countLike = regexp.MustCompile(`(?i)\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozen|hundred|thousand|million|half|several|none)\b`)
	causeLike = regexp.MustCompile(`(?i)\b(?:because|since|due to|so that|therefore|as a result|in order to|caused?|reason)\b`)
)

// quoting answers a question by the sentences that fit it best.
func (t thread) quoting() (string, bool) {
	question, passage := t.question()
	if question == "" {
		return "", false
	}
	sources := t.sources(passage)
	query := stems(question)
	if best := choose(query, nil, question, sources); len(best) > 0 {
		return cite(best), true
	}
	// A question such as "and when?" leans on the one before it.
	said := t.said(model.RoleUser)
	if len(said) == 0 || len(passage) > 0 {
		return "", false
	}
	if before := stems(said[len(said)-1]); len(before) > 0 && len(words(question)) <= 8 {
		if best := choose(append(before, query...), query, question, sources); len(best) > 0 {
			return cite(best), true
		}
	}
	return "", false
}

// question finds the question of the latest message, and the sentences given
// beside it.
func (t thread) question() (question string, passage []string) {
	for _, s := range sentences(t.ask) {
		body := strings.TrimSpace(s)
		if q, ok := cutPrefixFold(body, "question:", "q:"); ok {
			question = q
			continue
		}
		if p, ok := cutPrefixFold(body, "text:", "context:", "passage:", "document:", "given:"); ok {
			body = p
		}
		if isQuestion.MatchString(body) || asksToTell.MatchString(body) {
			if head, rest, ok := strings.Cut(body, ": "); ok && len(stems(rest)) > len(stems(head)) && !isQuestion.MatchString(rest) {
				question = head
				passage = append(passage, rest)
				continue
			}
			question = body
			continue
		}
		if body != "" {
			passage = append(passage, body)
		}
	}
	return question, passage
}

var asksToTell = regexp.MustCompile(`(?i)^(?:please )?(?:tell me|remind me|explain|name|give me|say|describe)\b`)

func cutPrefixFold(s string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		if len(s) >= len(p) && strings.EqualFold(s[:len(p)], p) {
			return strings.TrimSpace(s[len(p):]), true
		}
	}
	return s, false
}

// sources lists what may be quoted: the text beside the question first, then
// what the thread holds. Instructions to us are not quoted.
func (t thread) sources(passage []string) []source {
	var out []source
	add := func(text, intro string, weight float64) {
		if s := stems(text); len(s) > 0 {
			out = append(out, source{text, intro, s, weight})
		}
	}
	for _, p := range passage {
		add(p, "The text says: ", 1.2)
	}
	for _, m := range t.earlier {
		for _, s := range sentences(m.Content) {
			switch {
			case isQuestion.MatchString(s):
			case m.Role == model.RoleUser:
				add(s, "You said: ", 1)
			case m.Role == model.RoleTool:
				add(s, "A tool said: ", 1)
			case m.Role == model.RoleSystem && !instructs.MatchString(s):
				add(s, "I was given: ", 1)
			case m.Role == model.RoleAssistant && !strings.Contains(s, "“") && !strings.HasPrefix(s, "I "):
				add(s, "I said: ", 0.6)
			}
		}
	}
	return out
}

// choose gives one sentence, or two that fit about equally well, the better
// first. must, when
// not nil, holds stems of which one has to appear unless the kind fits.
func choose(query, must []string, question string, sources []source) []source {
	if len(query) == 0 || len(sources) == 0 {
		return nil
	}
	docs := make([][]string, len(sources))
	for i, s := range sources {
		docs[i] = s.stems
	}
	score, share := scores(query, docs)
	best, second := -1, -1
	for i, s := range sources {
		fits := kindFits(question, s.text)
		score[i] *= s.weight
		if fits {
			score[i] *= 1.5
		}
		if must != nil && !fits && !overlap(must, s.stems) {
			continue
		}
		if share[i] < 0.5 && (!fits || share[i] < 0.3) {
			continue
		}
		// What was said later wins among equals: it may correct the earlier.
		switch {
		case best < 0 || score[i] >= score[best]:
			best, second = i, best
		case second < 0 || score[i] >= score[second]:
			second = i
		}
	}
	if best < 0 {
		return nil
	}
	out := []source{sources[best]}
	if second >= 0 && score[second] > 0.9*score[best] && sources[second].intro == sources[best].intro && sources[second].text != sources[best].text {
		return append(out, sources[second])
	}
	return out
}

func overlap(a, b []string) bool {
	in := setOf(b)
	for _, w := range a {
		if in[w] {
			return true
		}
	}
	return false
}

// kindFits says whether a sentence holds the kind of thing that is asked for.
func kindFits(question, sentence string) bool {
	q := " " + strings.Join(words(question), " ") + " "
	has := func(s string) bool { return strings.Contains(q, " "+s+" ") }
	switch {
	case has("when"), has("what year"), has("what date"), has("what time"), has("what day"):
		return timeLike.MatchString(sentence)
	case has("where"):
		return placeLike.MatchString(sentence)
	case has("how many"), has("how much"), has("how old"), has("how long"), has("how far"), has("how tall"):
		return countLike.MatchString(sentence)
	case has("why"):
		return causeLike.MatchString(sentence)
	case has("who"), has("whose"), has("whom"):
		return namesSomeone(question, sentence)
	}
	return false
}

// namesSomeone: a capitalised word that the question does not have.
func namesSomeone(question, sentence string) bool {
	asked := setOf(words(question))
	for _, w := range rawWords(sentence) {
		l := strings.ToLower(w)
		if unicode.IsUpper([]rune(w)[0]) && !asked[l] && !stopwords[l] {
			return true
		}
	}
	return false
}

func cite(best []source) string {
	out := best[0].intro + quote(best[0].text)
	for _, s := range best[1:] {
		out += " and " + quote(s.text)
	}
	return out
}

package builtin

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

var (
	asksName      = regexp.MustCompile(`\bwhat(?:'s| is| was) my (?:first |full )?name\b|\bwho am i\b|\b(?:know|remember|recall) my name\b|\bwhat am i called\b`)
	asksFirst     = regexp.MustCompile(`\b(?:first|at the (?:start|beginning))\b.*\b(?:i (?:ask|asked|say|said|tell|told|want|wanted)|my (?:question|message|request))\b|\b(?:i (?:ask|say|tell)|my)\b.*\b(?:first|at the (?:start|beginning))\b`)
	asksLast      = regexp.MustCompile(`\bwhat did i (?:just )?(?:say|ask|write|tell you)(?: (?:you|before|last|just now|earlier|previously))*\s*\??$|\bwhat (?:was|is) my (?:last|previous) (?:question|message)\b|\bwhat did i (?:last|previously) (?:say|ask)\b`)
	asksYou       = regexp.MustCompile(`\bwhat did you (?:just |last )?(?:say|answer|reply|tell me)(?: (?:before|last|just now|earlier|previously))*\s*\??$|\bwhat was your (?:last|previous|first) (?:answer|reply|message)\b|^(?:please )?(?:repeat (?:that|your (?:last )?answer)|say (?:that|it) again|can you repeat (?:that|it))`)
	asksCount     = regexp.MustCompile(`\bhow many (messages|questions|things) (?:have i|did i)\b`)
	asksAll       = regexp.MustCompile(`\b(?:summari[sz]e|recap|sum up) (?:our|this|the) (?:conversation|chat|thread|discussion)(?: so far)?\W*$|\bwhat have we (?:talked|spoken|discussed)\b|\bwhat did we (?:talk|discuss)\b`)
	isQuestion    = regexp.MustCompile(`(?i)\?\s*["'”’)]*$|^(?:and |so |but |ok |then )?(?:who|what|when|where|why|how|which|whose|is|are|was|were|do|does|did|can|could|will|would|should|has|have) `)
	tellsName     = regexp.MustCompile(`(?i:\bmy (?:full |first )?name is|\bmy name's|\bi am called|\bi'm called|\b(?:please )?call me|\bmy friends call me|^(?:hi|hello|hey)[,! ]+(?:there[,! ]+)?(?:i'm|i am|this is))\s+([\p{Lu}][\p{L}'’-]*(?: [\p{Lu}][\p{L}'’-]*){0,3}|[\p{Ll}][\p{L}'’-]*)`)
	notNames      = set("not a an the so very just glad happy here sorry looking from in at going trying later back new sure fine now when if it maybe crazy")
	numberInReply = regexp.MustCompile(`-?\d[\d,]*(?:\.\d+)?`)
)

// recall answers questions about the conversation itself.
func (t thread) recall() (string, bool) {
	ask := strings.ToLower(strings.ReplaceAll(t.ask, "’", "'"))
	if len(ask) > 300 {
		return "", false
	}
	mine, yours := t.said(model.RoleUser), t.said(model.RoleAssistant)
	const none = "This is the first thing you have said in this thread."
	switch {
	case asksName.MatchString(ask):
		if n := t.userName(); n != "" {
			return "Your name is " + n + ".", true
		}
		return "You have not told me your name in this thread.", true
	case asksAll.MatchString(ask):
		if len(mine) == 0 {
			return none, true
		}
		lines := []string{"So far in this thread:"}
		for _, m := range mine {
			lines = append(lines, "- you said "+quote(m))
		}
		return strings.Join(lines, "\n"), true
	case asksCount.MatchString(ask):
		n, what := 0, asksCount.FindStringSubmatch(ask)[1]
		for _, m := range mine {
			if what != "questions" || isQuestion.MatchString(m) {
				n++
			}
		}
		return fmt.Sprintf("Before this one there were %d %s from you in this thread.", n, what), true
	case asksFirst.MatchString(ask):
		if strings.Contains(ask, "ask") || strings.Contains(ask, "question") {
			for _, m := range mine {
				if isQuestion.MatchString(m) {
					return "Your first question was " + quote(m), true
				}
			}
		}
		if len(mine) == 0 {
			return none, true
		}
		return "The first thing you said was " + quote(mine[0]), true
	case asksLast.MatchString(ask):
		if len(mine) == 0 {
			return none, true
		}
		if strings.Contains(ask, "ask") || strings.Contains(ask, "question") {
			for i := len(mine) - 1; i >= 0; i-- {
				if isQuestion.MatchString(mine[i]) {
					return "You asked " + quote(mine[i]), true
				}
			}
		}
		return "You said " + quote(mine[len(mine)-1]), true
	case asksYou.MatchString(ask):
		if len(yours) == 0 {
			return "I have not said anything in this thread yet.", true
		}
		if strings.Contains(ask, "first") {
			return "My first answer was " + quote(yours[0]), true
		}
		return "I said " + quote(yours[len(yours)-1]), true
	}
	return "", false
}

// userName is the name that the user gave last.
func (t thread) userName() string {
	texts := append(t.said(model.RoleUser), t.ask)
	for i := len(texts) - 1; i >= 0; i-- {
		if n := nameIn(texts[i]); n != "" {
			return n
		}
	}
	return ""
}

func nameIn(s string) string {
	all := tellsName.FindAllStringSubmatch(s, -1)
	for i := len(all) - 1; i >= 0; i-- {
		n := strings.TrimRight(all[i][1], "'’-")
		if first, _, _ := strings.Cut(strings.ToLower(n), " "); !notNames[first] {
			return n
		}
	}
	return ""
}

// lastNumber is the last number that an answer of ours gave, for "times two".
func (t thread) lastNumber() string {
	said := t.said(model.RoleAssistant)
	if len(said) == 0 {
		return ""
	}
	all := numberInReply.FindAllString(said[len(said)-1], -1)
	if len(all) == 0 {
		return ""
	}
	return strings.ReplaceAll(all[len(all)-1], ",", "")
}

package builtin

import (
	"regexp"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

var (
	greets  = regexp.MustCompile(`^(?:hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day))\b(?: (?:there|all|everyone|again|friend))*`)
	thanks  = regexp.MustCompile(`^(?:ok |great |perfect |cool )?(?:thanks|thank you|thx|cheers|much appreciated)\b`)
	leaves  = regexp.MustCompile(`^(?:bye|goodbye|good ?bye|see you|good night|farewell)\b`)
	feels   = regexp.MustCompile(`^how are you\b|^how's it going\b|^how do you do\b`)
	who     = regexp.MustCompile(`\b(?:who|what) are you\b|\bwhat(?:'s| is) your name\b|\bare you (?:an? )?(?:real |actual )?(?:ai|bot|robot|human|person|chatgpt|gpt|llm|machine|rule-based|rule based|language model|model|intelligent|neural network)\b|\b(?:which|what) (?:language )?model (?:are you|is this|am i)\b|\bintroduce yourself\b|\bwho (?:made|built|created) you\b`)
	skills  = regexp.MustCompile(`\bwhat can you do\b|\bhow can you help\b|\bwhat are you able\b|^help$|\bwhat are your (?:abilities|capabilities|skills|limits)\b`)
	clock   = regexp.MustCompile(`\bwhat(?:'s| is)? (?:the )?(?:time|date|day)(?: is it| is)?(?: it)?(?: (?:today|now|right now))?$|\bwhat day is (?:it|today)\b`)
	foreign = regexp.MustCompile(`\btranslat(?:e|ion)\b|\bhow do (?:you|i) say\b.*\bin [a-z]+\b|\bsay .* in (?:french|german|spanish|italian|dutch|japanese|chinese|russian|portuguese|arabic|latin)\b`)
)

// self is what the model says about itself.
const self = "I am " + Name + ", a rule-based model built into this runtime: I have no neural network and no knowledge beyond this thread."

// social answers greetings and questions about this model.
func (t thread) social() (string, bool) {
	ask := strings.ToLower(strings.ReplaceAll(t.ask, "’", "'"))
	if len(ask) > 300 {
		return "", false
	}
	plain := strings.Join(strings.FieldsFunc(ask, func(r rune) bool { return strings.ContainsRune(" .,;:!?\n\t", r) }), " ")
	switch {
	case foreign.MatchString(plain):
		return "I cannot translate: I am a rule-based model without a dictionary.", true
	case skills.MatchString(plain):
		return self + " " + abilities, true
	case who.MatchString(plain):
		return self, true
	case clock.MatchString(plain):
		return "I have no clock: I give the same answer to the same request. A tool could tell the time.", true
	case thanks.MatchString(plain):
		return "You are welcome.", true
	case leaves.MatchString(plain):
		return "Goodbye.", true
	case feels.MatchString(plain):
		return "I am a set of rules, so there is nothing that I feel, but I work. What can I do for you?", true
	}
	if m := greets.FindString(plain); m != "" {
		rest := strings.TrimSpace(plain[len(m):])
		if feels.MatchString(rest) {
			return "Hello. I am a set of rules, so there is nothing that I feel, but I work. What can I do for you?", true
		}
		if name := nameIn(t.ask); name != "" && len(sentences(t.ask)) <= 2 && !isQuestion.MatchString(t.ask) {
			return "Hello, " + name + ". What can I do for you?", true
		}
		if len(strings.Fields(rest)) <= 1 {
			return "Hello. What can I do for you?", true
		}
	}
	return "", false
}

var imperative = set("write compose create generate draw paint code program implement design invent imagine play make build book order send open close turn show explain describe tell give list find search get fetch translate recommend suggest help draft ignore print forget pretend act answer delete remove email convert calculate compute check count sort ask start stop run set put let do repeat read remind schedule download solve compare choose pick classify define fix review edit improve")

// noting acknowledges a statement, which later turns can ask about.
func (t thread) noting() (string, bool) {
	all := sentences(t.ask)
	if len(all) == 0 {
		return "", false
	}
	first := words(all[0])
	if len(first) > 0 && first[0] == "please" {
		first = first[1:]
	}
	if len(first) < 3 || imperative[first[0]] {
		return "", false
	}
	for _, s := range all {
		if isQuestion.MatchString(s) {
			return "", false
		}
	}
	name := ""
	if n := nameIn(t.ask); n != "" {
		name = ", " + n
	} else if n := t.userName(); n != "" && len(t.said(model.RoleUser)) > 0 {
		name = ", " + n
	}
	return "Noted" + name + ". You told me " + quote(t.ask), true
}

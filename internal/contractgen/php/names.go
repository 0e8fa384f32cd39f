package php

import (
	"strings"
	"unicode"
)

// reserved are words that PHP takes neither as a class name nor, for class, as a case.
var reserved = map[string]bool{}

func init() {
	for _, w := range strings.Fields(`abstract and array as bool break callable case catch class clone const continue
		declare default do echo else elseif empty enddeclare endfor endforeach endif endswitch endwhile enum eval exit
		extends false final finally float fn for foreach from function global goto if implements include instanceof
		insteadof int interface isset iterable list match mixed namespace never new null object or parent print private
		protected public readonly require return self static string switch throw trait true try unset use var void while
		xor yield`) {
		reserved[w] = true
	}
}

// words splits snake_case, kebab-case, dots, spaces and camelCase.
func words(s string) []string {
	var all []string
	var word strings.Builder
	flush := func() {
		if word.Len() > 0 {
			all = append(all, word.String())
			word.Reset()
		}
	}
	prev := ' '
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			flush()
			prev = ' '
			continue
		}
		if unicode.IsUpper(r) && (unicode.IsLower(prev) || unicode.IsDigit(prev)) {
			flush()
		}
		word.WriteRune(r)
		prev = r
	}
	flush()
	return all
}

func studly(s string) string {
	var b strings.Builder
	for _, w := range words(s) {
		r := []rune(w)
		b.WriteString(string(unicode.ToUpper(r[0])) + string(r[1:]))
	}
	return b.String()
}

// camel writes initialisms as words: Last-Event-ID is lastEventId.
func camel(s string) string {
	var b strings.Builder
	for i, w := range words(s) {
		if w == strings.ToUpper(w) {
			w = strings.ToLower(w)
		}
		if i == 0 {
			b.WriteString(strings.ToLower(w[:1]) + w[1:])
		} else {
			b.WriteString(studly(w))
		}
	}
	return b.String()
}

func className(s string) string {
	name := studly(s)
	if reserved[strings.ToLower(name)] {
		return name + "_"
	}
	return name
}

func caseName(s string) string {
	name := studly(s)
	switch {
	case name == "":
		return "Empty_"
	case unicode.IsDigit([]rune(name)[0]):
		return "N" + name
	case strings.EqualFold(name, "class"):
		return name + "_"
	}
	return name
}

// variable is a property's or parameter's name: the contract's own spelling in
// camelCase, so that run_id is $runId.
func variable(s string) string {
	name := camel(s)
	if name == "this" {
		return "this_"
	}
	return name
}

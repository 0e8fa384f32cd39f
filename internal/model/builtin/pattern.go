package builtin

import (
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode"
)

// compilePattern reads a schema's pattern; nil when Go has no such expression.
func compilePattern(p string) *regexp.Regexp {
	if len(p) > 500 {
		return nil
	}
	re, err := regexp.Compile(p)
	if err != nil {
		return nil
	}
	return re
}

// sample makes a string that a pattern matches, of at least minLength
// characters; "" and false when it finds none.
func sample(p string, minLength int) (string, bool) {
	re := compilePattern(p)
	if re == nil {
		return "", false
	}
	tree, err := syntax.Parse(p, syntax.Perl)
	if err != nil {
		return "", false
	}
	for more := range min(minLength, 200) + 1 {
		budget := 2000
		s := generate(tree, more, &budget)
		if len([]rune(s)) >= minLength && re.MatchString(s) {
			return s, true
		}
	}
	return "", false
}

// generate writes the shortest text of an expression, with more repetitions of
// what may repeat. budget bounds the length.
func generate(re *syntax.Regexp, more int, budget *int) string {
	if *budget <= 0 {
		return ""
	}
	var b strings.Builder
	repeat := func(n int) {
		for range n {
			if *budget <= 0 {
				return
			}
			b.WriteString(generate(re.Sub[0], more, budget))
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
		*budget -= len(re.Rune)
	case syntax.OpCharClass:
		b.WriteRune(readable(re.Rune))
		*budget--
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('a')
		*budget--
	case syntax.OpCapture:
		repeat(1)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			b.WriteString(generate(sub, more, budget))
		}
	case syntax.OpAlternate:
		return generate(re.Sub[0], more, budget)
	case syntax.OpStar:
		repeat(more)
	case syntax.OpQuest:
		repeat(min(more, 1))
	case syntax.OpPlus:
		repeat(1 + more)
	case syntax.OpRepeat:
		n := re.Min + more
		if re.Max >= 0 {
			n = min(n, re.Max)
		}
		repeat(n)
	}
	return b.String()
}

// readable picks a character of a class that reads well.
func readable(ranges []rune) rune {
	for _, want := range "aA0x1-_ " {
		for i := 0; i+1 < len(ranges); i += 2 {
			if want >= ranges[i] && want <= ranges[i+1] {
				return want
			}
		}
	}
	for i := 0; i+1 < len(ranges); i += 2 {
		if unicode.IsPrint(ranges[i]) {
			return ranges[i]
		}
	}
	if len(ranges) > 0 {
		return ranges[0]
	}
	return 'a'
}

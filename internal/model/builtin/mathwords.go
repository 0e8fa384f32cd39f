package builtin

import (
	"errors"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

type rewrite struct {
	from *regexp.Regexp
	to   string
}

func rewrites(pairs ...string) []rewrite {
	var out []rewrite
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, rewrite{regexp.MustCompile(pairs[i]), pairs[i+1]})
	}
	return out
}

// spoken turns words into signs, the longer phrases first.
var spoken = rewrites(
	`([\d.,]*\d)\s+hundred\b`, "($1 * 100)", `([\d.,]*\d)\s+thousand\b`, "($1 * 1000)",
	`([\d.,]*\d)\s+million\b`, "($1 * 1000000)", `([\d.,]*\d)\s+billion\b`, "($1 * 1000000000)",
	`[×·]`, "*", `÷`, "/", `[−–]`, "-", `\*\*`, "^",
	`(\d)\s*x\s*(\d)`, "$1 * $2",
	`\bmultiplied by\b|\btimes\b`, "*", `\bdivided by\b`, "/",
	`\b(?:raised )?to the power (?:of )?`, "^ ", `\braised to\b`, "^",
	`\bplus\b`, "+", `\bminus\b|\bless\b`, "-", `\bmodulo\b|\bmodulus\b`, "mod", `\bper ?cent\b`, "%",
	`\s*\bsquared\b`, "^2", `\s*\bcubed\b`, "^3",
	`\b(?:the )?square root of\b`, "sqrt", `\b(?:the )?factorial of\b`, "factorial",
	`\b(?:a )?half of\b`, "(1/2) *", `\b(?:a |one )?third of\b`, "(1/3) *", `\b(?:a |one )?quarter of\b`, "(1/4) *",
	`\bthree quarters of\b`, "(3/4) *", `\btwo thirds of\b`, "(2/3) *",
	`\bdouble\b|\btwice\b`, "2 *", `\btriple\b`, "3 *", `\bhalve\b`, "(1/2) *",
	`\bwhat (?:%|percentage) of (.+?) (?:is|are) (.+)`, "percentof $2 ; $1",
	`^(.+?) is what (?:%|percentage) of (.+)`, "percentof $1 ; $2",
	`^add (.+?) (?:to|and|with) (.+)`, "($2) + ($1)", `^subtract (.+?) from (.+)`, "($2) - ($1)",
	`^multiply (.+?) (?:by|with|and) (.+)`, "($1) * ($2)", `^divide (.+?) by (.+)`, "($1) / ($2)",
	`\b(?:the )?difference between (.+?) and (.+)`, "($1) - ($2)",
	`\bover\b`, "/",
)

var lists = regexp.MustCompile(`^(?:the )?(sum|total|product|average|mean|maximum|minimum|largest|smallest|max|min) of (.+)$`)

// conversion matches "5 km in miles" and "how many minutes are in 3 hours".
var conversions = rewrites(
	`^(?:convert )?([\d.,]+) ?([a-z]+) (?:to|into|in|as) ([a-z]+)$`, "$1 $2 $3",
	`^how many ([a-z]+) (?:are )?(?:there )?(?:are )?in ([\d.,]+|an?|one) ?([a-z]+)$`, "$2 $3 $1",
)

// arithmetic answers a message that asks for a computation. last is the latest
// number of the conversation, "" when there is none.
func arithmetic(message, last string) (string, bool) {
	s := strings.ToLower(strings.TrimSpace(message))
	if len(s) > 1000 {
		return "", false
	}
	s = spaces.ReplaceAllString(strings.ReplaceAll(s, "’", "'"), " ")
	cue := mathCue.MatchString(s)
	s = notArithmetic.ReplaceAllString(s, " ; ")
	whole := leadOut.ReplaceAllString(s, "")
	numbered := numberWords(whole)
	if a, ok := conversion(numbered); ok {
		return a, true
	}
	whole = numberWords(leadIn.ReplaceAllString(whole, ""))
	if a, ok := conversion(whole); ok {
		return a, true
	}
	if last != "" {
		whole = refer(whole, last)
	}
	for _, r := range spoken {
		whole = r.from.ReplaceAllString(whole, r.to)
	}
	whole = strings.TrimSpace(whole)
	if a, ok := overList(whole); ok {
		return a, true
	}
	if q, a, ok := percentOf(whole); ok {
		return a + q, true
	}
	tokens := lex(whole)
	if a, ok := computed(tokens, true); ok {
		return a, true
	}
	if !cue {
		return "", false
	}
	return longestSpan(tokens)
}

// computed evaluates tokens and writes the answer; false when they are no
// expression.
func computed(tokens []string, anyUnit bool) (string, bool) {
	q, err := evaluate(tokens, anyUnit)
	if errors.Is(err, errSyntax) {
		return "", false
	}
	shown := show(tokens)
	if err != nil {
		return "I cannot compute " + shown + ": " + err.Error() + ".", true
	}
	if q.rounded || strings.HasPrefix(q.number(), "about") {
		return shown + " is " + q.String(), true
	}
	return shown + " = " + q.String(), true
}

// longestSpan finds the longest stretch of a sentence that is an expression.
func longestSpan(tokens []string) (string, bool) {
	if len(tokens) > 200 {
		return "", false
	}
	for n := len(tokens); n >= 3; n-- {
		for i := 0; i+n <= len(tokens); i++ {
			if i+n < len(tokens) && isWord(tokens[i+n]) && !goesOn[tokens[i+n]] {
				continue // "2-3 weeks" counts weeks, it does not subtract.
			}
			if a, ok := computed(tokens[i:i+n], false); ok {
				return a, true
			}
		}
	}
	return "", false
}

var goesOn = set("is in please and then equals equal for exactly if or thanks because so but make makes give gives when with")

func show(tokens []string) string {
	var b strings.Builder
	for i, t := range tokens {
		prev := ""
		if i > 0 {
			prev = tokens[i-1]
		}
		sign := t == "-" && (i == 0 || strings.Contains("+-*/^(", prev))
		percent := t == "%" && (i+1 == len(tokens) || !isNumber(tokens[i+1]) && tokens[i+1] != "(")
		glued := i == 0 || prev == "(" || t == ")" || percent || t == "^" || prev == "^" ||
			strings.Contains("$€£", prev) || prev == "-" && i >= 2 && strings.Contains("+-*/^(", tokens[i-2]) || prev == "-" && i == 1
		if !glued || sign && i > 0 && prev != "(" && prev != "^" {
			b.WriteByte(' ')
		}
		b.WriteString(t)
	}
	return b.String()
}

var (
	startsWithOp = regexp.MustCompile(`^(?:[+*/^]|-\s|plus\b|minus\b|times\b|multiplied by\b|divided by\b|to the power of\b|squared\b|cubed\b|mod\b|modulo\b)`)
	bareVerb     = regexp.MustCompile(`^(add|subtract|multiply by|multiply it by|divide by) ([\d.]+)$`)
	pronoun      = regexp.MustCompile(`\b(?:that|it|this|the result|the answer|the previous result|the total)\b`)
)

// refer puts the last result where a message leaves it out.
func refer(s, last string) string {
	if strings.HasPrefix(last, "-") {
		last = "(" + last + ")"
	}
	if m := bareVerb.FindStringSubmatch(s); m != nil {
		op := map[string]string{"add": "+", "subtract": "-", "divide by": "/"}[m[1]]
		if op == "" {
			op = "*"
		}
		return last + " " + op + " " + m[2]
	}
	if startsWithOp.MatchString(s) {
		return last + " " + s
	}
	return pronoun.ReplaceAllLiteralString(s, last)
}

func conversion(s string) (string, bool) {
	for _, c := range conversions {
		if !c.from.MatchString(s) {
			continue
		}
		f := strings.Fields(c.from.ReplaceAllString(s, c.to))
		if f[0] == "a" || f[0] == "an" || f[0] == "one" {
			f[0] = "1"
		}
		v, ok := new(big.Rat).SetString(strings.ReplaceAll(f[0], ",", ""))
		_, from := measures[f[1]]
		_, to := measures[f[2]]
		if !ok || !from || !to {
			return "", false
		}
		q := quantity{v: v, unit: unitName(f[1])}
		r, err := convert(q, unitName(f[2]))
		if err != nil {
			return "I cannot convert this: " + err.Error() + ".", true
		}
		return q.String() + " = " + r.String(), true
	}
	return "", false
}

var between = regexp.MustCompile(`\s*(?:,|\band\b)\s*`)

func overList(s string) (string, bool) {
	m := lists.FindStringSubmatch(s)
	if m == nil {
		return "", false
	}
	var all []quantity
	for _, part := range between.Split(m[2], -1) {
		if part == "" {
			continue
		}
		q, err := evaluate(lex("0 + "+part), true)
		if err != nil {
			return "", false
		}
		all = append(all, q)
	}
	if len(all) < 2 {
		return "", false
	}
	out := all[0]
	var err error
	for _, q := range all[1:] {
		switch m[1] {
		case "product":
			out, err = binary("*", out, q)
		case "maximum", "largest", "max":
			if q.v.Cmp(out.v) > 0 {
				out = q
			}
		case "minimum", "smallest", "min":
			if q.v.Cmp(out.v) < 0 {
				out = q
			}
		default:
			out, err = binary("+", out, q)
		}
		if err != nil {
			return "I cannot compute this: " + err.Error() + ".", true
		}
	}
	if m[1] == "average" || m[1] == "mean" {
		out.v = new(big.Rat).Quo(out.v, big.NewRat(int64(len(all)), 1))
	}
	return "The " + m[1] + " of " + m[2] + " is " + out.String() + ".", true
}

func percentOf(s string) (result, said string, ok bool) {
	rest, found := strings.CutPrefix(s, "percentof ")
	if !found {
		return "", "", false
	}
	part, all, found := strings.Cut(rest, " ; ")
	if !found {
		return "", "", false
	}
	a, err1 := evaluate(lex("0 + "+part), true)
	b, err2 := evaluate(lex("0 + "+all), true)
	if err1 != nil || err2 != nil {
		return "", "", false
	}
	q, err := binary("/", a, b)
	if err != nil {
		return err.Error() + ".", "I cannot compute this: ", true
	}
	q.v = new(big.Rat).Mul(q.v, big.NewRat(100, 1))
	return q.String() + "%", part + " of " + all + " is ", true
}

var small = map[string]int64{
	"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
	"ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
	"seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50,
	"sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}

var large = map[string]int64{"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}

// numberWords writes spelled numbers in digits: "twenty-one" is 21.
func numberWords(s string) string {
	fields := strings.Fields(splitHyphens(s))
	var out []string
	for i := 0; i < len(fields); {
		n, used := spelled(fields[i:])
		if used == 0 {
			out = append(out, fields[i])
			i++
			continue
		}
		tail := strings.TrimLeftFunc(fields[i+used-1], unicode.IsLetter)
		out = append(out, strconv.FormatInt(n, 10)+tail)
		i += used
	}
	return strings.Join(out, " ")
}

var tens = regexp.MustCompile(`\b(twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)-(one|two|three|four|five|six|seven|eight|nine)\b`)

func splitHyphens(s string) string { return tens.ReplaceAllString(s, "$1 $2") }

// spelled reads a number in words at the start of fields, and says how many
// fields it took. "three quarters" is left to the fractions.
func spelled(fields []string) (total int64, used int) {
	var group int64
	hasSmall := false
	for i, f := range fields {
		w := strings.ToLower(strings.TrimRight(f, ".,;:?!)"))
		end := len(w) != len(f)
		if v, ok := small[w]; ok {
			if hasSmall && (group%100 < 20 || v >= 10 || group%10 != 0) {
				break
			}
			group += v
			hasSmall = true
		} else if m, ok := large[w]; ok && (hasSmall || used > 0) {
			group = max(group, 1) * m
			if m >= 1000 {
				total += group
				group = 0
			}
			hasSmall = false
			if total > 1_000_000_000_000 || group > 1_000_000_000_000 {
				return 0, 0
			}
		} else if w == "and" && used > 0 && group >= 100 && i+1 < len(fields) && small[strings.TrimRight(fields[i+1], ".,;:?!)")] > 0 {
			continue
		} else {
			break
		}
		used = i + 1
		if end {
			break
		}
	}
	if used > 0 && used < len(fields) {
		if next := strings.TrimRight(fields[used], ".,"); next == "quarters" || next == "thirds" || next == "third" || next == "quarter" {
			return 0, 0
		}
	}
	return total + group, used
}

package builtin

import (
	"errors"
	"math/big"
	"regexp"
	"strings"
	"unicode"
)

var errSyntax = errors.New("this is no expression")

// lex cuts an expression into numbers, operators, brackets and words.
func lex(s string) []string {
	var out []string
	r := []rune(s)
	for i := 0; i < len(r); {
		c := r[i]
		switch {
		case unicode.IsSpace(c):
			i++
		case c >= '0' && c <= '9' || c == '.' && i+1 < len(r) && isDigit(r[i+1]):
			j, dot := i, false
			for j < len(r) {
				switch {
				case isDigit(r[j]):
				case r[j] == '.' && !dot && j+1 < len(r) && isDigit(r[j+1]):
					dot = true
				case r[j] == ',' && !dot && j+3 < len(r) && isDigit(r[j+1]) && isDigit(r[j+2]) && isDigit(r[j+3]) && (j+4 == len(r) || !isDigit(r[j+4])):
				default:
					goto end
				}
				j++
			}
		end:
			out = append(out, strings.ReplaceAll(string(r[i:j]), ",", ""))
			i = j
		case unicode.IsLetter(c):
			j := i
			for j < len(r) && (unicode.IsLetter(r[j]) || r[j] == '\'') {
				j++
			}
			out = append(out, string(r[i:j]))
			i = j
		default:
			out = append(out, string(c))
			i++
		}
	}
	return out
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

func isNumber(t string) bool {
	return t != "" && (isDigit(rune(t[0])) || t[0] == '.' && len(t) > 1)
}

func isWord(t string) bool {
	return t != "" && unicode.IsLetter([]rune(t)[0])
}

// expression evaluates tokens by the usual precedence.
type expression struct {
	tokens []string
	pos    int
	depth  int
	// applied counts operators: a lone number is nothing to compute.
	applied int
	// anyUnit lets every word after a number be its unit; otherwise only the
	// known measures are.
	anyUnit bool
}

func evaluate(tokens []string, anyUnit bool) (quantity, error) {
	e := &expression{tokens: tokens, anyUnit: anyUnit}
	q, err := e.sum()
	switch {
	case err != nil:
		return q, err
	case e.pos != len(tokens), e.applied == 0:
		return q, errSyntax
	}
	return q, nil
}

func (e *expression) peek() string {
	if e.pos < len(e.tokens) {
		return e.tokens[e.pos]
	}
	return ""
}

func (e *expression) chain(operand func() (quantity, error), ops map[string]string) (quantity, error) {
	a, err := operand()
	for err == nil {
		op, ok := ops[e.peek()]
		if !ok {
			break
		}
		e.pos++
		e.applied++
		var b quantity
		if b, err = operand(); err == nil {
			a, err = binary(op, a, b)
		}
	}
	return a, err
}

func (e *expression) sum() (quantity, error) {
	return e.chain(e.product, map[string]string{"+": "+", "-": "-"})
}

func (e *expression) product() (quantity, error) {
	return e.chain(e.signed, map[string]string{"*": "*", "/": "/", "mod": "mod", "%": "mod", "of": "*"})
}

func (e *expression) signed() (quantity, error) {
	if e.depth++; e.depth > 100 {
		return quantity{}, errSyntax
	}
	defer func() { e.depth-- }()
	switch e.peek() {
	case "-":
		e.pos++
		q, err := e.signed()
		if err == nil {
			q.v = new(big.Rat).Neg(q.v)
		}
		return q, err
	case "+":
		e.pos++
		return e.signed()
	case "sqrt", "factorial":
		f := root
		if e.peek() == "factorial" {
			f = factorial
		}
		e.pos++
		e.applied++
		q, err := e.signed()
		if err != nil {
			return q, err
		}
		return f(q)
	}
	a, err := e.postfix()
	if err == nil && e.peek() == "^" {
		e.pos++
		e.applied++
		var b quantity
		if b, err = e.signed(); err == nil {
			a, err = binary("^", a, b)
		}
	}
	return a, err
}

func (e *expression) postfix() (quantity, error) {
	q, err := e.primary()
	if err != nil {
		return q, err
	}
	if e.peek() == "%" && q.unit == "" {
		next := ""
		if e.pos+1 < len(e.tokens) {
			next = e.tokens[e.pos+1]
		}
		if !isNumber(next) && next != "(" {
			e.pos++
			e.applied++
			return quantity{v: new(big.Rat).Quo(q.v, big.NewRat(100, 1)), percent: true}, nil
		}
	}
	if w := e.peek(); isWord(w) && q.unit == "" && w != "of" && w != "mod" {
		if _, known := measures[w]; known || e.anyUnit {
			e.pos++
			q.unit = unitName(w)
		}
	}
	return q, nil
}

func (e *expression) primary() (quantity, error) {
	t := e.peek()
	switch {
	case t == "(":
		e.pos++
		q, err := e.sum()
		if err == nil && e.peek() != ")" {
			err = errSyntax
		}
		e.pos++
		return q, err
	case t == "$" || t == "€" || t == "£":
		e.pos++
		q, err := e.primary()
		q.unit = t
		return q, err
	case isNumber(t) && len(t) <= 400:
		e.pos++
		v, ok := new(big.Rat).SetString(t)
		if !ok {
			return quantity{}, errSyntax
		}
		return quantity{v: v}, nil
	default:
		return quantity{}, errSyntax
	}
}

var (
	spaces = regexp.MustCompile(`\s+`)
	// notArithmetic is made of digits and signs, and is no expression.
	notArithmetic = regexp.MustCompile(`\b\d{4}-\d{1,2}-\d{1,2}\b|\b\d{1,4}/\d{1,2}/\d{1,4}\b|\+\d[\d ()-]{6,}|\b\d+\.\d+\.\d+\S*|\b24/7\b|https?://\S+|\S+@\S+`)
	leadIn        = regexp.MustCompile(`^(?:(?:please|hey|hi|hello|ok|okay|so|and|now|then|well|can you|could you|would you|tell me|do you know|i want to know|help me|quickly|just|what is|what's|whats|what are|what does|how much is|how much are|how many is|how many are|calculate|compute|evaluate|solve|work out|figure out|find|the result of|the answer to|the value of|result of|value of|equals)\b[ ,:]*)+`)
	leadOut       = regexp.MustCompile(`(?:\s*(?:=|equal to|equals|equal|is|please|for me|in total|altogether|make|thanks|thank you|[?!.,:]))+\s*$`)
	mathCue       = regexp.MustCompile(`\b(?:what is|what's|whats|how much|how many|calculate|compute|evaluate|work out|solve|result|equals?|total)\b|=`)
)

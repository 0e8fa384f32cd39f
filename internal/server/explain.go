package server

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

// explanation says what to change so that a value fits its schema. It names
// places and what the contract wants, never what was sent.
type explanation struct{ pointer, keyword, message string }

// explain picks, of all that does not fit, the first in the order of places.
func explain(err error) explanation {
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return explanation{message: "must fit the contract's schema"}
	}
	var all []explanation
	var gather func(*jsonschema.ValidationError)
	gather = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			all = append(all, explainOne(e))
		}
		for _, cause := range e.Causes {
			gather(cause)
		}
	}
	gather(invalid)
	return slices.MinFunc(all, func(a, b explanation) int {
		return cmp.Or(cmp.Compare(a.pointer, b.pointer), cmp.Compare(a.keyword, b.keyword), cmp.Compare(a.message, b.message))
	})
}

func explainOne(e *jsonschema.ValidationError) explanation {
	steps := e.InstanceLocation
	x := explanation{keyword: strings.Join(e.ErrorKind.KeywordPath(), "/")}
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		x.message = "must be " + article(k.Want)
		if k.Got == "array" && slices.Contains(k.Want, "object") {
			x.message += "; PHP encodes an empty array as [], send {} instead"
		}
	case *kind.Required:
		missing := slices.Sorted(slices.Values(k.Missing))
		x.message = "lacks " + strings.Join(missing, ", ")
	case *kind.AdditionalProperties:
		unknown := slices.Sorted(slices.Values(k.Properties))
		steps = append(slices.Clone(steps), unknown[0])
		x.message = "is no member that the contract knows here; leave it out"
	case *kind.Enum:
		x.message = "must be one of " + list(k.Want)
	case *kind.Const:
		x.message = "must be " + list([]any{k.Want})
	case *kind.Pattern:
		x.message = "must match " + k.Want
	case *kind.Format:
		x.message = "must be a " + k.Want
		if k.Want == "date-time" {
			x.message = "must be a moment such as 2026-02-18T10:00:00Z"
		}
	case *kind.MinLength:
		x.message = "must have " + count(k.Want, "character") + " or more"
	case *kind.MaxLength:
		x.message = "must have at most " + count(k.Want, "character")
	case *kind.MinItems:
		x.message = "must have " + count(k.Want, "item") + " or more"
	case *kind.MaxItems:
		x.message = "must have at most " + count(k.Want, "item")
	case *kind.MinProperties:
		x.message = "must have " + count(k.Want, "member") + " or more"
	case *kind.MaxProperties:
		x.message = "must have at most " + count(k.Want, "member")
	case *kind.Minimum:
		x.message = "must be at least " + plain(k.Want)
	case *kind.Maximum:
		x.message = "must be at most " + plain(k.Want)
	default:
		x.message = "does not satisfy the schema's " + x.keyword
	}
	x.pointer = pointerOf(steps)
	return x
}

func article(types []string) string {
	words := make([]string, len(types))
	for i, t := range types {
		words[i] = "a " + t
		if strings.ContainsAny(t[:1], "aeiou") {
			words[i] = "an " + t
		}
	}
	return strings.Join(words, " or ")
}

func list(values []any) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func plain(r *big.Rat) string {
	if r.IsInt() {
		return r.Num().String()
	}
	return strings.TrimRight(r.FloatString(10), "0")
}

// pointerOf is an RFC 6901 pointer, its steps kept short and printable.
func pointerOf(steps []string) string {
	var b strings.Builder
	for _, s := range steps {
		b.WriteString("/" + escape(shorten(s)))
	}
	return b.String()
}

// shorten makes a name from the request fit to be told.
func shorten(name string) string {
	const longest = 64
	printable := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	if runes := []rune(printable); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return printable
}

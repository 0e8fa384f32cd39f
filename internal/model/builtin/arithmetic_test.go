package builtin_test

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

func TestArithmetic(t *testing.T) {
	t.Parallel()
	for question, want := range map[string]string{
		"What is 2 + 3 * 4?":   "2 + 3 * 4 = 14",
		"2^3^2":                "2^3^2 = 512",
		"-2^2":                 "-2^2 = -4",
		"17 % 5":               "17 % 5 = 2",
		"what is 100 plus 10%": "100 + 10% = 110",
		"20% of $60":           "= $12",
		"what is one hundred and five minus sixty-two": "105 - 62 = 43",
		"2 million divided by 8":                       "250000",
		"1/3 + 1/3":                                    "2/3 (about 0.666667)",
		"what is 1 kg in pounds":                       "2.20462",
		"5 apples minus 2 apples":                      "3 apples",
		"10 km / 2 h":                                  "do not measure the same thing",
		"90 min / 1 h":                                 "= 1.5",
		"what is the sum of 1, 2 and 3":                "6",
		"what is the product of 6 and 7":               "42",
		"the largest of 3, 9 and 4":                    "9",
		"factorial of 20":                              "2432902008176640000",
		"sqrt(2)":                                      "about 1.4142135624",
		"square root of -4":                            "not a real number",
		"0/0":                                          "undefined",
		"5 mod 0":                                      "undefined",
		"0 to the power of -1":                         "undefined",
		"9999999999^9999999999":                        "too large",
		"2^0.3":                                        "whole numbers",
		"10 is what percent of 40?":                    "25%",
		"Subtract 8 from 20":                           "12",
		"multiply 12 by 12":                            "144",
		"twice 21":                                     "42",
		"how much is three quarters of 80":             "60",
		"Please compute 3 x 4":                         "12",
	} {
		_, res := ask(t, model.Request{Messages: user(question)})
		require.Contains(t, res.Text, want, question)
	}
}

func TestWhatIsNoArithmeticIsNotComputed(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"The score was 3-2.", "What happened on 2024-05-06?", "Is version 1.2.3 out?", "Call +44 20 7946 0018", "what is 24/7 support", "what is the 2-3 year plan?",
		"what is https://example.com/1-2/3-4", strings.Repeat("(", 900) + "1+1",
	} {
		_, res := ask(t, model.Request{Messages: user(s)})
		require.NotContains(t, res.Text, " = ", s)
	}
}

// Any expression gives what exact arithmetic gives.
func TestArithmeticIsExact(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		text, want, ok := expression(rt, 3)
		if !ok {
			return
		}
		_, res := ask(t, model.Request{Messages: user("What is " + text + " + 0?")})
		_, got, found := strings.Cut(res.Text, " = ")
		got, _, _ = strings.Cut(got, " (")
		if !found {
			if !strings.Contains(res.Text, " is about ") {
				rt.Fatalf("%s: %s", text, res.Text)
			}
			return
		}
		v, ok := new(big.Rat).SetString(got)
		if !ok || v.Cmp(want) != 0 {
			rt.Fatalf("%s: want %s, got %s", text, want.RatString(), res.Text)
		}
	})
}

func expression(rt *rapid.T, depth int) (string, *big.Rat, bool) {
	if depth == 0 || rapid.IntRange(0, 3).Draw(rt, "leaf") == 0 {
		n, d := rapid.Int64Range(0, 5000).Draw(rt, "n"), rapid.IntRange(0, 2).Draw(rt, "decimals")
		v := new(big.Rat).SetFrac64(n, []int64{1, 10, 100}[d])
		return v.FloatString(d), v, true
	}
	a, x, ok1 := expression(rt, depth-1)
	b, y, ok2 := expression(rt, depth-1)
	op := rapid.SampledFrom([]string{"+", "-", "*", "/", "plus", "times"}).Draw(rt, "op")
	v := new(big.Rat)
	switch op {
	case "+", "plus":
		v.Add(x, y)
	case "-":
		v.Sub(x, y)
	case "*", "times":
		v.Mul(x, y)
	case "/":
		if y.Sign() == 0 {
			return "", v, false
		}
		v.Quo(x, y)
	}
	return fmt.Sprintf("(%s %s %s)", a, op, b), v, ok1 && ok2
}

package builtin

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// quantity is an exact number with an optional unit.
type quantity struct {
	v    *big.Rat
	unit string
	// percent marks a bare "p%", which + and - take of their left side.
	percent bool
	// rounded is true once a root that is no fraction went into it.
	rounded bool
}

var (
	errZero  = errors.New("division by zero is undefined, so this has no answer")
	errLarge = errors.New("the result is too large to write down")
	errReal  = errors.New("an even root of a negative number is not a real number")
	errWhole = errors.New("this works for whole numbers only")
)

// maxBits bounds what is computed: about 1,200 digits.
const maxBits = 4096

func (q quantity) bounded() (quantity, error) {
	if q.v.Num().BitLen() > maxBits || q.v.Denom().BitLen() > maxBits {
		return q, errLarge
	}
	return q, nil
}

// measure says what one unit is in the base unit of its kind, exactly.
type measure struct {
	kind, symbol string
	factor       *big.Rat
}

var measures = map[string]measure{}

func init() {
	for _, line := range strings.Split(strings.TrimSpace(`
length mm 1/1000 millimetre millimetres millimeter millimeters
length cm 1/100 centimetre centimetres centimeter centimeters
length m 1 metre metres meter meters
length km 1000 kilometre kilometres kilometer kilometers
length in 254/10000 inch inches
length ft 3048/10000 foot feet
length yd 9144/10000 yard yards
length mi 1609344/1000 mile miles
mass mg 1/1000 milligram milligrams
mass g 1 gram grams
mass kg 1000 kilogram kilograms kilo kilos
mass t 1000000 tonne tonnes
mass oz 28349523125/1000000000 ounce ounces
mass lb 45359237/100000 lbs pound pounds
time ms 1/1000 millisecond milliseconds
time s 1 second seconds sec secs
time min 60 minute minutes mins
time h 3600 hour hours hr hrs
time d 86400 day days
time wk 604800 week weeks
volume ml 1/1000 millilitre millilitres milliliter milliliters
volume l 1 litre litres liter liters
data kb 1000 kilobyte kilobytes
data mb 1000000 megabyte megabytes
data gb 1000000000 gigabyte gigabytes`), "\n") {
		f := strings.Fields(line)
		factor, _ := new(big.Rat).SetString(f[2])
		for _, name := range append(f[3:], f[1]) {
			measures[name] = measure{kind: f[0], symbol: f[1], factor: factor}
		}
	}
}

// unitName brings the spellings of a unit together.
func unitName(w string) string {
	if m, ok := measures[w]; ok {
		return m.symbol
	}
	if strings.HasSuffix(w, "s") && len(w) > 3 && !strings.HasSuffix(w, "ss") {
		return w[:len(w)-1]
	}
	return w
}

// convert writes q in another unit of the same kind.
func convert(q quantity, unit string) (quantity, error) {
	if q.unit == unit {
		return q, nil
	}
	from, ok1 := measures[q.unit]
	to, ok2 := measures[unit]
	if !ok1 || !ok2 || from.kind != to.kind {
		return q, fmt.Errorf("%s and %s do not measure the same thing", plural(q.unit), plural(unit))
	}
	v := new(big.Rat).Mul(q.v, from.factor)
	return quantity{v: v.Quo(v, to.factor), unit: unit, rounded: q.rounded}, nil
}

func plural(unit string) string {
	if _, ok := measures[unit]; ok || len(unit) < 3 {
		return unit
	}
	return unit + "s"
}

func binary(op string, a, b quantity) (quantity, error) {
	out := quantity{v: new(big.Rat), rounded: a.rounded || b.rounded}
	switch op {
	case "+", "-":
		if b.percent && !a.percent {
			part := new(big.Rat).Mul(a.v, b.v)
			b = quantity{v: part, unit: a.unit}
		}
		out.unit, out.percent = a.unit, a.percent && b.percent
		switch {
		case a.unit == "":
			out.unit = b.unit
		case b.unit != "":
			var err error
			if b, err = convert(b, a.unit); err != nil {
				return out, err
			}
		}
		if op == "+" {
			out.v.Add(a.v, b.v)
		} else {
			out.v.Sub(a.v, b.v)
		}
	case "*":
		if a.unit != "" && b.unit != "" {
			return out, fmt.Errorf("%s times %s is no unit that I know", plural(a.unit), plural(b.unit))
		}
		out.unit = a.unit + b.unit
		out.v.Mul(a.v, b.v)
	case "/", "mod":
		if b.v.Sign() == 0 {
			return out, errZero
		}
		out.unit = a.unit
		if b.unit != "" {
			if a.unit == "" {
				return out, errSyntax
			}
			var err error
			if b, err = convert(b, a.unit); err != nil {
				return out, err
			}
			out.unit = ""
		}
		if op == "/" {
			out.v.Quo(a.v, b.v)
			break
		}
		q := new(big.Rat).Quo(a.v, b.v)
		floor := new(big.Int).Div(q.Num(), q.Denom())
		out.v.Sub(a.v, q.Mul(b.v, new(big.Rat).SetInt(floor)))
	case "^":
		return power(a, b)
	}
	return out.bounded()
}

func power(a, b quantity) (quantity, error) {
	if a.unit != "" || b.unit != "" {
		return a, errors.New("powers are for plain numbers")
	}
	half := big.NewRat(1, 2)
	if b.v.Cmp(half) == 0 {
		return root(a)
	}
	if !b.v.IsInt() {
		return a, errWhole
	}
	if !b.v.Num().IsInt64() {
		return a, errLarge
	}
	n := b.v.Num().Int64()
	base := new(big.Rat).Set(a.v)
	if n < 0 {
		if base.Sign() == 0 {
			return a, errZero
		}
		base.Inv(base)
		n = -n
	}
	bits := int64(max(base.Num().BitLen(), base.Denom().BitLen()))
	if n > maxBits && bits > 1 || n <= maxBits && bits*n > 2*maxBits {
		return a, errLarge
	}
	if bits <= 1 {
		n = n%2 + 2 // 0, 1 and -1 have only two different powers from here on.
	}
	e := big.NewInt(n)
	num := new(big.Int).Exp(base.Num(), e, nil)
	den := new(big.Int).Exp(base.Denom(), e, nil)
	if b.v.Sign() == 0 {
		num, den = big.NewInt(1), big.NewInt(1)
	}
	return quantity{v: new(big.Rat).SetFrac(num, den), rounded: a.rounded}.bounded()
}

func root(a quantity) (quantity, error) {
	if a.unit != "" {
		return a, errors.New("roots are for plain numbers")
	}
	if a.v.Sign() < 0 {
		return a, errReal
	}
	num, den := new(big.Int).Sqrt(a.v.Num()), new(big.Int).Sqrt(a.v.Denom())
	exact := new(big.Rat).SetFrac(num, den)
	if new(big.Rat).Mul(exact, exact).Cmp(a.v) == 0 {
		return quantity{v: exact, rounded: a.rounded}, nil
	}
	f := new(big.Float).SetPrec(256).SetRat(a.v)
	v, _ := f.Sqrt(f).Rat(nil)
	return quantity{v: v, rounded: true}, nil
}

func factorial(a quantity) (quantity, error) {
	if !a.v.IsInt() || a.v.Sign() < 0 || a.unit != "" {
		return a, errWhole
	}
	if !a.v.Num().IsInt64() || a.v.Num().Int64() > 300 {
		return a, errLarge
	}
	return quantity{v: new(big.Rat).SetInt(new(big.Int).MulRange(1, a.v.Num().Int64()))}, nil
}

// String writes the number: exactly when it has few decimals, else as a
// fraction with a decimal beside it.
func (q quantity) String() string {
	s := q.number()
	switch {
	case q.unit == "":
		return s
	case strings.ContainsAny(q.unit, "$€£"):
		if i := strings.IndexByte(s, '.'); i >= 0 && len(s)-i == 2 {
			s += "0"
		}
		if strings.HasPrefix(s, "-") {
			return "-" + q.unit + s[1:]
		}
		return q.unit + s
	default:
		unit := q.unit
		if q.v.Cmp(big.NewRat(1, 1)) != 0 {
			unit = plural(unit)
		}
		return s + " " + unit
	}
}

func (q quantity) number() string {
	if q.rounded {
		return "about " + trimZeros(q.v.FloatString(10))
	}
	if q.v.IsInt() {
		return q.v.Num().String()
	}
	if n, exact := q.v.FloatPrec(); exact && n <= 20 {
		return q.v.FloatString(n)
	}
	short := trimZeros(q.v.FloatString(6))
	if len(q.v.RatString()) > 24 {
		return "about " + short
	}
	return q.v.RatString() + " (about " + short + ")"
}

func trimZeros(s string) string {
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return s
}

package builtin

import (
	"encoding/json"
	"math/big"
	"strings"
)

// nearest gives the stems of the first three words.
func nearest(list []string) []string {
	var out []string
	for _, w := range list[:min(3, len(list))] {
		out = append(out, stem(strings.ToLower(w)))
	}
	return out
}

// beside finds the number that stands next to a word of the property's name,
// or else of its description; -1 when there is none.
func (f *filler) beside(s *schema, name string) int {
	for _, label := range []string{strings.Join(nameWords(name), " "), s.Title + " " + s.Description} {
		want := setOf(stems(label))
		best, distance := -1, 4
		for i, x := range f.numbers.all {
			if x.kind != "number" || x.used {
				continue
			}
			for _, side := range f.near[i] {
				for d, w := range side {
					if want[w] && d+1 < distance {
						best, distance = i, d+1
					}
				}
			}
		}
		if best >= 0 {
			return best
		}
	}
	return -1
}

// clause is the part of a text up to the nearest comma or stop.
func clause(s string, before bool) string {
	if before {
		return s[strings.LastIndexAny(s, ",;.!?\n")+1:]
	}
	if i := strings.IndexAny(s, ",;.!?\n"); i >= 0 {
		return s[:i]
	}
	return s
}

func (f *filler) number(s *schema, name string, must, whole bool) (any, bool) {
	at := f.beside(s, name)
	for i := 0; at < 0 && i < len(f.numbers.all); i++ {
		if x := f.numbers.all[i]; x.kind == "number" && !x.used && (!whole || !strings.Contains(x.text, ".")) {
			at = i
		}
	}
	if at >= 0 {
		x := &f.numbers.all[at]
		if v, ok := new(big.Rat).SetString(strings.ReplaceAll(x.text, ",", "")); ok && len(x.text) < 40 {
			x.used = true
			return decimal(s.bounded(v, whole)), true
		}
	}
	if !must {
		return nil, false
	}
	v, ok := rat(s.Default)
	if !ok {
		v = new(big.Rat)
	}
	return decimal(s.bounded(v, whole)), false
}

func decimal(v *big.Rat) json.Number {
	if v.IsInt() {
		return json.Number(v.Num().String())
	}
	n, exact := v.FloatPrec()
	if !exact || n > 12 {
		n = 12
	}
	return json.Number(trimZeros(v.FloatString(n)))
}

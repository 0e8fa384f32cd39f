package main

import (
	"cmp"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
)

// row is one line of the table: a figure of ours beside the same of a plain case.
type row struct {
	what        string
	ours, plain string // cells; no plain one when the figure stands for itself
	unit        string // says whether higher or lower is better
	figure      func(result) float64
	want        want
}

// want is what a row should reach. Below its floor a release fails; the goal is
// what to reach.
type want struct {
	of          compared
	floor, goal float64
}

// compared says which number of a row its floor and goal are for.
type compared int

const (
	nothing compared = iota // the row has no goal of its own
	ratio                   // ours / plain
	excess                  // ours - plain
	itself                  // ours
)

// label is a goal as it is printed.
func (w want) label(f float64) string {
	switch w.of {
	case ratio:
		return trim(f) + " x"
	case excess:
		return "+" + trim(f)
	case itself:
		return trim(f)
	default:
		return ""
	}
}

// mark says how far a row comes.
func (w want) mark(ours, plain, ratioOf float64, lower bool) string {
	got := map[compared]float64{ratio: ratioOf, excess: ours - plain, itself: ours}[w.of]
	reaches := func(bound float64) bool {
		if lower {
			return got <= bound
		}
		return got >= bound
	}
	switch {
	case w.of == nothing:
		return ""
	case math.IsNaN(got):
		return "**not measured**"
	case reaches(w.goal):
		return "goal"
	case reaches(w.floor):
		return "floor"
	default:
		return "**short**"
	}
}

func trim(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.4g", f), ".0") }

// chosen is the rows that a pattern finds and the cells that they need.
func chosen(rows []row, cells []cell, only *regexp.Regexp) ([]row, []cell) {
	need := map[string]bool{}
	rows = slices.DeleteFunc(rows, func(r row) bool { return !only.MatchString(r.what) })
	for _, r := range rows {
		need[r.ours], need[r.plain] = true, true
	}
	return rows, slices.DeleteFunc(cells, func(c cell) bool { return !need[c.name] })
}

// markdown is the table. A row's ratio is the median of its rounds' ratios.
func markdown(rows []row, measured map[string][]result, where string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Performance\n\nWritten by `make bench`. %s\n\n", where)
	b.WriteString("| what | ours | plain | ratio (min–max) | unit | floor | goal | reached |\n|---|---:|---:|---:|---|---:|---:|---|\n")
	for _, r := range rows {
		b.WriteString(r.line(measured))
	}
	return b.String() + "\n" + notes
}

func (r row) line(measured map[string][]result) string {
	var ours, plain, ratios []float64
	for i, o := range measured[r.ours] {
		ours = append(ours, r.figure(o))
		if r.plain != "" && i < len(measured[r.plain]) {
			plain = append(plain, r.figure(measured[r.plain][i]))
			ratios = append(ratios, ours[i]/plain[i])
		}
	}
	for _, s := range [][]float64{ours, plain, ratios} {
		slices.SortFunc(s, cmp.Compare)
	}
	o, p, q := quantile(ours, .5), quantile(plain, .5), quantile(ratios, .5)
	beside, compare := "", fmt.Sprintf("(%s–%s)", short(ours[0]), short(ours[len(ours)-1]))
	if r.plain != "" {
		beside, compare = short(p), fmt.Sprintf("%s (%s–%s)", short(q), short(ratios[0]), short(ratios[len(ratios)-1]))
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s | %s |\n", r.what, short(o), beside, compare, r.unit,
		r.want.label(r.want.floor), r.want.label(r.want.goal), r.want.mark(o, p, q, strings.Contains(r.unit, "lower")))
}

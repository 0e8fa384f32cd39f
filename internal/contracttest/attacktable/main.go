// Command attacktable prints the attacks that a test run has refused, as a table.
//
//	go test ./internal/contracttest -run 'TestA[0-9]' -v | go run ./internal/contracttest/attacktable
//
// It fails when a test failed, or when an attack's id is missing.
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// wanted are the ids that must have a line.
var wanted = []string{
	"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "A10", "A11", "A12", "A13", "A14", "A15", "A16",
	"A17", "A18", "A19", "A20", "A21", "A22", "A23", "A24", "A25", "A26", "A27", "A28",
	"A29", "A30", "A31", "A32", "A33", "A34", "A35", "A36", "A37", "A38",
	"A39", "A42", "A43", "A44", "A45", "A46", "A47", "A48", "A49", "A52",
}

type line struct{ id, attack, outcome, test string }

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "attacks:", err)
		os.Exit(1)
	}
}

var (
	noted  = regexp.MustCompile(`attack\t(A[0-9]+)\t([^\t]*)\t([^\t]*)\t(\S+)$`)
	failed = regexp.MustCompile(`^\s*--- FAIL: (\S+)|^(FAIL|panic: .*)`)
)

func run(in io.Reader, out io.Writer) error {
	var lines []line
	var failures, told []string
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m := noted.FindStringSubmatch(s.Text()); m != nil {
			lines = append(lines, line{m[1], m[2], m[3], m[4]})
			continue
		}
		if m := failed.FindStringSubmatch(s.Text()); m != nil {
			failures = append(failures, strings.TrimSpace(s.Text()))
		}
		told = append(told, s.Text())
	}
	if err := s.Err(); err != nil {
		return err
	}
	if len(failures) > 0 {
		fmt.Fprintln(out, strings.Join(told, "\n"))
		return fmt.Errorf("not refused: %s", strings.Join(failures, "; "))
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(number(a.id), number(b.id)), strings.Compare(a.attack, b.attack))
	})
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "id\tattack\trefused with\ttest")
	for _, l := range lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.id, shorten(l.attack), l.outcome, l.test)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, id := range wanted {
		if !slices.ContainsFunc(lines, func(l line) bool { return l.id == id }) {
			return fmt.Errorf("no test of %s ran", id)
		}
	}
	fmt.Fprintf(out, "\n%d attacks of %d kinds refused\n", len(lines), len(wanted))
	return nil
}

func number(id string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(id, "A"))
	if err != nil {
		return 0
	}
	return n
}

func shorten(s string) string {
	const longest = 70
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return s
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// bucket is how finely takeovers are remembered.
const bucket = 50 * time.Millisecond

// tally is what is known of one fault.
type tally struct {
	Fault      string `json:"fault"`
	Iterations int    `json:"iterations"`
	Missed     int    `json:"missed"` // trials in which the fault met nobody; not among the iterations
	Runs       int    `json:"runs"`
	// Met are the runs that the fault met: those whose executor was lost, or all
	// of the trial where that says nothing.
	Met        int `json:"met"`
	Violations int `json:"violations"`
	// LateCalls are model calls that a stopped process sent when it was continued.
	LateCalls int `json:"late_calls"`
	// Stalled trials had something late that the machine's standing still excuses.
	Stalled int `json:"stalled"`
	// TakeoverMs counts takeovers by their time in ms, rounded up to the bucket.
	TakeoverMs map[string]int `json:"takeover_ms,omitempty"`
}

// campaignNote is one past start of this program.
type campaignNote struct {
	Seed   uint64 `json:"seed"`
	TTL    string `json:"ttl"`
	Trials int    `json:"trials"`
}

// ledger is everything that was counted; it is kept in the report.
type ledger struct {
	Campaigns []campaignNote `json:"campaigns"`
	Tallies   []*tally       `json:"tallies"`
}

func newTallies(faults []fault) *ledger {
	l := &ledger{}
	for _, f := range faults {
		l.of(f.name)
	}
	return l
}

func (l *ledger) of(name string) *tally {
	for _, t := range l.Tallies {
		if t.Fault == name {
			return t
		}
	}
	t := &tally{Fault: name, TakeoverMs: map[string]int{}}
	l.Tallies = append(l.Tallies, t)
	return t
}

func (l *ledger) add(name string, r result) {
	t := l.of(name)
	t.Violations += len(r.violations)
	if r.missed {
		t.Missed++
		return
	}
	if len(r.excused) > 0 {
		t.Stalled++
	}
	t.LateCalls += r.lateCalls
	t.Iterations++
	t.Runs += r.runs
	t.Met += r.met
	for _, d := range r.takeovers {
		up := (d + bucket - 1) / bucket * bucket
		t.TakeoverMs[strconv.FormatInt(up.Milliseconds(), 10)]++
	}
}

// merge adds what another ledger counted.
func (l *ledger) merge(other *ledger) {
	l.Campaigns = append(l.Campaigns, other.Campaigns...)
	for _, o := range other.Tallies {
		t := l.of(o.Fault)
		t.Iterations += o.Iterations
		t.Missed += o.Missed
		t.Runs += o.Runs
		t.Met += o.Met
		t.Violations += o.Violations
		t.Stalled += o.Stalled
		t.LateCalls += o.LateCalls
		for ms, n := range o.TakeoverMs {
			t.TakeoverMs[ms] += n
		}
	}
}

func (l *ledger) trials() int {
	n := 0
	for _, t := range l.Tallies {
		n += t.Iterations + t.Missed
	}
	return n
}

// takeover is the time within which a share of the takeovers happened, as text.
func (t *tally) takeover(share float64) string {
	all, byMs := 0, map[int]int{}
	for text, n := range t.TakeoverMs {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return "?"
		}
		all += n
		byMs[ms] += n
	}
	if all == 0 {
		return "–"
	}
	seen := 0
	for _, ms := range slices.Sorted(maps.Keys(byMs)) {
		if seen += byMs[ms]; float64(seen) >= share*float64(all) {
			return fmt.Sprintf("%.2f s", float64(ms)/1000)
		}
	}
	return "?"
}

func (t *tally) takeovers() int {
	n := 0
	for _, m := range t.TakeoverMs {
		n += m
	}
	return n
}

// table is the ledger for people.
func (l *ledger) table() string {
	var b strings.Builder
	b.WriteString("| fault | iterations | runs | met | takeovers | takeover p50 / p99 | late calls | stalled | violations |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, t := range l.Tallies {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %s / %s | %d | %d | %d |\n",
			t.Fault, t.Iterations, t.Runs, t.Met, t.takeovers(), t.takeover(0.5), t.takeover(0.99), t.LateCalls, t.Stalled, t.Violations)
	}
	return b.String()
}

// conclude prints the table and adds it to the report when one is named.
func conclude(l *ledger, o options, violated bool, err error) error {
	l.Campaigns = []campaignNote{{o.seed, o.ttl.String(), l.trials()}}
	fmt.Print("\n", l.table())
	var never []string
	for _, t := range l.Tallies {
		if t.Iterations == 0 {
			never = append(never, t.Fault)
		}
	}
	if o.write != "" {
		err = errors.Join(err, addTo(o.write, l))
	}
	if violated {
		err = errors.Join(err, errViolated)
	}
	if len(never) > 0 {
		err = errors.Join(err, fmt.Errorf("never met anybody: %s", strings.Join(never, ", ")))
	}
	return err
}

const (
	tableBegin = "<!-- counts: begin -->\n"
	tableEnd   = "<!-- counts: end -->\n"
	jsonBegin  = "```json\n"
	jsonEnd    = "\n```\n"
)

// addTo adds a ledger to the one in a report, and writes the table anew.
func addTo(path string, l *ledger) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the report: %w", err)
	}
	before, kept, after, err := split(string(b))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	kept.merge(l)
	text, err := kept.text()
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	next := path + ".new"
	if err := os.WriteFile(next, []byte(before+tableBegin+text+tableEnd+after), fs.FileMode(0o600)|info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(next, path) // a report is old or new, never half
}

func (l *ledger) text() (string, error) {
	var b strings.Builder
	trials := 0
	for _, c := range l.Campaigns {
		trials += c.Trials
	}
	fmt.Fprintf(&b, "\n%d trials in %d campaigns.\n\n%s\n", trials, len(l.Campaigns), l.table())
	b.WriteString("The counts, with the campaigns' seeds, as the next campaign reads them:\n\n" + jsonBegin)
	b.WriteString("{\"campaigns\": [\n")
	for n, c := range l.Campaigns {
		if err := jsonLine(&b, c, n == len(l.Campaigns)-1); err != nil {
			return "", err
		}
	}
	b.WriteString("], \"tallies\": [\n")
	for n, t := range l.Tallies {
		if err := jsonLine(&b, t, n == len(l.Tallies)-1); err != nil {
			return "", err
		}
	}
	b.WriteString("]}" + jsonEnd + "\n")
	return b.String(), nil
}

func jsonLine(b *strings.Builder, v any, last bool) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b.Write(line)
	if !last {
		b.WriteString(",")
	}
	b.WriteString("\n")
	return nil
}

// split takes a report apart: what stands before and after the counts, and the
// counts. A report that has no counts yet has the two marks alone.
func split(report string) (before string, kept *ledger, after string, err error) {
	before, rest, begins := strings.Cut(report, tableBegin)
	counts, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return "", nil, "", fmt.Errorf("it has no place for counts, between %q and %q", strings.TrimSpace(tableBegin), strings.TrimSpace(tableEnd))
	}
	kept = &ledger{}
	_, data, found := strings.Cut(counts, jsonBegin)
	if !found {
		return before, kept, after, nil
	}
	data, _, _ = strings.Cut(data, jsonEnd)
	if err := json.Unmarshal([]byte(data), kept); err != nil {
		return "", nil, "", fmt.Errorf("its counts cannot be read: %w", err)
	}
	for _, t := range kept.Tallies {
		if t.TakeoverMs == nil {
			t.TakeoverMs = map[string]int{}
		}
	}
	return before, kept, after, nil
}

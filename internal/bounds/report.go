package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// figure is one thing that was timed.
type figure struct {
	what    string
	ttl     time.Duration
	samples []time.Duration
	bounds  []bound
}

// bound is what one quantile of a figure must keep: at most so much, or, for
// min, at least so much.
type bound struct {
	of    string // min, p50, p99 or max
	limit time.Duration
}

func (f *figure) add(d time.Duration) { f.samples = append(f.samples, d) }

// quantile is the smallest sample that so much of all does not exceed.
func (f figure) quantile(of string) time.Duration {
	s := slices.Sorted(slices.Values(f.samples))
	switch of {
	case "min":
		return s[0]
	case "max":
		return s[len(s)-1]
	}
	per := map[string]int{"p50": 50, "p99": 99}[of]
	return s[(len(s)*per+99)/100-1]
}

func (b bound) kept(f figure) bool {
	got := f.quantile(b.of)
	if b.of == "min" {
		return got >= b.limit
	}
	return got <= b.limit
}

func (b bound) String() string {
	if b.of == "min" {
		return "min ≥ " + milliseconds(b.limit)
	}
	return b.of + " ≤ " + milliseconds(b.limit)
}

// brokenOf says which bounds were broken.
func brokenOf(all []figure) []string {
	var wrong []string
	for _, f := range all {
		for _, b := range f.bounds {
			if !b.kept(f) {
				wrong = append(wrong, fmt.Sprintf("%s, TTL %s: %s ms, and it is %s", f.what, f.ttl, b, milliseconds(f.quantile(b.of))))
			}
		}
	}
	return wrong
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%d", d.Round(time.Millisecond).Milliseconds())
}

// line is the figure's row in the table.
func (f figure) line() string {
	kept, bounds := "yes", make([]string, len(f.bounds))
	for i, b := range f.bounds {
		bounds[i] = b.String()
		if !b.kept(f) {
			kept = "**no**"
		}
	}
	cells := []string{f.what, f.ttl.String(), fmt.Sprint(len(f.samples))}
	for _, of := range []string{"min", "p50", "p99", "max"} {
		cells = append(cells, milliseconds(f.quantile(of)))
	}
	return "| " + strings.Join(append(cells, strings.Join(bounds, ", "), kept), " | ") + " |"
}

// document is docs/bounds.md.
func document(all []figure, where string, loads []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Bounds\n\nWritten by `make bounds`. %s\n", where)
	if len(loads) > 0 {
		fmt.Fprintf(&b, "Load average before each measurement: %s.\n", strings.Join(loads, ", "))
	}
	b.WriteString("\n")
	b.WriteString("| what, in ms | TTL | samples | min | p50 | p99 | max | bounds | kept |\n|---|---:|---:|---:|---:|---:|---:|---|---|\n")
	for _, f := range all {
		b.WriteString(f.line() + "\n")
	}
	return b.String() + "\n" + notes
}

const notes = `How each is measured. Two real processes share the runs, about 50 each (25 when a process is drained at a TTL of 1 s), on one
private Postgres with durable settings. Each run is in a model call that speaks five times a second and never ends by itself.
Clients, processes, the scripted provider and Postgres share the machine and its clock. A moment in the log is the event's time
there, by the database's clock.

- **kill -9** of one process. The moment of the kill is read from the database before the signal; the rounds are spread evenly
  over the time between two heartbeats. The bounds are 1.3 TTL for the median and, for the slowest in a hundred, the TTL, a
  heartbeat (a third of it), a tick (a quarter of it, a second at the most) and a second. No run is taken over before its lease,
  as it stood after the death, has ended.
- **SIGTERM** to one process, with a client on each of its runs that comes back when the stream says. Every run goes on within
  a tenth of the TTL, the process ends by itself, and no client misses an event or sees one twice. What it takes is the
  successor's work: leases that are wanted at the same moment are taken together, and each run goes on with
  commits of its own.
- **cancel**, each through the process that does not execute the run. A token that comes after the cancel is not in the log; the
  run's end is.
- **Postgres** is killed with its postmaster's SIGKILL and started again, with a client on every run. The time counts from when
  processes can connect. No client misses an event or sees one twice. Leases that are younger than two thirds of the TTL when
  the outage ends are handed over at once; the others expire.

` + "`make bounds`" + ` takes about ten minutes, writes this file and fails when a bound is broken; ` + "`make bounds-quick`" + ` takes half a
minute, at a TTL of 1 s. Both measure the machine too: on one that is busy with other work the drain at a TTL of 1 s is the
first to fail.
`

// load is the load average of the last minute, where the system tells.
func load() (string, bool) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", false
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one, true
}

// conditions says where and on what the figures were made.
func conditions(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	var version string
	if err := pool.QueryRow(ctx, "SELECT current_setting('server_version')").Scan(&version); err != nil {
		return "", err
	}
	version, _, _ = strings.Cut(version, " ")
	return fmt.Sprintf("%s, %s/%s, %d cores, %s, PostgreSQL %s.", time.Now().UTC().Format(time.DateOnly),
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), version), nil
}

// Command bench measures the hot paths beside plain Postgres and prints the ratios.
//
// Every cell of the table is measured in each of several rounds, ours and the
// plain case in turn, so that a ratio compares two moments of one machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"
)

// reportPath is where -write puts the table, from the repository's top.
const reportPath = "docs/performance.md"

type options struct {
	rounds   int
	each     time.Duration // a cell takes in a round
	only     *regexp.Regexp
	database string // URL of a server; a private one when empty
	dir      string
	write    bool
	profile  string
	serve    string // the database that a serving process of this command serves
	watch    bool   // be a process that reads streams
	memory   bool   // be a process that serves streams from memory
	size     sizes
}

// sizes is how big the subjects are.
type sizes struct {
	runs, leases, longRun      int
	streams, idle, subscribers int
	tools                      int
	snapshot, settle, quiet    time.Duration
}

var (
	fullSize  = sizes{runs: 1000, leases: 10_000, longRun: 1_000_000, streams: 1000, idle: 10_000, subscribers: 1000, tools: 500, snapshot: 30 * time.Second, settle: 12 * time.Second, quiet: 20 * time.Second}
	quickSize = sizes{runs: 64, leases: 200, longRun: 2_000, streams: 100, idle: 200, subscribers: 50, tools: 50, snapshot: 500 * time.Millisecond, settle: time.Second, quiet: time.Second}
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, complain io.Writer) (options, error) {
	var o options
	var seconds float64
	var only string
	var quick bool
	var snapshot time.Duration
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(complain)
	f.IntVar(&o.rounds, "rounds", 7, "rounds; the table shows medians over them")
	f.Float64Var(&seconds, "seconds", 1, "how long a cell is measured in a round")
	f.BoolVar(&quick, "quick", false, "2 rounds of 0.2 s: shows that everything runs, its figures mean little")
	f.DurationVar(&snapshot, "snapshot", fullSize.snapshot, "how long a snapshot is held under load; the goal is for 10m")
	f.StringVar(&only, "only", "", "measure only rows that this regular expression finds")
	f.StringVar(&o.database, "database", "", "URL of a server to use instead of a private one; a database is created and dropped there")
	f.StringVar(&o.dir, "dir", "", "folder for the private server's files; a new temporary one when empty")
	f.BoolVar(&o.write, "write", false, "write the table to "+reportPath+" too")
	f.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of the measured rounds to this file")
	f.StringVar(&o.serve, "serve", "", "for the command's own use: be a second process that serves streams of this database")
	f.BoolVar(&o.watch, "watch", false, "for the command's own use: be a process that reads streams")
	f.BoolVar(&o.memory, "memory", false, "for the command's own use: be a process that serves streams from memory")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.size = fullSize
	o.size.snapshot = snapshot
	if quick {
		o.rounds, seconds, o.size = 2, 0.2, quickSize
	}
	o.each = time.Duration(seconds * float64(time.Second))
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if o.rounds < 1 || o.each < 50*time.Millisecond || f.NArg() > 0 {
		return o, errors.New("at least 1 round, of 0.05 s or more, and no arguments")
	}
	return o, nil
}

func bench(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	o, err := parse(args, progress)
	if err != nil {
		return err
	}
	if o.serve != "" {
		return serveStreams(ctx, o.serve, os.Stdin, out)
	}
	if o.watch {
		w := &watcher{}
		return obey(ctx, os.Stdin, out, order{}, w.do)
	}
	if o.memory {
		return serveMemory(ctx, os.Stdin, out)
	}
	db, err := openDatabase(ctx, o, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	where, err := conditions(ctx, db, o)
	if err != nil {
		return err
	}
	s, err := newSubjects(ctx, db, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	rows, cells := chosen(table(), s.cells(), o.only)
	if len(rows) == 0 {
		return fmt.Errorf("-only %s finds no row", o.only)
	}
	wal, err := newWALMeter(ctx, db.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wal.close()) }()
	measured, err := rounds(ctx, wal, cells, o, progress)
	if err != nil {
		return err
	}
	report := markdown(rows, measured, where)
	if _, err := io.WriteString(out, report); err != nil {
		return err
	}
	if o.write {
		return os.WriteFile(reportPath, []byte(report), 0o644)
	}
	return nil
}

// fewRounds is for cells that take long.
const fewRounds = 3

// rounds measures every cell once per round, forwards and backwards in turn,
// after a short round that warms caches and is thrown away.
func rounds(ctx context.Context, wal *walMeter, cells []cell, o options, progress io.Writer) (_ map[string][]result, err error) {
	for _, c := range cells {
		if c.prepare != nil {
			fmt.Fprintf(progress, "prepare %s\n", c.name)
			if err := c.prepare(ctx); err != nil {
				return nil, fmt.Errorf("prepare %s: %w", c.name, err)
			}
		}
		if c.most > 0 {
			continue
		}
		if _, err := c.measure(ctx, min(o.each, 200*time.Millisecond)); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	measured := map[string][]result{}
	for round := range o.rounds {
		fmt.Fprintf(progress, "round %d of %d\n", round+1, o.rounds)
		for i := range cells {
			c := cells[i]
			if round%2 == 1 {
				c = cells[len(cells)-1-i]
			}
			if c.most > 0 && round >= c.most {
				continue
			}
			r, err := wal.around(ctx, c, o.each)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			measured[c.name] = append(measured[c.name], r)
		}
	}
	return measured, nil
}

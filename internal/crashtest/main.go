// Command crashtest hurts real processes, their network and their database, and checks after each fault that nothing was lost, repeated or late.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

type options struct {
	only, not  string
	minutes    float64
	iterations int
	seed       uint64
	ttl        time.Duration
	write      string
	verbose    bool
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "faults whose name matches this regular expression")
	flag.StringVar(&o.not, "not", "", "and none whose name matches this one")
	flag.Float64Var(&o.minutes, "minutes", 110, "stop after so long, the trial at work included")
	flag.IntVar(&o.iterations, "iterations", 0, "trials of each fault; 0 is as many as the minutes allow")
	flag.Uint64Var(&o.seed, "seed", rand.Uint64(), "of the schedule; a failed trial prints its own")
	flag.DurationVar(&o.ttl, "ttl", time.Second, "of leases")
	flag.StringVar(&o.write, "write", "", "the file whose counts are added to, such as docs/reliability.md")
	flag.BoolVar(&o.verbose, "v", false, "say what each trial came to, and what processes said when one failed")
	flag.Parse()
	if inside, err := inOwnMounts(); err != nil {
		fail(err)
	} else if !inside {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		stop()
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

var errViolated = errors.New("an invariant was violated")

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "oa-crashtest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { // the database's account passes through
		return err
	}
	w := &world{binary: filepath.Join(dir, "openagents-runtime"), ttl: o.ttl, provider: newProvider(), tools: newToolServer()}
	defer w.provider.Close()
	defer w.tools.Close()
	if err := rig.Build(ctx, w.binary, "crash"); err != nil {
		return err
	}
	if w.db, err = newDatabase(ctx, filepath.Join(dir, "db")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.db.Close()) }()
	small, end, err := w.onSmallDisk(ctx, filepath.Join(dir, "disk"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	return campaign(ctx, w, small, o)
}

// smallDisk holds a database, its log and little more.
const smallDisk = 256 << 20

// onSmallDisk is the world with a database on a disk of its own, nil where no
// such disk can be made.
func (w *world) onSmallDisk(ctx context.Context, dir string) (*world, func() error, error) {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, nil, err
	}
	if err := mountSmall(dir, smallDisk); err != nil {
		fmt.Printf("left out: disk full (%v)\n", err)
		return nil, func() error { return nil }, nil
	}
	db, err := newDatabase(ctx, dir)
	if err != nil {
		return nil, nil, errors.Join(err, unmount(dir))
	}
	small := *w
	small.db = db
	return &small, func() error { return errors.Join(db.Close(), unmount(dir)) }, nil
}

func campaign(ctx context.Context, w, small *world, o options) error {
	var faults []fault
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	not, err := regexp.Compile(o.not)
	if err != nil {
		return fmt.Errorf("-not: %w", err)
	}
	for _, f := range allFaults() {
		if only.MatchString(f.name) && (o.not == "" || !not.MatchString(f.name)) && (!f.small || small != nil) {
			faults = append(faults, f)
		}
	}
	if len(faults) == 0 {
		return fmt.Errorf("no fault is called %q", o.only)
	}
	fmt.Printf("seed %d, TTL %s, %d faults\n", o.seed, o.ttl, len(faults))
	seeds := rand.New(rand.NewPCG(o.seed, 0))
	end := time.Now().Add(time.Duration(o.minutes * float64(time.Minute)))
	tallies := newTallies(faults)
	next, err := o.order(faults, tallies)
	if err != nil {
		return err
	}
	violated := false
	for f := next(); f != nil; f = next() {
		if time.Now().After(end) || ctx.Err() != nil {
			break
		}
		where := w
		if f.small {
			where = small
		}
		bad, err := try(ctx, where, *f, seeds, tallies, o.verbose)
		violated = violated || bad
		if err != nil {
			return errors.Join(err, conclude(tallies, o, violated, nil))
		}
	}
	return conclude(tallies, o, violated, ctx.Err())
}

// order answers with one fault after another: so many rounds, or for ever the
// one that is farthest from the runs it is to meet, what the report counts
// already included.
func (o options) order(faults []fault, now *ledger) (func() *fault, error) {
	if o.iterations > 0 {
		n := -1
		return func() *fault {
			if n++; n == o.iterations*len(faults) {
				return nil
			}
			return &faults[n%len(faults)]
		}, nil
	}
	before := &ledger{}
	if o.write != "" {
		b, err := os.ReadFile(o.write)
		if err != nil {
			return nil, fmt.Errorf("read the report: %w", err)
		}
		if _, before, _, err = split(string(b)); err != nil {
			return nil, fmt.Errorf("%s: %w", o.write, err)
		}
	}
	share := func(f fault) float64 {
		return float64(before.of(f.name).Met+now.of(f.name).Met+now.of(f.name).Missed) / float64(f.want)
	}
	return func() *fault {
		least := &faults[0]
		for n := range faults {
			if share(faults[n]) < share(*least) {
				least = &faults[n]
			}
		}
		return least
	}, nil
}

// tries is how often a fault that met nobody is tried again.
const tries = 8

// try conducts one trial of a fault, again when the fault met nobody.
func try(ctx context.Context, w *world, f fault, seeds *rand.Rand, tallies *ledger, verbose bool) (violated bool, err error) {
	for range tries {
		seed, begun := seeds.Uint64(), time.Now()
		res, err := conduct(ctx, w, f, seed)
		if err != nil {
			return violated, fmt.Errorf("seed %d: %w", seed, err)
		}
		tallies.add(f.name, res)
		violated = violated || len(res.violations) > 0
		if verbose || len(res.violations) > 0 {
			fmt.Printf("%s: %.1f s, takeovers %v, missed %v, seed %d\n", f.name, time.Since(begun).Seconds(), res.takeovers, res.missed, seed)
		}
		for _, v := range res.violations {
			fmt.Println("  VIOLATION", v)
		}
		if verbose {
			for _, l := range res.logs {
				fmt.Println(l)
			}
		}
		for _, e := range res.excused {
			fmt.Println("  late on a machine that stood still:", e)
		}
		if !res.missed {
			break
		}
	}
	return violated, nil
}

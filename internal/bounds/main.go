// Command bounds measures how long takeover, drain, cancel and an outage of Postgres take, and fails when a promised bound is broken.
//
// It kills, ends and cancels on real processes with many runs at work. Moments
// are those of the log, by the database's clock, which is this machine's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

type options struct {
	quick bool
	only  string
	write string
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "a TTL of 1 s and few samples: shows that everything runs and that nothing is far off")
	flag.StringVar(&o.only, "only", "", "measurements whose name matches this regular expression, such as 'kill|drain 1s'")
	flag.StringVar(&o.write, "write", "", "the file that the table is written to, such as docs/bounds.md")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bounds:", err)
		os.Exit(1)
	}
}

// measurement is one thing that is done again and again and timed.
type measurement struct {
	name string
	ttl  time.Duration
	take func(context.Context, *world) ([]figure, error)
}

func plan(quick bool) []measurement {
	if quick {
		return []measurement{
			takeovers(time.Second, 20, 3), drains(time.Second, 10, 1), cancels(5*time.Second, 30, 1), outages(time.Second, 20, 1),
		}
	}
	return []measurement{
		takeovers(time.Second, 50, 12), takeovers(5*time.Second, 50, 8), takeovers(30*time.Second, 50, 4),
		drains(time.Second, 25, 8), drains(5*time.Second, 50, 5), drains(30*time.Second, 50, 3),
		cancels(5*time.Second, 50, 4),
		outages(time.Second, 50, 5), outages(5*time.Second, 50, 4), outages(30*time.Second, 50, 3),
	}
}

func run(ctx context.Context, o options) (err error) {
	only, err := regexp.Compile(o.only)
	if err != nil {
		return fmt.Errorf("-only: %w", err)
	}
	dir, err := os.MkdirTemp("", "oa-bounds-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o711); err != nil { // the database's account passes through
		return err
	}
	w := &world{binary: filepath.Join(dir, "openagents-runtime"), provider: newProvider()}
	defer w.provider.Close()
	if err := rig.Build(ctx, w.binary, ""); err != nil {
		return err
	}
	if w.db, err = rig.NewDatabase(ctx, filepath.Join(dir, "db"), "bounds"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.db.Close()) }()
	where, err := conditions(ctx, w.db.Pool)
	if err != nil {
		return err
	}
	var all []figure
	var loads []string
	for _, m := range plan(o.quick) {
		if !only.MatchString(m.name + " " + m.ttl.String()) {
			continue
		}
		if l, known := load(); known {
			loads = append(loads, l)
		}
		begun := time.Now()
		figures, err := m.take(ctx, w)
		w.endAll()
		if err != nil {
			return fmt.Errorf("%s at a TTL of %s: %w", m.name, m.ttl, err)
		}
		for _, f := range figures {
			fmt.Println(f.line())
		}
		fmt.Fprintf(os.Stderr, "%s at a TTL of %s took %.0f s\n", m.name, m.ttl, time.Since(begun).Seconds())
		all = append(all, figures...)
	}
	if len(all) == 0 {
		return fmt.Errorf("no measurement is called %q", o.only)
	}
	if o.write != "" {
		if err := os.WriteFile(o.write, []byte(document(all, where, loads)), 0o644); err != nil {
			return err
		}
	}
	if broken := brokenOf(all); len(broken) > 0 {
		return fmt.Errorf("bounds are broken:\n  %s", strings.Join(broken, "\n  "))
	}
	return nil
}

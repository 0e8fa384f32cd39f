// Command mutation breaks the code on purpose, one patch at a time, and wants the test that each patch names to fail.
//
// The patches are in internal/mutation/patches. Each is applied to a copy of the
// tree in which its test passes. A patch that no longer applies, that does not
// build, or that its test does not notice fails the command.
//
//	go run ./internal/mutation [-short] [part of a patch's name ...]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	short := flag.Bool("short", false, "only the patches that say Short: yes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := check(ctx, *short, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutation:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func check(ctx context.Context, short bool, names []string) (ok bool, err error) {
	all, err := readPatches(filepath.FromSlash("internal/mutation/patches"))
	if err != nil {
		return false, err
	}
	chosen := choose(all, short, names)
	if len(chosen) == 0 {
		return false, errors.New("no patch has such a name")
	}
	tree, err := copyTree(ctx)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(string(tree))) }()
	if err := tree.requireGreen(ctx, chosen); err != nil {
		return false, err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "PATCH\tTEST\tRESULT\tSECONDS")
	red := 0
	for _, p := range chosen {
		begun := time.Now()
		verdict, err := tree.try(ctx, p)
		if err != nil {
			return false, fmt.Errorf("%s: %w", p.Name, err)
		}
		if verdict == noticed {
			red++
		}
		fmt.Fprintf(os.Stderr, "%s: %s\n", p.Name, verdict)
		fmt.Fprintf(table, "%s\t%s %s\t%s\t%.1f\n", p.Name, p.Package, p.Run, verdict, time.Since(begun).Seconds())
	}
	if err := table.Flush(); err != nil {
		return false, err
	}
	fmt.Printf("%d of %d mutations were noticed\n", red, len(chosen))
	return red == len(chosen), nil
}

func choose(all []patch, short bool, names []string) []patch {
	var chosen []patch
	for _, p := range all {
		named := len(names) == 0
		for _, n := range names {
			named = named || strings.Contains(p.Name, n)
		}
		if named && (p.Short || !short) {
			chosen = append(chosen, p)
		}
	}
	return chosen
}

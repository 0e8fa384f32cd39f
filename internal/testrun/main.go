// Command testrun runs the tests, shows what failed, and counts a skipped test as failed.
//
// It takes the arguments of go test. All packages share one private Postgres,
// unless TEST_DATABASE_URL names another. The last line is "N passed, N failed,
// N skipped".
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
)

// line is one line of `go test -json`; cmd/test2json documents it.
type line struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

type report struct {
	out                     io.Writer
	output                  map[string][]string // by package and test
	passed, failed, skipped int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := withDatabase(ctx, func() (bool, error) { return run(ctx, os.Args[1:], os.Stdout) })
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

const databaseVariable = "TEST_DATABASE_URL"

// withDatabase sets TEST_DATABASE_URL to a private server while f runs.
func withDatabase(ctx context.Context, f func() (bool, error)) (ok bool, err error) {
	if os.Getenv(databaseVariable) != "" {
		return f()
	}
	dir, err := os.MkdirTemp("", "openagents-tests-")
	if err != nil {
		return false, err
	}
	// The server's own user, when root starts it, must be able to enter.
	if err := os.Chmod(dir, 0o711); err != nil {
		return false, err
	}
	server, err := devdb.Start(ctx, devdb.Config{Dir: dir, Log: os.Stderr})
	if err != nil {
		return false, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, server.Stop(stopping), devdb.Remove(stopping, dir), os.RemoveAll(dir))
	}()
	if err := os.Setenv(databaseVariable, server.URL("postgres")); err != nil {
		return false, err
	}
	return f()
}

func run(ctx context.Context, args []string, out io.Writer) (bool, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	r := &report{out: out, output: map[string][]string{}}
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		r.add(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		return false, err
	}
	exit := cmd.Wait()
	if exit != nil && r.failed == 0 {
		r.failed++ // it did not compile, or ended by itself
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return exit == nil && r.failed == 0 && r.skipped == 0, nil
}

func (r *report) add(b []byte) {
	var l line
	if json.Unmarshal(b, &l) != nil {
		fmt.Fprintf(r.out, "%s\n", b) // the compiler's words
		return
	}
	name := l.Package + " " + l.Test
	switch l.Action {
	case "output", "build-output":
		if l.Action == "build-output" {
			fmt.Fprint(r.out, l.Output)
			return
		}
		r.output[name] = append(r.output[name], l.Output)
	case "pass":
		r.end(l, name, &r.passed)
	case "fail":
		r.end(l, name, &r.failed)
		r.show("FAILED ", name)
	case "skip":
		if l.Test == "" {
			return // a package without tests
		}
		r.end(l, name, &r.skipped)
		r.show("SKIPPED, which counts as failed: ", name)
	}
}

// end counts a test, and tells of a package when it is done.
func (r *report) end(l line, name string, count *int) {
	if l.Test != "" {
		*count++
		if l.Action == "pass" {
			delete(r.output, name)
		}
		return
	}
	fmt.Fprintf(r.out, "%-4s %6.1f s  %s\n", l.Action, l.Elapsed, l.Package)
}

func (r *report) show(word, name string) {
	fmt.Fprintf(r.out, "%s%s\n%s", word, name, strings.Join(r.output[name], ""))
	delete(r.output, name)
}

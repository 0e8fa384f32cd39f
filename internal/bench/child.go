package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is another operating-system process of this command, which does as it is
// told over its input, one order after another.
type child struct {
	hello report
	cmd   *exec.Cmd
	stdin io.Closer
	to    *json.Encoder
	from  *json.Decoder
}

// order is what a child is to do; each kind of child knows some.
type order struct {
	Do      string
	URL     string
	Runs    []string
	N       int           // streams, events, clients or calls
	Calls   int           // in a turn
	Slow    int           // streams among them that read slowly
	Cursor  int64         // where streams begin
	Until   int64         // the seq at which they are caught up
	Rate    float64       // per second
	For     time.Duration // how long
	Connect time.Duration // over which streams are opened
	// Authorization pays for the calls that the runs make.
	Authorization string
}

// report is a child's answer.
type report struct {
	Err     string
	URL     string
	Runs    []string
	P50     time.Duration
	P99     time.Duration
	Done    int
	Refused int
	Rate    float64 // per second
	// RefusedP99 is how long a refusal takes.
	RefusedP99 time.Duration
	Took       time.Duration
	RSS, Heap  float64       // bytes; Heap has the stacks too
	CPU        time.Duration // of the process so far
	Asked      int64         // questions to the database so far
	Logs       int64         // pages of logs among them
}

func startChild(ctx context.Context, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, args...)}
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start another process: %w", err)
	}
	c.stdin, c.to, c.from = stdin, json.NewEncoder(stdin), json.NewDecoder(stdout)
	if err := c.from.Decode(&c.hello); err != nil {
		return nil, errors.Join(fmt.Errorf("the other process did not start: %w", err), c.close())
	}
	return c, ctx.Err()
}

func (c *child) close() error { return errors.Join(c.stdin.Close(), c.cmd.Wait()) }

// ask gives an order and waits for its report.
func (c *child) ask(o order) (report, error) {
	var r report
	if err := c.to.Encode(o); err != nil {
		return r, fmt.Errorf("%s: %w", o.Do, err)
	}
	if err := c.from.Decode(&r); err != nil {
		return r, fmt.Errorf("%s: the other process is gone: %w", o.Do, err)
	}
	if r.Err != "" {
		return r, fmt.Errorf("%s: %s", o.Do, r.Err)
	}
	return r, nil
}

// obey does orders until its input ends, so that a child cannot outlive its parent.
func obey(ctx context.Context, in io.Reader, out io.Writer, hello any, do func(context.Context, order) (report, error)) error {
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	if err := to.Encode(hello); err != nil {
		return err
	}
	for {
		var o order
		if err := from.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, err := do(ctx, o)
		if err != nil {
			r.Err = err.Error()
		}
		if err := to.Encode(r); err != nil {
			return err
		}
	}
}

// stat is what this process costs.
func stat() (r report, err error) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.Heap = float64(m.HeapInuse + m.StackInuse)
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return r, err
	}
	r.CPU = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return r, fmt.Errorf("the system does not tell how much memory a process has: %w", err)
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	r.RSS = pages * float64(os.Getpagesize())
	return r, err
}

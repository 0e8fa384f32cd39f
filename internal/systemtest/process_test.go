package systemtest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience ends a test that would wait for ever; no assertion depends on it.
const patience = 60 * time.Second

// process is a running program.
type process struct {
	cmd  *exec.Cmd
	out  *output // stdout and stderr
	done chan struct{}
}

// launch starts the program with nothing in its environment but PATH, HOME and
// env. It is killed at the test's end if it still runs, and what it said is
// shown when the test fails.
func launch(t *testing.T, as *syscall.SysProcAttr, env []string, args ...string) *process {
	t.Helper()
	return launchWith(t, func(cmd *exec.Cmd) { cmd.SysProcAttr = as }, env, args...)
}

func launchWith(t *testing.T, change func(*exec.Cmd), env []string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(program(t), args...), out: newOutput(), done: make(chan struct{})}
	p.cmd.Env = environment(env)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	change(p.cmd)
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // the exit code is in ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.signal(t, syscall.SIGKILL)
		p.wait(t)
		if t.Failed() {
			t.Logf("%s said:\n%s", strings.Join(args, " "), p.out)
		}
	})
	return p
}

func environment(env []string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir()}, env...)
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		require.NoError(t, err)
	}
}

// wait waits for the end and returns the exit code, -1 after a signal.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		require.FailNow(t, "the process does not end", p.out.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// until waits until the process has said something, and returns what the
// expression's groups found.
func (p *process) until(t *testing.T, expression string) []string {
	t.Helper()
	re := regexp.MustCompile(expression)
	for late := time.After(patience); ; {
		found, more := p.out.find(re)
		if found != nil {
			return found
		}
		select {
		case <-more:
		case <-p.done:
			// What was said last has been written before done is closed.
			if found, _ := p.out.find(re); found != nil {
				return found
			}
			require.FailNow(t, "the process ended", "it was to say %s and said:\n%s", expression, p.out)
		case <-late:
			require.FailNow(t, "the process is silent", "it was to say %s and said:\n%s", expression, p.out)
		}
	}
}

// output keeps what a process says.
type output struct {
	mu   sync.Mutex
	all  bytes.Buffer
	more chan struct{} // closed when there is more
}

func newOutput() *output { return &output{more: make(chan struct{})} }

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.more)
	o.more = make(chan struct{})
	return o.all.Write(b)
}

func (o *output) find(re *regexp.Regexp) (found []string, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return re.FindStringSubmatch(o.all.String()), o.more
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

// said is what a finished program has said.
type said struct {
	code        int
	out, errors string
}

// finish runs the program to its end.
func finish(t *testing.T, env []string, stdin string, args ...string) said {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Env = environment(env)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() }) // and the exit code tells
	defer late.Stop()
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return said{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

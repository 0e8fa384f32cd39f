// Package rig runs real processes of the service on a private Postgres that can be killed, and talks to them.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const secret = "k1:a-secret-of-processes-under-test-0123456789"

var keys = func() auth.Keyring {
	k, err := auth.ParseKeyring(secret)
	if err != nil {
		panic(err) // the secret above is a constant
	}
	return k
}()

// Build makes the program at path, with build tags, "" for none. The working
// directory is the repository's top.
func Build(ctx context.Context, path, tags string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", path, "./cmd/openagents-runtime")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program: %w\n%s", err, out)
	}
	return nil
}

// Process is a running server.
type Process struct {
	Name  string
	Cmd   *exec.Cmd
	Said  *Output
	Owner string        // of its leases
	API   string        // http://host:port
	Done  chan struct{} // closed when it has ended
	Ended time.Time     // valid once Done is closed
}

// Launch starts a server on a database with settings of its own, and waits until
// it listens.
func Launch(ctx context.Context, binary, name, databaseURL string, env ...string) (*Process, error) {
	p := &Process{Name: name, Said: &Output{more: make(chan struct{})}, Done: make(chan struct{})}
	p.Cmd = exec.Command(binary, "serve")
	p.Cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(),
		"DATABASE_URL=" + databaseURL, "RUNTIME_SIGNATURE_SECRET=" + secret,
		"RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0",
	}, env...)
	p.Cmd.Stdout, p.Cmd.Stderr = p.Said, p.Said
	if err := spawn(p.Cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.Cmd.Wait() // how it ended is in ProcessState
		p.Ended = time.Now()
		close(p.Done)
	}()
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	p.Owner = host + ":" + strconv.Itoa(p.Cmd.Process.Pid)
	found, err := p.until(ctx, regexp.MustCompile(`"msg":"serving","api":"([^"]+)"`))
	if err != nil {
		p.End()
		return nil, fmt.Errorf("start %s: %w; it said:\n%s", name, err, p.Said)
	}
	p.API = "http://" + found[1]
	return p, nil
}

// until waits until the process has said something.
func (p *Process) until(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	late := time.After(30 * time.Second)
	for {
		found, more := p.Said.find(re)
		if found != nil {
			return found, nil
		}
		select {
		case <-more:
		case <-p.Done:
			return nil, errors.New("it ended")
		case <-late:
			return nil, errors.New("it is silent")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Signal sends a signal. A process that has ended needs none.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.Cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	return nil
}

// Alive says whether the process has not ended.
func (p *Process) Alive() bool {
	select {
	case <-p.Done:
		return false
	default:
		return true
	}
}

// End kills the process, stopped or not, and waits.
func (p *Process) End() {
	_ = p.Cmd.Process.Kill() // it may have ended
	<-p.Done
}

// Output keeps what a process says.
type Output struct {
	mu   sync.Mutex
	all  bytes.Buffer
	more chan struct{} // closed when there is more
}

// Write keeps what comes.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.more)
	o.more = make(chan struct{})
	return o.all.Write(b)
}

func (o *Output) find(re *regexp.Regexp) (found []string, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return re.FindStringSubmatch(o.all.String()), o.more
}

// String is all that was said.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.all.String()
}

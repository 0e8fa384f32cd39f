package main

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
	"sync/atomic"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const secret = "k1:a-secret-of-the-crash-gate-0123456789"

// build makes the program with crash points.
func build(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "crash", "-o", path, "./cmd/openagents-runtime")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program with crash points: %w\n%s", err, out)
	}
	return nil
}

// process is a running server with its own line to the database.
type process struct {
	name  string
	cmd   *exec.Cmd
	said  *output
	line  *line
	owner string        // of its leases
	api   string        // http://host:port
	asks  string        // the path by which the provider knows it
	done  chan struct{} // closed when it has ended
	ended time.Time     // valid once done is closed
	// stopped is when it was first hurt so that it got no processor; zero for never.
	stopped time.Time
}

// callers counts the processes that ask the provider.
var callers atomic.Int64

// launch starts a server and waits until it listens.
func launch(ctx context.Context, w *world, name string, env ...string) (*process, error) {
	l, err := newLine(name, w.db.relay.address())
	if err != nil {
		return nil, err
	}
	p := &process{name: name, said: &output{more: make(chan struct{})}, line: l, done: make(chan struct{}),
		asks: fmt.Sprintf("/%d", callers.Add(1))}
	p.cmd = exec.Command(w.binary, "serve")
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.TempDir(),
		"DATABASE_URL=" + w.db.urlOf(roleOf(name), l.address()), "RUNTIME_SIGNATURE_SECRET=" + secret,
		"RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0", "RUNTIME_LEASE_TTL=" + w.ttl.String(),
		"RUNTIME_LOG_LEVEL=info", "DATABASE_MAX_CONNS=8", "GOMAXPROCS=2",
		"MODEL_PROVIDER=openai", "MODEL_BASE_URL=" + w.provider.URL + p.asks, "MODEL_NAME=scripted",
	}, env...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	if err := spawn(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in ProcessState
		p.ended = time.Now()
		close(p.done)
	}()
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	p.owner = host + ":" + strconv.Itoa(p.cmd.Process.Pid)
	found, err := p.until(ctx, regexp.MustCompile(`"msg":"serving","api":"([^"]+)"`))
	if err != nil {
		p.end()
		return nil, fmt.Errorf("start %s: %w; it said:\n%s", name, err, p.said)
	}
	p.api = "http://" + found[1]
	return p, nil
}

// until waits until the process has said something.
func (p *process) until(ctx context.Context, re *regexp.Regexp) ([]string, error) {
	late := time.After(30 * time.Second)
	for {
		found, more := p.said.find(re)
		if found != nil {
			return found, nil
		}
		select {
		case <-more:
		case <-p.done:
			return nil, errors.New("it ended")
		case <-late:
			return nil, errors.New("it is silent")
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (p *process) signal(s syscall.Signal) error {
	if s == syscall.SIGSTOP && p.stopped.IsZero() {
		p.stopped = time.Now()
	}
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// end kills the process, stopped or not, and waits.
func (p *process) end() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
	p.line.close()
}

// output keeps what a process says.
type output struct {
	mu   sync.Mutex
	all  bytes.Buffer
	more chan struct{} // closed when there is more
}

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

func keyring() auth.Keyring {
	k, err := auth.ParseKeyring(secret)
	if err != nil {
		panic(err) // the secret above is a constant
	}
	return k
}

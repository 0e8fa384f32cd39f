package mcp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
)

const (
	// writing is how long a child may leave a message unread.
	writing = 10 * time.Second
	// leaving is how long a child has to end by itself, and then by SIGTERM.
	leaving = 2 * time.Second
	// lastWords is how long a log may last beyond its process.
	lastWords = time.Second
)

// child is a server's process, with all that it starts in its process group.
type child struct {
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	logged chan struct{} // closed when its stderr has ended
	gone   chan struct{} // closed when the process is gone, and its group
	exited chan struct{} // closed when its log was written besides
}

// start starts a server with the given environment and no other. What it writes to
// its stderr is logged, and the last of it kept.
func start(s Stdio, env []string, log *slog.Logger, kept *lastLines) (*child, error) {
	path, err := exec.LookPath(s.Command)
	if err != nil {
		return nil, fmt.Errorf("stdio/command: %w", err)
	}
	c := &child{cmd: exec.Command(path, s.Args...), logged: make(chan struct{}), gone: make(chan struct{}), exited: make(chan struct{})}
	c.cmd.Env, c.cmd.Dir = append([]string{}, env...), s.Dir
	if s.Dir == "" {
		c.cmd.Dir = os.TempDir()
	}
	var theirs, ours []*os.File
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	inR, inW := pipe()
	outR, outW := pipe()
	errR, errW := pipe()
	theirs, ours = []*os.File{inR, outW, errW}, []*os.File{inW, outR, errR}
	if err == nil {
		c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = inR, outW, errW
		err = spawn(c.cmd)
	}
	shut(theirs)
	if err != nil {
		shut(ours)
		return nil, fmt.Errorf("start the server: %w", err)
	}
	c.stdin, c.stdout = inW, outR
	go func() {
		defer close(c.logged)
		tell(errR, log, kept)
	}()
	go func() {
		defer close(c.exited)
		err := c.cmd.Wait()
		c.signal(syscall.SIGKILL) // whoever it left behind
		close(c.gone)
		select {
		case <-c.logged: // its last words say why it ended
		case <-time.After(lastWords): // somebody left the group and keeps the pipe
		}
		_ = errR.Close()
		<-c.logged
		log.Info("an MCP server's process has ended", "pid", c.cmd.Process.Pid, "how", outcome(err))
	}()
	return c, nil
}

func shut(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

func outcome(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// signal goes to the whole group. There may be nobody left.
func (c *child) signal(sig syscall.Signal) { _ = syscall.Kill(-c.cmd.Process.Pid, sig) }

// end asks the child to end by closing its stdin, then by SIGTERM, then does not
// ask. It returns when the whole group was killed.
func (c *child) end() {
	_ = c.stdin.Close()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		select {
		case <-c.gone:
		case <-time.After(leaving):
			c.signal(sig)
		}
	}
	<-c.exited
	_ = c.stdout.Close()
}

// Write sends to the child, which must read it soon.
func (c *child) Write(b []byte) (int, error) {
	if err := c.stdin.SetWriteDeadline(time.Now().Add(writing)); err != nil {
		return 0, err
	}
	n, err := c.stdin.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errDeaf
	}
	return n, err
}

// Close closes both ways.
func (c *child) Close() error { return c.stdin.Close() }

var errDeaf = errors.New("the server does not read what it is sent")

const (
	lineBytes   = 500 // of a child's log line that are kept
	windowLines = 60  // lines that are kept in a window
	window      = time.Minute
)

// lastLines are the last lines that a server wrote to its stderr, as it wrote them.
type lastLines struct {
	mu    sync.Mutex
	lines []string
}

const keptLines = 8

func (l *lastLines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == keptLines {
		l.lines = append(l.lines[:0], l.lines[1:]...)
	}
	l.lines = append(l.lines, line)
}

func (l *lastLines) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

// shown are the lines for people: redacted and clean.
func (l *lastLines) shown() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line = shownLine(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}

func shownLine(line string) string {
	return clean(redact.Text(strings.ToValidUTF8(line, "\uFFFD")), lineBytes, false)
}

// tell logs what a child writes to its stderr: redacted, in bounded lines, and so
// many a minute. The rest is read and dropped, so that the child is not held up;
// last keeps the end of all of it.
func tell(r io.Reader, log *slog.Logger, last *lastLines) {
	lines := bufio.NewReaderSize(r, lineBytes)
	var (
		since   time.Time
		kept    int
		dropped int
	)
	for {
		line, long, err := lines.ReadLine()
		if err != nil {
			return
		}
		text := string(line)
		for long && err == nil {
			_, long, err = lines.ReadLine()
		}
		last.add(text)
		if time.Since(since) > window {
			if dropped > 0 {
				log.Warn("lines of an MCP server's log were dropped", "lines", dropped)
			}
			since, kept, dropped = time.Now(), 0, 0
		}
		if kept == windowLines {
			dropped++
			continue
		}
		if text = shownLine(text); text != "" {
			kept++
			log.Info("an MCP server logs", "line", text)
		}
	}
}

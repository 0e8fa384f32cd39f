package devdb

import (
	"os/exec"
	"runtime"
	"syscall"
)

// child is a process that is waited for from the moment it exists.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // valid once done is closed
}

// spawn starts cmd from an operating-system thread of its own that lives as
// long as the child: Linux sends the parent-death signal when the thread that
// forked ends, not when the process does.
func spawn(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// signal does nothing when the child has ended: os.Process remembers the wait.
func (c *child) signal(sig syscall.Signal) { _ = c.cmd.Process.Signal(sig) }

// exit is nil after a clean end. Call it once done is closed.
func (c *child) exit() error { return c.err }

package rig

import (
	"os/exec"
	"runtime"
	"syscall"
)

// spawn starts a child that dies with this process, from a thread that lives as
// long as the process does: the kernel watches the thread that forked.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawning <- func() { started <- cmd.Start() }
	return <-started
}

var spawning = func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
}()

package mcp

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// spawn starts a child in a process group of its own that dies with this
// process, from a thread that lives as long as the process does: the kernel
// watches the thread that forked.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	spawning() <- func() { started <- cmd.Start() }
	return <-started
}

var spawning = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go spawner(work)
	return work
})

func spawner(work <-chan func()) {
	runtime.LockOSThread()
	for f := range work {
		f()
	}
}

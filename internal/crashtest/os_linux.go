package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

const ownMounts = "CRASHTEST_OWN_MOUNTS"

// inOwnMounts runs this program again with mounts of its own, which vanish with
// it. inside says that this is that second one, or that no mount is possible.
func inOwnMounts() (inside bool, err error) {
	if os.Geteuid() != 0 || os.Getenv(ownMounts) != "" {
		return true, nil
	}
	self, err := os.Executable()
	if err != nil {
		return false, err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it concludes, and ends
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), ownMounts+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread()
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		os.Exit(max(1, exit.ExitCode()))
	}
	return false, err
}

// mountSmall mounts a small disk in memory on a folder.
func mountSmall(dir string, bytes int64) error {
	if os.Getenv(ownMounts) == "" {
		return errors.New("a disk of its own needs root, for a mount")
	}
	if err := syscall.Mount("crashtest", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0711", bytes)); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

func unmount(dir string) error { return syscall.Unmount(dir, syscall.MNT_DETACH) }

// stopped says whether a process is stopped by a signal.
func stopped(pid int) (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false, err
	}
	// pid (name) state …; the name may hold anything.
	_, after, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')'):]), " ")
	return strings.HasPrefix(after, "T"), nil
}

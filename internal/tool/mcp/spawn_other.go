//go:build !linux

package mcp

import (
	"os/exec"
	"syscall"
)

// spawn starts a child in a process group of its own.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

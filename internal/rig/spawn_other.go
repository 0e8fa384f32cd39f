//go:build !linux

package rig

import "os/exec"

func spawn(cmd *exec.Cmd) error { return cmd.Start() }

//go:build !linux

package devdb

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Only Linux tells a child that its parent died. Elsewhere the next start stops
// the server that was left.
func setParentDeathSignal(*syscall.SysProcAttr, syscall.Signal) {}

// servesData reports whether pid is a server of this data folder. A process id
// alone proves nothing: after a reboot it belongs to somebody else.
func servesData(pid int, data string) bool {
	out, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(out), " -D "+data+" ")
}

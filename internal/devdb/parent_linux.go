package devdb

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

func setParentDeathSignal(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// servesData reports whether pid is a server of this data folder. A process id
// alone proves nothing: after a reboot it belongs to somebody else.
func servesData(pid int, data string) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.Contains(b, []byte("\x00"+data+"\x00"))
}

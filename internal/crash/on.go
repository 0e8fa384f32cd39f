//go:build crash

package crash

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	point, passing = armed(os.Getenv("RUNTIME_CRASH_AT"))
	passed         atomic.Int64
	offset         = clockOffset(os.Getenv("RUNTIME_CRASH_CLOCK_OFFSET"))
)

// At kills the process when it is told to by the environment. It does not
// return then: nothing may happen between the point and the end.
func At(name string) {
	if name != point || passed.Add(1) != passing {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // one may always kill oneself
	select {}
}

// Now is the wall clock, as wrong as the environment wants it.
func Now() time.Time { return time.Now().Add(offset) }

func armed(s string) (name string, n int64) {
	name, count, counted := strings.Cut(s, ":")
	if !counted {
		return name, 1
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil || n < 1 {
		unusable("RUNTIME_CRASH_AT", s)
	}
	return name, n
}

func clockOffset(s string) time.Duration {
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		unusable("RUNTIME_CRASH_CLOCK_OFFSET", s)
	}
	return d
}

// unusable ends the process: a test that crashes nothing would look like a
// passed one.
func unusable(name, value string) {
	fmt.Fprintf(os.Stderr, "%s=%s cannot be read\n", name, value)
	os.Exit(2)
}

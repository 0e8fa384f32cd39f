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
	dies   = trapOf("RUNTIME_CRASH_AT")
	stops  = trapOf("RUNTIME_CRASH_STOP_AT")
	eats   = trapOf("RUNTIME_CRASH_EAT_AT")
	offset = clockOffset(os.Getenv("RUNTIME_CRASH_CLOCK_OFFSET"))
)

// trap is a passing of a point at which something happens.
type trap struct {
	point   string
	passing int64
	passed  atomic.Int64
}

func (t *trap) springs(point string) bool { return t.point == point && t.passed.Add(1) == t.passing }

// At kills or stops the process when it is told to by the environment. It does
// not return when it kills: nothing may happen between the point and the end.
func At(name string) {
	if dies.springs(name) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // one may always kill oneself
		select {}
	}
	if stops.springs(name) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		// Another thread may be the one that takes the signal; this one must not
		// run on until then.
		time.Sleep(10 * time.Millisecond)
	}
	if eats.springs(name) {
		go eat()
	}
}

func init() { go watchGaps(time.Now()) }

// watchGaps says on stderr when this process got no processor for a while since
// last: "stood still 400 ms until 1771410000000", by the real clock.
func watchGaps(last time.Time) {
	const often, noteworthy = 10 * time.Millisecond, 100 * time.Millisecond
	for {
		time.Sleep(often)
		now := time.Now()
		if gap := now.Sub(last) - often; gap > noteworthy {
			fmt.Fprintf(os.Stderr, "stood still %d ms until %d\n", gap.Milliseconds(), now.UnixMilli())
		}
		last = now
	}
}

// spare is what a process that eats is left with, beside what it has.
const spare = 64 << 20

// eat takes memory until there is none, while everything else goes on.
func eat() {
	var has uint64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if _, err = fmt.Sscan(string(b), &has); err != nil {
			has = 0
		}
	}
	if has == 0 {
		unusable("RUNTIME_CRASH_EAT_AT", eats.point)
	}
	most := has*uint64(os.Getpagesize()) + spare
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: most, Max: most}); err != nil {
		unusable("RUNTIME_CRASH_EAT_AT", err.Error())
	}
	var eaten [][]byte
	for {
		bite := make([]byte, 1<<20)
		for n := 0; n < len(bite); n += 4096 {
			bite[n] = 1
		}
		eaten = append(eaten, bite)
		time.Sleep(time.Millisecond)
	}
}

// Now is the wall clock, as wrong as the environment wants it.
func Now() time.Time { return time.Now().Add(offset) }

func trapOf(env string) *trap {
	s := os.Getenv(env)
	name, count, counted := strings.Cut(s, ":")
	t := &trap{point: name, passing: 1}
	if counted {
		var err error
		if t.passing, err = strconv.ParseInt(count, 10, 64); err != nil || t.passing < 1 {
			unusable(env, s)
		}
	}
	return t
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

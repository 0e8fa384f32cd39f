package systemtest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const ready = `Ctrl-C stops everything\.`

// developers are the users that `dev` is tried as: this one, and an ordinary
// one when this one is root.
func developers(t *testing.T) map[string]*syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return map[string]*syscall.SysProcAttr{"an ordinary user": nil}
	}
	nobody, err := user.Lookup("nobody")
	require.NoError(t, err, "as root the test needs a user nobody")
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	require.NoError(t, err)
	return map[string]*syscall.SysProcAttr{
		"root":             nil,
		"an ordinary user": {Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}},
	}
}

// desk is where a developer works.
type desk struct {
	as       *syscall.SysProcAttr
	home     string
	api, ops string
}

func newDesk(t *testing.T, as *syscall.SysProcAttr) *desk {
	t.Helper()
	// Not t.TempDir: that one is closed to other users.
	home, err := os.MkdirTemp("", "oa-systemtest-home-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(home)) })
	require.NoError(t, os.Chmod(home, 0o755))
	if as != nil {
		require.NoError(t, os.Chown(home, int(as.Credential.Uid), int(as.Credential.Gid)))
	}
	return &desk{as: as, home: home, api: freeAddress(t), ops: freeAddress(t)}
}

// freeAddress is a loopback address that is free now. Its port is below those
// that systems give to clients, so that it is likely to stay free.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.N(10_000))
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			continue // somebody has it
		}
		require.NoError(t, l.Close())
		return address
	}
	require.FailNow(t, "no port is free")
	return ""
}

func (d *desk) dev(t *testing.T) *process {
	t.Helper()
	return launch(t, d.as, d.env(), "dev", "--ask", "What is 6 times 7?")
}

func (d *desk) env() []string {
	return []string{
		"HOME=" + d.home, "XDG_STATE_HOME=" + d.home, "RUNTIME_DEV_DIR=" + filepath.Join(d.home, "state"),
		"RUNTIME_API_ADDR=" + d.api, "RUNTIME_OPS_ADDR=" + d.ops,
	}
}

// postgres is the process id of the private database's server.
func (d *desk) postgres(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.home, "state", "postgres-*", "data", "postmaster.pid"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	b, err := os.ReadFile(files[0])
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	require.NoError(t, err)
	return pid
}

func (d *desk) requireClear(t *testing.T, postgres int) {
	t.Helper()
	require.ErrorIs(t, syscall.Kill(postgres, 0), syscall.ESRCH, "the database server still runs")
	for _, address := range []string{d.api, d.ops} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}

func TestDevShowsARunAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for name, as := range developers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, as)
			for range 2 {
				p := d.dev(t)
				p.until(t, `assistant: .*42`)
				p.until(t, `\(\d\d+ parts, the first text after \d+ ms`)
				p.until(t, ready)
				out := p.out.String()
				require.Contains(t, out, "serving:  http://"+d.api)
				require.Regexp(t, `tools: +.*http\.fetch.*l402\.fetch`, out)
				fetched := finish(t, nil, "Fetch the page http://"+d.ops+"/readyz\n", "chat", "--url", "http://"+d.api)
				require.Contains(t, fetched.out, "(calls http.fetch)")
				require.Contains(t, fetched.out, `"status":"ready"`)
				for _, try := range []string{"chat", "run list", "run events RUN_ID", "run stream RUN_ID", "curl http://" + d.ops + "/metrics"} {
					require.Contains(t, out, try)
				}
				listed := finish(t, nil, "", "run", "list", "--url", "http://"+d.api)
				require.Equal(t, 0, listed.code, listed.errors)
				require.Contains(t, listed.out, `"status": "completed"`)
				postgres := d.postgres(t)
				p.signal(t, os.Interrupt)
				require.Equal(t, 0, p.wait(t), p.out)
				d.requireClear(t, postgres)
			}
		})
	}
}

func TestDevThatWasKilledDoesNotBlockTheNext(t *testing.T) {
	t.Parallel()
	for name, as := range developers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, as)
			first := d.dev(t)
			first.until(t, ready)
			orphan := d.postgres(t)
			first.signal(t, syscall.SIGKILL)
			first.wait(t)

			second := d.dev(t)
			second.until(t, ready)
			require.Contains(t, second.out.String(), "serving:  http://"+d.api, "the port is free again")
			requireGone(t, orphan)
			postgres := d.postgres(t)
			require.NotEqual(t, orphan, postgres)

			second.signal(t, syscall.SIGKILL)
			second.wait(t)
			requireGone(t, postgres)
		})
	}
}

// requireGone waits until a process that is nobody's child here has ended.
func requireGone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); {
		select {
		case <-tick.C:
		case <-late:
			require.FailNow(t, "the database server outlived its parent")
		}
	}
}

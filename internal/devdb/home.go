package devdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The major version is in the folder's name because a cluster of one major
// version does not start under another.
const homePrefix = "postgres-"

// maxSocketDir leaves room for "/.s.PGSQL.5432" within the 103 bytes that
// macOS, the shorter of the two, allows in a socket's path.
const maxSocketDir = 80

// home is one cluster's folder: data/ (the cluster), lock (held while a process
// runs it), socket (the socket folder of the last start), server.log.
type home struct{ path string }

func homeIn(dir string, version int) home {
	return home{path: filepath.Join(dir, homePrefix+strconv.Itoa(version))}
}

func (h home) data() string       { return filepath.Join(h.path, "data") }
func (h home) logFile() string    { return filepath.Join(h.path, "server.log") }
func (h home) socketNote() string { return filepath.Join(h.path, "socket") }

// prepare makes the folder, owned by the server's account and closed to others,
// and returns it with symbolic links resolved: a server is recognised by the
// path that it was started with.
func (h home) prepare(acct account) (home, error) {
	parent := filepath.Dir(h.path)
	if _, err := os.Stat(parent); errors.Is(err, os.ErrNotExist) {
		mode := os.FileMode(0o700)
		if acct.drops {
			mode = 0o711 // the server's account must pass through a folder of root's
		}
		if err := os.MkdirAll(parent, mode); err != nil {
			return home{}, fmt.Errorf("make the database's folder: %w", err)
		}
		if err := os.Chmod(parent, mode); err != nil { // whatever the umask
			return home{}, fmt.Errorf("open the database's folder: %w", err)
		}
	}
	if err := acct.canEnter(parent); err != nil {
		return home{}, err
	}
	if err := os.Mkdir(h.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return home{}, fmt.Errorf("make the cluster's folder: %w", err)
	}
	path, err := filepath.EvalSymlinks(h.path)
	if err != nil {
		return home{}, fmt.Errorf("resolve %s: %w", h.path, err)
	}
	return home{path: path}, acct.own(path)
}

// acquire takes the cluster for this process. The kernel lets go of the lock
// when the process ends, however it ends.
func (h home) acquire() (*os.File, error) {
	path := filepath.Join(h.path, "lock")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the cluster's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder := readHolder(f)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("the database in %s is %w by %s: end that first, or choose another folder", h.path, ErrInUse, holder)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	return f, nil
}

func readHolder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	if pid := strings.TrimSpace(string(b)); err == nil && pid != "" {
		return "process " + pid
	}
	return "another process"
}

// postmaster reads postmaster.pid: the server's process id, 0 when there is no
// file or it is half written, and whether it takes connections (line 8).
func (h home) postmaster() (pid int, ready bool) {
	b, err := os.ReadFile(filepath.Join(h.data(), "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	lines := strings.Split(string(b), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return 0, false
	}
	return pid, len(lines) >= 8 && strings.TrimSpace(lines[7]) == "ready"
}

// stopOrphan ends a server that outlived its parent. The caller holds the lock,
// so no living process of ours owns it.
func (h home) stopOrphan(ctx context.Context) error {
	pid, _ := h.postmaster()
	if pid == 0 || pid == os.Getpid() {
		return nil
	}
	if !servesData(pid, h.data()) {
		return h.forget(pid)
	}
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, shutdownWait}, {syscall.SIGQUIT, killWait}, {syscall.SIGKILL, killWait}} {
		if err := syscall.Kill(pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the server %d left in %s: %w", pid, h.path, err)
		}
		gone, err := waitGone(ctx, pid, h.data(), step.wait)
		if err != nil {
			return fmt.Errorf("stop the server %d left in %s: %w", pid, h.path, err)
		}
		if gone {
			return nil
		}
	}
	return fmt.Errorf("the server %d left in %s does not end", pid, h.path)
}

// forget removes postmaster.pid when its number now belongs to a stranger: the
// server would take that stranger for a running server and refuse to start. A
// number that belongs to nobody is left to the server's own check, which also
// looks for backends that still hold its shared memory.
func (h home) forget(pid int) error {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return nil
	}
	if err := os.Remove(filepath.Join(h.data(), "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a stale postmaster.pid: %w", err)
	}
	return nil
}

func waitGone(ctx context.Context, pid int, data string, limit time.Duration) (bool, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for servesData(pid, data) {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-deadline.C:
			return false, nil
		case <-tick.C:
		}
	}
	return true, nil
}

// ensureCluster runs initdb once. It works in a folder of its own that is
// renamed at the end, so that a killed initdb leaves no half cluster.
func (h home) ensureCluster(ctx context.Context, bin binaries, acct account, durable bool, log io.Writer) error {
	if _, err := os.Stat(filepath.Join(h.data(), "PG_VERSION")); err == nil {
		return nil
	}
	fmt.Fprintf(log, "Creating a PostgreSQL %d database in %s.\n", bin.version, h.path)
	fresh := filepath.Join(h.path, "data.new")
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("remove an unfinished cluster: %w", err)
	}
	// The locale is C everywhere: the same order of text on every machine.
	// Trust is safe because only the owner of the socket's folder reaches the
	// socket, see newSocketDir.
	args := []string{"-D", fresh, "-U", superuser, "--auth=trust", "--encoding=UTF8", "--locale=C"}
	if !durable {
		args = append(args, "--no-sync")
	}
	cmd := exec.Command(bin.path("initdb"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env, cmd.Dir = serverEnv(), h.path
	cmd.SysProcAttr = acct.attr(syscall.SIGKILL)
	c, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.signal(syscall.SIGKILL)
		<-c.done
		return fmt.Errorf("create a database in %s: %w", h.path, ctx.Err())
	}
	if err := c.exit(); err != nil {
		return fmt.Errorf("create a database in %s: %w\n%s", h.path, err, strings.TrimSpace(out.String()))
	}
	if err := os.Rename(fresh, h.data()); err != nil {
		return fmt.Errorf("put the new cluster in place: %w", err)
	}
	return nil
}

// newSocketDir makes the folder of the socket and notes its name for the next
// start. Whoever can open the socket is superuser, so the folder belongs to
// the server's account with mode 0700: an ordinary user's server runs as that
// user; a server that root started runs as another account, whose folder root
// may enter and other users may not.
func (h home) newSocketDir(acct account) (string, error) {
	base := os.TempDir()
	if len(base) > maxSocketDir-20 || acct.canEnter(base) != nil {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, socketPrefix)
	if err != nil {
		return "", fmt.Errorf("make the socket's folder: %w", err)
	}
	if err := acct.own(dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	if err := os.WriteFile(h.socketNote(), []byte(dir+"\n"), 0o600); err != nil {
		return "", errors.Join(fmt.Errorf("note the socket's folder: %w", err), os.Remove(dir))
	}
	return dir, nil
}

const socketPrefix = "oa-pg-"

// removeOldSocketDir removes what a killed parent could not.
func (h home) removeOldSocketDir() error {
	b, err := os.ReadFile(h.socketNote())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the socket's folder: %w", err)
	}
	dir := strings.TrimSpace(string(b))
	// The note is in a folder that the server's account can write, and this may
	// be root: delete nothing but a folder of this kind.
	if !filepath.IsAbs(dir) || !strings.HasPrefix(filepath.Base(dir), socketPrefix) {
		return nil
	}
	for _, name := range []string{".s.PGSQL." + socketPort, ".s.PGSQL." + socketPort + ".lock"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove an old socket: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove an old socket's folder: %w", err)
	}
	return nil
}

// logTail is the end of the server's log, for an error message.
func (h home) logTail() string {
	const keep = 2000
	b, err := os.ReadFile(h.logFile())
	if err != nil {
		return err.Error()
	}
	if len(b) > keep {
		b = b[len(b)-keep:]
	}
	return strings.TrimSpace(string(b))
}

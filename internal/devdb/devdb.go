// Package devdb runs a private Postgres from installed binaries.
//
// It is for development and tests: one cluster in a directory of its own, no
// TCP, reached through a unix socket that only this user can open, gone when
// the process that started it is gone.
package devdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// MinVersion is the oldest PostgreSQL major version that the migrations run on.
const MinVersion = 15

const (
	superuser  = "postgres"
	socketPort = "5432" // only names the socket file; nothing listens on TCP

	// How long a shutdown may take before the next harder signal.
	shutdownWait = 20 * time.Second
	killWait     = 5 * time.Second
)

// Config says where the cluster lives and how much it must survive.
type Config struct {
	// Dir holds one cluster per major version, in postgres-<major>. Empty means
	// DefaultDir. When root starts the server, the server's own user must be
	// able to enter it, so a folder under /root is refused.
	Dir string
	// Durable keeps commits across a crash of the machine. Without it fsync is
	// off: for tests.
	Durable bool
	// Log receives progress, a sentence per line. Nil means silence. The
	// server's own log is the file server.log in the cluster's folder.
	Log io.Writer
}

// Server is a running Postgres, child of this process.
type Server struct {
	version   int
	home      home
	socketDir string
	lock      *os.File
	child     *child
	asked     atomic.Bool // Stop was called
	done      chan struct{}
}

// Start runs the cluster in cfg.Dir, creating it first when there is none, and
// returns when it accepts connections. ctx bounds the start, not the server's
// life. A cluster that another process runs is refused; a server whose parent
// was killed is stopped first.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	log := cfg.Log
	if log == nil {
		log = io.Discard
	}
	bin, err := locate(ctx, log)
	if err != nil {
		return nil, err
	}
	dir, err := clusterRoot(cfg.Dir)
	if err != nil {
		return nil, err
	}
	h := homeIn(dir, bin.version)
	acct, err := serverAccount(h)
	if err != nil {
		return nil, err
	}
	if h, err = h.prepare(acct); err != nil {
		return nil, err
	}
	if err := acct.canRun(bin.dir); err != nil {
		return nil, err
	}
	lock, err := h.acquire()
	if err != nil {
		return nil, err
	}
	s := &Server{version: bin.version, home: h, lock: lock, done: make(chan struct{})}
	if err := s.start(ctx, cfg, bin, acct, log); err != nil {
		s.cleanUp()
		return nil, err
	}
	go func() {
		<-s.child.done
		s.cleanUp()
		close(s.done)
	}()
	return s, nil
}

func (s *Server) start(ctx context.Context, cfg Config, bin binaries, acct account, log io.Writer) error {
	if err := s.home.stopOrphan(ctx); err != nil {
		return err
	}
	if err := s.home.removeOldSocketDir(); err != nil {
		return err
	}
	if err := s.home.ensureCluster(ctx, bin, acct, cfg.Durable, log); err != nil {
		return err
	}
	var err error
	if s.socketDir, err = s.home.newSocketDir(acct); err != nil {
		return err
	}
	logFile, err := os.OpenFile(s.home.logFile(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer func() { _ = logFile.Close() }() // the child has its own descriptor

	cmd := exec.Command(bin.path("postgres"), serverArgs(s.home.data(), s.socketDir, cfg.Durable)...)
	cmd.Env = serverEnv()
	cmd.Dir = s.home.path
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = acct.attr(syscall.SIGINT)
	if s.child, err = spawn(cmd); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	if err := s.waitReady(ctx); err != nil {
		s.child.signal(syscall.SIGQUIT)
		<-s.child.done
		return err
	}
	return nil
}

func serverArgs(data, socketDir string, durable bool) []string {
	args := []string{"-D", data, "-k", socketDir, "-p", socketPort}
	set := func(kv ...string) {
		for _, s := range kv {
			args = append(args, "-c", s)
		}
	}
	set("listen_addresses=", "unix_socket_permissions=0700", "max_connections=200",
		"timezone=UTC", "log_timezone=UTC", "log_line_prefix=%m [%p] %d ")
	if !durable {
		set("fsync=off", "synchronous_commit=off", "full_page_writes=off")
	}
	return args
}

// serverEnv is the whole environment of initdb and the server: settings of the
// person's shell (PGDATA, PGOPTIONS, TZ, LC_*) must not change the cluster.
func serverEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "TZ=UTC", "LANG=C", "LC_ALL=C"}
}

// waitReady returns when the server says in postmaster.pid that it takes
// connections.
func (s *Server) waitReady(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server in %s: %w", s.home.path, ctx.Err())
		case <-s.child.done:
			return fmt.Errorf("the server in %s did not start (%w); its log ends:\n%s",
				s.home.path, s.child.exit(), s.home.logTail())
		case <-tick.C:
			if pid, ready := s.home.postmaster(); ready && pid == s.child.pid() {
				return nil
			}
		}
	}
}

// URL is the libpq URL of a database of this server, for the superuser.
func (s *Server) URL(database string) string {
	q := url.Values{"host": {s.socketDir}, "port": {socketPort}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", User: url.User(superuser), Host: "", Path: "/" + database, RawQuery: q.Encode()}).String()
}

// Version is the server's major version, 15 or later.
func (s *Server) Version() int { return s.version }

// Done is closed when the server has ended, asked or not.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop shuts the server down and waits: connections are ended, transactions
// rolled back, data written. When ctx ends first the shutdown becomes an
// immediate one and the error says so. A server that ended by itself is an
// error too, with the end of its log. Stopping twice is fine.
func (s *Server) Stop(ctx context.Context) error {
	select {
	case <-s.done:
		// The exit status does not tell: a server killed by SIGQUIT exits with 0.
		if !s.asked.Load() {
			return fmt.Errorf("the server in %s ended by itself; its log ends:\n%s", s.home.path, s.home.logTail())
		}
		return nil
	default:
	}
	s.asked.Store(true)
	s.child.signal(syscall.SIGINT)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.child.signal(syscall.SIGQUIT)
	select {
	case <-s.done:
	case <-time.After(killWait):
		s.child.signal(syscall.SIGKILL)
		<-s.done
	}
	return fmt.Errorf("stop the server in %s: ended at once, because: %w", s.home.path, ctx.Err())
}

func (s *Server) cleanUp() {
	if s.socketDir != "" {
		_ = os.RemoveAll(s.socketDir) // the next start tries again, by the recorded name
	}
	_ = s.lock.Close()
}

// ErrInUse means that a live process holds the cluster.
var ErrInUse = errors.New("in use")

// Remove deletes every cluster in dir, and dir, after stopping servers whose
// parents are gone. A cluster that a live process runs is left alone: ErrInUse.
func Remove(ctx context.Context, dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("resolve %s: %w", dir, err)
	}
	homes, err := filepath.Glob(filepath.Join(real, homePrefix+"*"))
	if err != nil {
		return fmt.Errorf("list clusters in %s: %w", dir, err)
	}
	for _, path := range homes {
		if err := removeHome(ctx, home{path: path}); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}

func removeHome(ctx context.Context, h home) error {
	lock, err := h.acquire()
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }() // held until the folder is gone
	if err := h.stopOrphan(ctx); err != nil {
		return err
	}
	if err := h.removeOldSocketDir(); err != nil {
		return err
	}
	if err := os.RemoveAll(h.path); err != nil {
		return fmt.Errorf("remove %s: %w", h.path, err)
	}
	return nil
}

// DefaultDir is where clusters live when nobody says otherwise: for root
// /var/lib/openagents-runtime, which the server's user can enter, else the
// user's state folder.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/openagents-runtime", nil
	}
	if s := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(s) {
		return filepath.Join(s, "openagents-runtime"), nil
	}
	userHome, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the database (set XDG_STATE_HOME to name one): %w", err)
	}
	return filepath.Join(userHome, ".local", "state", "openagents-runtime"), nil
}

func clusterRoot(dir string) (string, error) {
	if strings.TrimSpace(dir) == "" {
		return DefaultDir()
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", dir, err)
	}
	return abs, nil
}

package devdb_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
)

// A test that needs a second process starts this binary again with the folder
// of the database in this variable.
const parentEnv = "DEVDB_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(parentEnv); ok {
		if err := beParent(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beParent runs a server until standard input ends. It prints the server's URL
// once it is up.
func beParent(dir string) error {
	ctx := context.Background()
	s, err := devdb.Start(ctx, devdb.Config{Dir: dir, Durable: true})
	if err != nil {
		return err
	}
	fmt.Println(s.URL("postgres"))
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return s.Stop(ctx)
}

// openDir is a folder that any user can enter: t.TempDir is closed to the
// server's user when the tests run as root.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "devdb-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, devdb.Remove(context.Background(), dir)) })
	return dir
}

func start(t *testing.T, cfg devdb.Config) *devdb.Server {
	t.Helper()
	s, err := devdb.Start(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s
}

// ask runs a query that gives one text.
func ask(t *testing.T, url, query string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), query).Scan(&text))
	return text
}

func run(t *testing.T, url, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), statement)
	require.NoError(t, err)
}

// parent is a process that runs a server.
type parent struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr bytes.Buffer
	url    string
}

func startParent(t *testing.T, dir string, as *syscall.Credential, env ...string) *parent {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	if as != nil {
		self = copyFor(t, self)
	}
	p := &parent{cmd: exec.Command(self)}
	p.cmd.Env = append(append(os.Environ(), env...), parentEnv+"="+dir)
	p.cmd.Dir = "/"
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // most tests have ended it already
		_ = p.cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(t, err, "the parent process said: %s", &p.stderr)
	p.url = strings.TrimSpace(line)
	return p
}

// copyFor puts the test binary where another user can run it.
func copyFor(t *testing.T, self string) string {
	t.Helper()
	b, err := os.ReadFile(self)
	require.NoError(t, err)
	path := filepath.Join(openDir(t), "devdb.test")
	require.NoError(t, os.WriteFile(path, b, 0o755))
	require.NoError(t, os.Chmod(path, 0o755))
	return path
}

func TestAServerIsPrivateAndSpeaksUTF8WhateverTheShellSays(t *testing.T) {
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	t.Setenv("PGOPTIONS", "-c fsync=on")
	t.Setenv("PGDATA", "/nonexistent")
	var log bytes.Buffer
	s := start(t, devdb.Config{Dir: openDir(t), Log: &log})
	require.Contains(t, log.String(), "Creating a PostgreSQL")
	require.GreaterOrEqual(t, s.Version(), devdb.MinVersion)
	t.Setenv("PGOPTIONS", "") // the client reads it too

	url := s.URL("postgres")
	require.Equal(t, "", ask(t, url, "SHOW listen_addresses"))
	require.Equal(t, "UTF8", ask(t, url, "SHOW server_encoding"))
	require.Equal(t, "C", ask(t, url, "SELECT datcollate::text FROM pg_database WHERE datname = current_database()"))
	require.Equal(t, "UTC", ask(t, url, "SHOW timezone"))
	require.Equal(t, "200", ask(t, url, "SHOW max_connections"))
	require.Equal(t, "off", ask(t, url, "SHOW fsync"))

	socket, err := os.Stat(ask(t, url, "SHOW unix_socket_directories"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), socket.Mode().Perm(), "others could connect as superuser")
}

func TestOnlyADurableServerKeepsDurableSettings(t *testing.T) {
	t.Parallel()
	for durable, want := range map[bool]string{true: "on", false: "off"} {
		s := start(t, devdb.Config{Dir: openDir(t), Durable: durable})
		for _, name := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
			require.Equal(t, want, ask(t, s.URL("postgres"), "SHOW "+name), "%s when durable is %v", name, durable)
		}
	}
}

func TestASecondStartOfTheSameFolderIsRefused(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := start(t, devdb.Config{Dir: dir})

	_, err := devdb.Start(t.Context(), devdb.Config{Dir: dir})
	require.ErrorIs(t, err, devdb.ErrInUse)
	require.ErrorContains(t, err, fmt.Sprintf("in use by process %d", os.Getpid()))
	require.ErrorIs(t, devdb.Remove(t.Context(), dir), devdb.ErrInUse)

	require.Equal(t, "1", ask(t, s.URL("postgres"), "SELECT '1'"), "the first server must not notice")
}

func TestAStoppedServerLeavesItsDataAndNothingElse(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	first, err := devdb.Start(t.Context(), devdb.Config{Dir: dir})
	require.NoError(t, err)
	run(t, first.URL("postgres"), "CREATE TABLE kept AS SELECT 'here' AS word")
	socket := ask(t, first.URL("postgres"), "SHOW unix_socket_directories")

	// A connection that somebody left open must not hold up the shutdown.
	left, err := pgx.Connect(t.Context(), first.URL("postgres"))
	require.NoError(t, err)
	defer func() { _ = left.Close(context.Background()) }()

	require.NoError(t, first.Stop(t.Context()))
	require.NoError(t, first.Stop(t.Context()), "stopping twice is fine")
	requireClosed(t, first.Done())
	require.NoDirExists(t, socket)

	second := start(t, devdb.Config{Dir: dir})
	require.Equal(t, "here", ask(t, second.URL("postgres"), "SELECT word FROM kept"))
}

func TestAServerThatDiesIsNoticed(t *testing.T) {
	t.Parallel()
	s, err := devdb.Start(t.Context(), devdb.Config{Dir: openDir(t)})
	require.NoError(t, err)
	pid := serverPID(t, s.URL("postgres"))

	require.NoError(t, syscall.Kill(pid, syscall.SIGQUIT))
	requireClosed(t, s.Done())
	require.ErrorContains(t, s.Stop(t.Context()), "immediate shutdown", "the error must hold the log's end")
}

func TestAStartAfterTheParentWasKilledWorks(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	p := startParent(t, dir, nil)
	run(t, p.url, "CREATE TABLE kept AS SELECT 'here' AS word")
	require.NoError(t, p.cmd.Process.Kill())

	s := start(t, devdb.Config{Dir: dir, Durable: true})
	require.Equal(t, "here", ask(t, s.URL("postgres"), "SELECT word FROM kept"))
	require.NoDirExists(t, socketDir(t, p.url))
}

func TestARecycledProcessNumberDoesNotBlockAStart(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s, err := devdb.Start(t.Context(), devdb.Config{Dir: dir})
	require.NoError(t, err)
	data := ask(t, s.URL("postgres"), "SHOW data_directory")
	require.NoError(t, s.Stop(t.Context()))

	stranger := exec.Command("sleep", "600")
	stranger.SysProcAttr = ownerOf(t, data)
	require.NoError(t, stranger.Start())
	defer func() { _ = stranger.Wait() }()
	defer func() { _ = stranger.Process.Kill() }()
	note := fmt.Sprintf("%d\n%s\n1700000000\n5432\n/tmp\n\n  1 1\nready   \n", stranger.Process.Pid, data)
	pidFile := filepath.Join(data, "postmaster.pid")
	require.NoError(t, os.WriteFile(pidFile, []byte(note), 0o600))
	require.NoError(t, os.Chmod(pidFile, 0o644))

	again := start(t, devdb.Config{Dir: dir})
	require.Equal(t, "1", ask(t, again.URL("postgres"), "SELECT '1'"))
	require.NoError(t, syscall.Kill(stranger.Process.Pid, 0), "the stranger must live")
}

func TestAnOrdinaryUserHasADatabaseOfTheirOwn(t *testing.T) {
	t.Parallel()
	state := openDir(t)
	as := ordinaryUser(t, state)
	p := startParent(t, "", as, "XDG_STATE_HOME="+state)

	require.Equal(t, "1", ask(t, p.url, "SELECT '1'"))
	data := ask(t, p.url, "SHOW data_directory")
	require.True(t, strings.HasPrefix(data, filepath.Join(state, "openagents-runtime", "postgres-")), data)

	require.NoError(t, p.stdin.Close())
	require.NoError(t, p.cmd.Wait(), "the parent process said: %s", &p.stderr)
}

func TestAClosedFolderIsNamedToRootAndFineForItsOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "db") // t.TempDir is 0700 at some level
	closed := filepath.Dir(dir)
	require.NoError(t, os.Chmod(closed, 0o700))
	t.Cleanup(func() { require.NoError(t, devdb.Remove(context.Background(), dir)) })

	s, err := devdb.Start(t.Context(), devdb.Config{Dir: dir})
	if os.Geteuid() == 0 {
		require.ErrorContains(t, err, closed+" is closed to it")
		require.ErrorContains(t, err, "choose a folder outside")
		return
	}
	require.NoError(t, err)
	require.NoError(t, s.Stop(t.Context()))
}

func requireClosed(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the server did not end")
	}
}

func serverPID(t *testing.T, url string) int {
	t.Helper()
	data := ask(t, url, "SHOW data_directory")
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(first)
	require.NoError(t, err)
	return pid
}

func socketDir(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	return cfg.Host
}

// ownerOf runs a command as the owner of a file: a server takes only a process
// of its own user for another server.
func ownerOf(t *testing.T, path string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
}

// ordinaryUser is nobody when the tests run as root, who then owns dir, and
// otherwise, as nil, whoever runs them.
func ordinaryUser(t *testing.T, dir string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("nobody")
	require.NoError(t, err)
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	require.NoError(t, err)
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	require.NoError(t, err)
	require.NoError(t, os.Chown(dir, int(uid), int(gid)))
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

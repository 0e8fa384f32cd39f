package php_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const install = "apt-get install -y php-cli php-curl php-mbstring php-xml php-laravel-framework php-guzzlehttp-guzzle phpunit composer"

// patience ends a test that would wait for ever; no assertion depends on it.
const patience = 30 * time.Second

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// command is a PHP process with the generated client at hand.
func command(t *testing.T, ctx context.Context, env []string, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := exec.LookPath("php")
	require.NoError(t, err, "php is missing; install it with: %s", install)
	client, err := filepath.Abs("../../../gen/php")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(client, "composer.json"), "gen/php is missing; write it with: make generate")
	cmd := exec.CommandContext(ctx, bin, append([]string{"-d", "error_reporting=-1", "-d", "display_errors=stderr"}, args...)...)
	cmd.Env = append(append(os.Environ(), "GENERATED="+client), env...)
	cmd.WaitDelay = time.Second
	return cmd
}

// line is one thing that testdata/read.php tells on its way through a stream.
type line struct {
	Part    *part  `json:"part"`
	Bytes   string `json:"bytes"`
	Empty   bool   `json:"empty"`
	End     bool   `json:"end"`
	Error   string `json:"error"` // class
	Code    string `json:"code"`
	Status  int    `json:"status"`
	Cursor  *int   `json:"cursor"`
	Floor   int    `json:"floor"`
	Restart int    `json:"restart"`
	URL     string `json:"url"`
}

type part struct {
	ID   *int           `json:"id"`
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

// reader reads one run's stream in a PHP process and hands on what it tells, as
// it tells it.
type reader struct {
	lines chan line
	done  chan error
	log   bytes.Buffer
}

func read(t *testing.T, base string, env ...string) *reader {
	t.Helper()
	cmd := command(t, within(t), append(env, "BASE_URL="+base, "SECRET="+secret), filepath.Join("testdata", "read.php"))
	r := &reader{lines: make(chan line), done: make(chan error, 1)}
	cmd.Stderr = &r.log
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ctx := t.Context()
	go func() {
		defer close(r.lines)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			var l line
			if err := json.Unmarshal(scanner.Bytes(), &l); err != nil {
				r.done <- fmt.Errorf("read.php said %q: %w", scanner.Text(), err)
				return
			}
			select {
			case r.lines <- l:
			case <-ctx.Done():
			}
		}
		r.done <- cmd.Wait()
	}()
	return r
}

// next is the next thing told.
func (r *reader) next(t *testing.T) line {
	t.Helper()
	select {
	case l, open := <-r.lines:
		if !open {
			require.FailNow(t, "the PHP process ended", "%v\n%s", <-r.done, r.log.String())
		}
		return l
	case <-time.After(patience):
		require.FailNow(t, "PHP told nothing: what was sent did not arrive")
		return line{}
	}
}

// rest is everything told until the end, and the end itself.
func (r *reader) rest(t *testing.T) (told []line, end line) {
	t.Helper()
	for {
		l := r.next(t)
		if l.End || l.Error != "" {
			_, open := <-r.lines
			require.False(t, open)
			require.NoError(t, <-r.done, r.log.String())
			require.Empty(t, r.log.String())
			return told, l
		}
		told = append(told, l)
	}
}

// laravel serves testdata/app, a Laravel application that has the package
// installed, with PHP's own web server. It answers the base URL.
func laravel(t *testing.T, runtime string, env ...string) string {
	t.Helper()
	base := t.TempDir()
	for _, dir := range []string{"config", "bootstrap/cache", "vendor/composer", "storage"} {
		require.NoError(t, os.MkdirAll(filepath.Join(base, dir), 0o755))
	}
	// What Composer would note: Laravel finds the service provider through it.
	manifest, err := os.ReadFile("../../../gen/php/composer.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(base, "vendor/composer/installed.json"),
		[]byte(`{"packages":[`+string(manifest)+`]}`), 0o600))
	config, err := os.ReadFile("testdata/app/config.php")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(base, "config/app.php"), config, 0o600))

	ctx, stop := context.WithCancel(t.Context())
	cmd := command(t, ctx, append([]string{
		"APP_BASE=" + base, "RUNTIME_DRIVER=elixir", "OA_RUNTIME_BASE_URL=" + runtime, "OA_RUNTIME_SIGNING_SECRET=" + secret,
		"OA_RUNTIME_RETRY_BACKOFF_MS=1",
	}, env...), "-d", "output_buffering=4096", "-S", "127.0.0.1:0", "-t", base, filepath.Join("testdata", "app", "index.php"))
	cmd.WaitDelay = time.Second
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	address := make(chan string, 1)
	var said bytes.Buffer
	var mu sync.Mutex
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		started := regexp.MustCompile(`Development Server \((http://[^)]+)\) started`)
		lines := bufio.NewReader(log)
		for {
			text, err := lines.ReadString('\n')
			mu.Lock()
			said.WriteString(text)
			mu.Unlock()
			if m := started.FindStringSubmatch(text); m != nil {
				address <- m[1]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		cmd.Wait()
		if t.Failed() {
			mu.Lock()
			defer mu.Unlock()
			t.Logf("Laravel said:\n%s", said.String())
		}
	})
	select {
	case a := <-address:
		return a
	case <-ended:
		require.FailNow(t, "php -S did not start", said.String())
	case <-time.After(patience):
		require.FailNow(t, "php -S did not tell its address")
	}
	return ""
}

// get asks the application as a browser would.
func get(t *testing.T, ctx context.Context, url string, header map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func text(t *testing.T, r *http.Response) string {
	t.Helper()
	raw, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(raw)
}

// awaitBytes reads on until the body has brought exactly what was sent.
func awaitBytes(t *testing.T, body io.Reader, sent string) {
	t.Helper()
	got := make([]byte, len(sent))
	arrived := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(body, got)
		arrived <- err
	}()
	select {
	case err := <-arrived:
		require.NoError(t, err)
		require.Equal(t, sent, string(got))
	case <-time.After(patience):
		require.FailNow(t, "what was sent did not arrive", sent)
	}
}

// allow lets the upstream send the next block.
func allow(t *testing.T, next chan<- struct{}) {
	t.Helper()
	select {
	case next <- struct{}{}:
	case <-time.After(patience):
		require.FailNow(t, "the upstream is not sending any more")
	}
}

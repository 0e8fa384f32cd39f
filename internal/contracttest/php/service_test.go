package php_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// TestAgainstTheService runs the client against the built program.
func TestAgainstTheService(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "openagents-runtime")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./cmd/openagents-runtime")
	build.Dir = "../../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Run("every operation", func(t *testing.T) { t.Parallel(); payForCalls(t); everyOperation(t, serve(t, binary)) })
	t.Run("a cut connection", func(t *testing.T) { t.Parallel(); cutConnections(t, serve(t, binary)) })
	t.Run("tools", func(t *testing.T) { t.Parallel(); callingTools(t, binary) })
	t.Run("through Laravel", func(t *testing.T) { t.Parallel(); throughLaravel(t, binary) })
}

// serve starts the program on a database of its own and answers its base URL.
func serve(t *testing.T, binary string, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, "serve")
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "DATABASE_URL=" + dbtest.URL(t),
		"RUNTIME_SIGNATURE_SECRET=" + secret, "RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0",
	}, env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	address := make(chan string, 1)
	ended := make(chan struct{})
	var said bytes.Buffer
	go func() {
		defer close(ended)
		serving := regexp.MustCompile(`"msg":"serving","api":"([^"]+)"`)
		lines := bufio.NewReader(log)
		for {
			text, err := lines.ReadString('\n')
			said.WriteString(text)
			if m := serving.FindStringSubmatch(text); m != nil {
				address <- m[1]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		<-ended
		cmd.Wait()
		if t.Failed() {
			t.Logf("the service said:\n%s", said.String())
		}
	})
	select {
	case a := <-address:
		return "http://" + a
	case <-ended:
		require.FailNow(t, "the service did not start", said.String())
	case <-time.After(patience):
		require.FailNow(t, "the service does not say where it listens")
	}
	return ""
}

// everyOperation runs the PHPUnit tests under testdata/service.
func everyOperation(t *testing.T, base string) {
	bin, err := exec.LookPath("phpunit")
	require.NoError(t, err, "phpunit is missing; install it with: %s", install)
	cmd := command(t, within(t), []string{"BASE_URL=" + base, "SECRET=" + secret}, bin,
		"--bootstrap", "testdata/autoload.php", "--do-not-cache-result", "--colors=never",
		"--fail-on-risky", "--fail-on-warning", "--fail-on-skipped", "--fail-on-incomplete", "testdata/service")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(string(out))
}

// cutConnections reads one run's stream through a relay that breaks connections
// off at many places, in headers, blocks and between them.
func cutConnections(t *testing.T, base string) {
	undisturbed := read(t, base, "START=Count to twelve, and say why.", "RUN=cut-me", "MODE=bytes")
	told, _ := undisturbed.rest(t)
	stream := shown(joined(told))
	require.Greater(t, len(stream), 15)

	relay := newRelay(t, base)
	const cuts = 60
	r := read(t, relay.url, "RUN=cut-me", "TIMES="+strconv.Itoa(cuts), "MODE=bytes")
	for i := range cuts {
		var got []line
		for l := r.next(t); !l.End; l = r.next(t) {
			require.Empty(t, l.Error, "reading %d", i)
			got = append(got, l)
		}
		require.Equal(t, stream, shown(joined(got)), "reading %d", i)
	}
	_, end := r.rest(t)
	require.True(t, end.End)
	require.Greater(t, relay.cut.Load(), int64(cuts/2))
}

func joined(told []line) string {
	var b strings.Builder
	for _, l := range told {
		b.WriteString(l.Bytes)
	}
	return b.String()
}

// relay passes connections on and breaks every other one off, each later than
// the one before.
type relay struct {
	url string
	cut atomic.Int64
}

func newRelay(t *testing.T, base string) *relay {
	t.Helper()
	target, err := url.Parse(base)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{url: "http://" + listener.Addr().String()}
	var open sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		open.Wait()
	})
	open.Go(func() {
		for n := 0; ; n++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			open.Go(func() {
				defer client.Close()
				server, err := net.Dial("tcp", target.Host)
				if err != nil {
					return
				}
				defer server.Close()
				go io.Copy(server, client)
				if n%2 == 1 {
					io.Copy(client, server)
					return
				}
				_, err = io.CopyN(client, server, int64(40+n*41))
				if err == nil {
					r.cut.Add(1)
					client.(*net.TCPConn).SetLinger(0)
				}
			})
		}
	})
	return r
}

// throughLaravel: a model says a word only when the word before it has come out
// of Laravel, so every part travels from the model through the service and the
// client to the browser while the run is still going on.
func throughLaravel(t *testing.T, binary string) {
	words := []string{"Every ", "word ", "by ", "itself, ", "grüße ", "😀."}
	next := make(chan struct{})
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		say := func(choice string) {
			fmt.Fprintf(w, `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"scripted","choices":[{"index":0,%s}]}`+"\n\n", choice)
			http.NewResponseController(w).Flush()
		}
		for i, word := range words {
			if i > 0 {
				select {
				case <-next:
				case <-r.Context().Done():
					return
				}
			}
			content, _ := json.Marshal(word)
			say(`"delta":{"role":"assistant","content":` + string(content) + `},"finish_reason":null`)
		}
		say(`"delta":{},"finish_reason":"stop"`)
		io.WriteString(w, "data: [DONE]\n\n")
	}))
	t.Cleanup(model.Close)
	base := serve(t, binary, "MODEL_PROVIDER=openai", "MODEL_BASE_URL="+model.URL+"/v1", "MODEL_NAME=scripted", "MODEL_API_KEY=none")
	app := laravel(t, base)

	response, err := http.DefaultClient.Do(post(t, app+"/chat/thread-1", url.Values{
		"runId": {"run-1"}, "messageId": {"message-1"}, "text": {"Speak."},
	}))
	require.NoError(t, err)
	defer response.Body.Close()
	require.Equal(t, "run-1", response.Header.Get("x-oa-run-id"))
	var kinds []string
	var said strings.Builder
	lines := bufio.NewReader(response.Body)
	for heard := 0; ; {
		data, err := nextData(lines)
		require.NoError(t, err, "after %v", kinds)
		if data == "[DONE]" {
			break
		}
		var p struct{ Type, Delta string }
		require.NoError(t, json.Unmarshal([]byte(data), &p))
		kinds = append(kinds, p.Type)
		if said.WriteString(p.Delta); p.Type == "text-delta" {
			require.Equal(t, words[heard], p.Delta)
			if heard++; heard < len(words) {
				allow(t, next)
			}
		}
	}
	require.Equal(t, strings.Join(words, ""), said.String())
	require.Equal(t, "start", kinds[0])
	require.Equal(t, "finish", kinds[len(kinds)-1])
	rest, err := io.ReadAll(lines)
	require.NoError(t, err)
	require.NotContains(t, string(rest), "data:")
}

func post(t *testing.T, to string, form url.Values) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), http.MethodPost, to, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// nextData is the next data line.
func nextData(lines *bufio.Reader) (string, error) {
	for {
		text, err := lines.ReadString('\n')
		if err != nil {
			return "", err
		}
		if data, ok := strings.CutPrefix(strings.TrimSuffix(text, "\n"), "data: "); ok {
			return data, nil
		}
	}
}

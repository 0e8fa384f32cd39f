package systemtest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const (
	secret   = "k1:a-secret-of-the-system-tests-0123456789"
	audience = "openagents-runtime"
	userID   = int64(7)
)

// server is a process that serves.
type server struct {
	*process
	api, ops string // http://host:port
}

// serve starts a server on a database and waits until it listens.
func serve(t *testing.T, databaseURL string, env ...string) *server {
	t.Helper()
	p := launch(t, nil, append([]string{
		"DATABASE_URL=" + databaseURL, "RUNTIME_SIGNATURE_SECRET=" + secret,
		"RUNTIME_API_ADDR=127.0.0.1:0", "RUNTIME_OPS_ADDR=127.0.0.1:0",
	}, env...), "serve")
	found := p.until(t, `"msg":"serving","api":"([^"]+)","ops":"([^"]+)"`)
	return &server{p, "http://" + found[1], "http://" + found[2]}
}

// answer is a response that was read to its end, or to where it broke.
type answer struct {
	status int
	body   string
	err    error // of the reading; nil after a clean end
}

// request makes a signed request. what is below /internal/v1, such as
// "/runs/r1/stream"; the run or thread that it names is signed too.
func request(t *testing.T, method, base, what string, body any) *http.Request {
	t.Helper()
	var sent []byte
	if body != nil {
		var err error
		sent, err = json.Marshal(body)
		require.NoError(t, err)
	}
	target := "/internal/v1" + what
	who := userID
	claims := auth.Claims{
		Audience: audience, Scope: auth.Service, Actor: "systemtest", Method: method, Target: target,
		BodySHA256: auth.BodyHash(sent), UserID: &who,
	}
	path, _, _ := strings.Cut(what, "?")
	switch names := strings.Split(path, "/"); {
	case len(names) > 2 && names[1] == "runs":
		claims.RunID = names[2]
	case len(names) > 2 && names[1] == "threads":
		claims.ThreadID = names[2]
	}
	keys, err := auth.ParseKeyring(secret)
	require.NoError(t, err)
	token, err := auth.Sign(keys, claims, time.Now())
	require.NoError(t, err)
	req, err := http.NewRequestWithContext(t.Context(), method, base+target, bytes.NewReader(sent))
	require.NoError(t, err)
	req.Header.Set(auth.SignatureHeader, token)
	req.Header.Set(auth.UserHeader, strconv.FormatInt(userID, 10))
	req.Header.Set("Content-Type", "application/json")
	return req
}

func do(t *testing.T, req *http.Request) answer {
	t.Helper()
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(b), err}
}

func call(t *testing.T, method, base, what string, body any) answer {
	t.Helper()
	a := do(t, request(t, method, base, what, body))
	require.NoError(t, a.err)
	return a
}

// startRun starts a run of the user in a thread of its own and returns both ids.
func startRun(t *testing.T, base string) (runID, threadID string) {
	t.Helper()
	runID, threadID = uuid.NewString(), uuid.NewString()
	a := call(t, http.MethodPost, base, "/runs", map[string]any{
		"runId": runID, "threadId": threadID, "userId": userID, "authenticatedSession": true,
	})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	return runID, threadID
}

// say appends a user's text.
func say(t *testing.T, base, runID, text string) {
	t.Helper()
	a := call(t, http.MethodPost, base, "/runs/"+runID+"/frames", map[string]any{
		"frameId": uuid.NewString(), "type": "user_message", "payload": map[string]any{"text": text},
	})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
}

// reading is a stream on its way.
type reading struct {
	body *output
	done chan struct{}
	err  error // why it ended, valid once done is closed; nil after a clean end
}

// stream follows a run after a cursor, in the background.
func stream(t *testing.T, base, runID string, cursor int64) *reading {
	t.Helper()
	req := request(t, http.MethodGet, base, "/runs/"+runID+"/stream", nil)
	if cursor > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatInt(cursor, 10))
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode)
	r := &reading{body: newOutput(), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		defer res.Body.Close()
		_, r.err = io.Copy(r.body, res.Body)
	}()
	return r
}

// until waits until the stream has brought a text.
func (r *reading) until(t *testing.T, text string) {
	t.Helper()
	for late := time.After(patience); ; {
		r.body.mu.Lock()
		there, more := strings.Contains(r.body.all.String(), text), r.body.more
		r.body.mu.Unlock()
		if there {
			return
		}
		select {
		case <-more:
		case <-r.done:
			require.Contains(t, r.body.String(), text, "the stream ended: %v", r.err)
			return
		case <-late:
			require.FailNow(t, "the stream brings nothing", "it was to bring %s and brought:\n%s", text, r.body)
		}
	}
}

// rest waits for the stream's end and returns all of it.
func (r *reading) rest(t *testing.T) answer {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		require.FailNow(t, "the stream does not end", r.body.String())
	}
	return answer{http.StatusOK, r.body.String(), r.err}
}

// block is one event's bytes in a stream.
type block struct {
	seq  int64
	text string
}

// blocks are the whole events of a stream's bytes. A last one without its
// empty line is left out, as every reader of server-sent events does.
func blocks(t *testing.T, body string) []block {
	t.Helper()
	var all []block
	for whole := range strings.SplitAfterSeq(body, "\n\n") {
		if !strings.HasSuffix(whole, "\n\n") {
			continue
		}
		for line := range strings.SplitSeq(whole, "\n") {
			if id, found := strings.CutPrefix(line, "id:"); found {
				seq, err := strconv.ParseInt(strings.TrimSpace(id), 10, 64)
				require.NoError(t, err)
				all = append(all, block{seq, whole})
			}
		}
	}
	return all
}

// withoutComments is a stream's bytes without its comment lines, which are
// heartbeats and differ from reader to reader.
func withoutComments(body string) string {
	var kept strings.Builder
	for whole := range strings.SplitAfterSeq(body, "\n\n") {
		var lines strings.Builder
		for line := range strings.SplitAfterSeq(whole, "\n") {
			if !strings.HasPrefix(line, ":") {
				lines.WriteString(line)
			}
		}
		if strings.TrimSpace(lines.String()) != "" {
			kept.WriteString(lines.String())
		}
	}
	return kept.String()
}

const done = "data: [DONE]\n"

// tick is how often a test looks again.
const tick = 20 * time.Millisecond

package php_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const (
	secret   = "k1:0123456789abcdef0123456789abcdef"
	audience = "openagents-runtime"
)

// blocks are one run's stream; block i ends with id i+1 where it has one.
var blocks = []string{
	": stream-open\n\nretry: 1\n\n",
	"data: {\"type\":\"start\",\"messageId\":\"m\"}\nid: 1\n\n",
	"id: 2\n\n",
	"data: {\"type\":\"text-start\",\"id\":\"t\"}\nid: 3\n\n",
	"data: {\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"grüße 😀\"}\nid: 4\n\n",
	": keep-alive\n\n",
	"data: {\"type\":\"text-delta\",\"id\":\"t\",\"delta\":\"\\r\\n\"}\nid: 5\n\n",
	"data: {\"type\":\"text-end\",\"id\":\"t\"}\nid: 6\n\n",
	"data: {\"type\":\"finish\",\"finishReason\":\"stop\"}\nid: 7\n\n",
	"data: [DONE]\nid: 8\n\n",
}

var whole = strings.Join(blocks, "")

// after is the rest of the stream for a client that has seen an event.
func after(id string) string {
	if id == "" || id == "0" {
		return whole
	}
	_, rest, _ := strings.Cut(whole, "\nid: "+id+"\n\n")
	if id == "2" {
		_, rest, _ = strings.Cut(whole, "id: 2\n\n")
	}
	return rest
}

// request is what the upstream got, and the way to answer it.
type request struct {
	w http.ResponseWriter
	r *http.Request
}

func (q request) lastEventID() string { return q.r.Header.Get("Last-Event-ID") }

// open starts a stream.
func (q request) open() {
	q.w.Header().Set("Content-Type", "text/event-stream")
	q.w.Header().Set("x-vercel-ai-ui-message-stream", "v1")
	q.w.WriteHeader(http.StatusOK)
	q.send("")
}

func (q request) send(bytes string) {
	io.WriteString(q.w, bytes)
	http.NewResponseController(q.w).Flush()
}

// abort breaks the connection off, as a process that dies does.
func (q request) abort() { panic(http.ErrAbortHandler) }

func (q request) fail(status int, code string, details string) {
	q.w.Header().Set("Content-Type", "application/json")
	q.w.WriteHeader(status)
	fmt.Fprintf(q.w, `{"error":{"code":%q,"message":"scripted","details":%s,"requestId":"req-scripted"}}`, code, details)
}

// upstream stands where the service stands and does what a test tells it. It
// lets nobody in without a right token: a request that it refuses fails the test.
type upstream struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
}

func newUpstream(t *testing.T, handle func(n int, q request)) *upstream {
	t.Helper()
	keys, err := auth.ParseKeyring(secret)
	require.NoError(t, err)
	verifier := &auth.Verifier{Keys: keys, Audience: audience, Nonces: &nonces{}}
	u := &upstream{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			runID, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/internal/v1/runs/"), "/")
			_, err = verifier.Verify(r.Context(), auth.Request{
				Method: r.Method, Target: r.RequestURI, Header: r.Header, BodySHA256: auth.BodyHash(body),
				RunID: runID, Scope: auth.Read,
			})
		}
		if err != nil {
			t.Errorf("%s %s refused: %v", r.Method, r.RequestURI, err)
			http.Error(w, "refused", http.StatusUnauthorized)
			return
		}
		u.mu.Lock()
		u.seen = append(u.seen, r)
		n := len(u.seen)
		u.mu.Unlock()
		handle(n, request{w: w, r: r})
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) requests() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*http.Request(nil), u.seen...)
}

// nonces remembers tokens for as long as a test runs.
type nonces struct{ used sync.Map }

func (n *nonces) Remember(_ context.Context, hash []byte, _ time.Time) (bool, error) {
	_, there := n.used.LoadOrStore(string(hash), true)
	return !there, nil
}

package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"time"
)

// What a frame may ask the model to call, by the tools' names on the wire.
const (
	fetches  = "http_fetch"               // may be made again
	comments = "github_add_issue_comment" // must not be made twice
	mails    = "email_send"               // may be made again under its key, after a person agreed
	asks     = "ask_user"                 // a client's
)

// toolServer is what the shipped tools ask: pages, an issue's comments, a post
// office. It is slow before and after it has done something, does what it was
// asked also when nobody waits for the answer any more, and keeps a ledger.
type toolServer struct {
	*httptest.Server
	mu      sync.Mutex
	effects []effect
	bodies  []string          // of the comments
	sent    map[string]string // what a mail's key was used for first
}

// effect is something that was done for a call, or a request that was answered
// from an earlier one's.
type effect struct {
	tool, frameID string
	key           string // what the request was told apart by, "" for a page
	again         bool   // the post office had the key already
}

func newToolServer() *toolServer {
	s := &toolServer{sent: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/{frame}", s.page)
	mux.HandleFunc("POST /repos/gate/keeper/issues/1/comments", s.comment)
	mux.HandleFunc("GET /repos/gate/keeper/issues/1/comments", s.list)
	mux.HandleFunc("POST /emails", s.mail)
	s.Server = httptest.NewServer(mux)
	return s
}

// settings let a process reach the server with the shipped tools.
func (s *toolServer) settings() []string {
	return []string{
		"RUNTIME_EGRESS_ALLOW=" + strings.TrimPrefix(s.URL, "http://"), "RUNTIME_GITHUB_URL=" + s.URL, "RUNTIME_EMAIL_URL=" + s.URL,
		"RUNTIME_EMAIL_FROM=gate@example.com", "RUNTIME_TOOL_SECRETS=github=a-key-of-the-gate,email=another-key-of-the-gate",
	}
}

// input is what a tool is to be called with to answer a frame.
func (s *toolServer) input(tool, frameID string) map[string]any {
	switch tool {
	case fetches:
		return map[string]any{"url": s.URL + "/page/" + frameID}
	case comments:
		return map[string]any{"repository": "gate/keeper", "number": 1, "body": frameID}
	case mails:
		return map[string]any{"to": []string{"someone@example.com"}, "subject": frameID, "text": "Hello."}
	default:
		return map[string]any{"question": frameID}
	}
}

// took is how long the server takes before something is done, and after: the
// same for the same frame, up to most.
func took(what, frameID string, most time.Duration) (before, after time.Duration) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(what + frameID)) // never fails
	share := time.Duration(h.Sum32()%100) * most / 100
	return share, most - share
}

func (s *toolServer) note(e effect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.effects = append(s.effects, e)
}

func (s *toolServer) page(w http.ResponseWriter, r *http.Request) {
	frame := r.PathValue("frame")
	before, after := took(fetches, frame, 500*time.Millisecond)
	time.Sleep(before)
	s.note(effect{tool: fetches, frameID: frame})
	time.Sleep(after)
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintf(w, "The page of %s.", frame)
}

var marker = regexp.MustCompile(`<!-- openagents-runtime:call [0-9a-f]{32} -->`)

func (s *toolServer) comment(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Body string `json:"body"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, `{"message": "not a comment"}`, http.StatusBadRequest)
		return
	}
	frame, _, _ := strings.Cut(asked.Body, "\n")
	before, after := took(comments, frame, 500*time.Millisecond)
	time.Sleep(before)
	s.note(effect{tool: comments, frameID: frame, key: marker.FindString(asked.Body)})
	s.mu.Lock()
	s.bodies = append(s.bodies, asked.Body)
	id := len(s.bodies)
	s.mu.Unlock()
	time.Sleep(after)
	answerJSON(w, http.StatusCreated, shownComment(id, asked.Body))
}

func shownComment(id int, body string) map[string]any {
	return map[string]any{"id": id, "body": body, "created_at": "2026-02-20T12:00:00Z", "html_url": fmt.Sprintf("https://example.com/c/%d", id)}
}

// list is the newest page of comments only: whoever looks for one looks for one
// of this trial.
func (s *toolServer) list(w http.ResponseWriter, _ *http.Request) {
	const page = 50
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := []map[string]any{}
	for i := max(0, len(s.bodies)-page); i < len(s.bodies); i++ {
		shown = append(shown, shownComment(i+1, s.bodies[i]))
	}
	answerJSON(w, http.StatusOK, shown)
}

// mail sends once for a key, and answers the first again.
func (s *toolServer) mail(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Subject string `json:"subject"`
	}
	key := r.Header.Get("Idempotency-Key")
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || key == "" {
		answerJSON(w, http.StatusUnprocessableEntity, map[string]any{"name": "validation_error", "message": "not a message with a key"})
		return
	}
	before, after := took(mails, asked.Subject, 300*time.Millisecond)
	time.Sleep(before)
	s.mu.Lock()
	first, again := s.sent[key]
	if !again {
		s.sent[key] = asked.Subject
	}
	s.effects = append(s.effects, effect{tool: mails, frameID: asked.Subject, key: key, again: again})
	s.mu.Unlock()
	time.Sleep(after)
	if again && first != asked.Subject {
		answerJSON(w, http.StatusConflict, map[string]any{"name": "invalid_idempotent_request", "message": "the key was used for another message"})
		return
	}
	answerJSON(w, http.StatusOK, map[string]any{"id": "mail-" + key})
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // whoever has gone wants none
}

// of are the effects of a tool for a frame.
func (s *toolServer) of(tool, frameID string) []effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []effect
	for _, e := range s.effects {
		if e.tool == tool && e.frameID == frameID {
			out = append(out, e)
		}
	}
	return out
}

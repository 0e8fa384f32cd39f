package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

const (
	deltas      = 12 // that an answer is streamed in
	deltaPause  = 25 * time.Millisecond
	inputTokens = 7
)

// provider is an endpoint of OpenAI's kind that answers a frame with a text
// made of its id, slowly, and keeps a ledger of what it was asked.
type provider struct {
	*httptest.Server
	mu    sync.Mutex
	calls []*call
	// poison is what befalls who asks for the answer to some frames.
	poison map[string]func(caller string)
}

// call is one request that the provider got.
type call struct {
	key       string // the Idempotency-Key header
	frameID   string
	begun     time.Time
	completed bool // every part of the answer was sent
}

func newProvider() *provider {
	p := &provider{poison: map[string]func(string){}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.answer))
	return p
}

// answerTo is the text that answers a frame.
func answerTo(frameID string) string {
	var all strings.Builder
	for n := range deltas {
		all.WriteString(delta(frameID, n))
	}
	return all.String()
}

func delta(frameID string, n int) string { return fmt.Sprintf("%s, part %d. ", frameID, n+1) }

func (p *provider) answer(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Messages []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.Messages) == 0 {
		http.Error(w, "not a chat completion", http.StatusBadRequest)
		return
	}
	c := &call{
		key: r.Header.Get("Idempotency-Key"), frameID: asked.Messages[len(asked.Messages)-1].Content, begun: time.Now(),
	}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	poison := p.poison[c.frameID]
	p.mu.Unlock()
	if poison != nil {
		caller, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		poison("/" + caller)
		return
	}

	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for n := range deltas {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(deltaPause):
		}
		if !say(w, out, map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": delta(c.frameID, n)}}}}) {
			return
		}
	}
	whole := say(w, out, map[string]any{"choices": []any{map[string]any{"index": 0, "delta": map[string]any{}, "finish_reason": "stop"}}}) &&
		say(w, out, map[string]any{"choices": []any{}, "usage": map[string]any{
			"prompt_tokens": inputTokens, "completion_tokens": deltas, "total_tokens": inputTokens + deltas,
		}})
	if !whole {
		return
	}
	if _, err := fmt.Fprint(w, "data: [DONE]\n\n"); err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.completed = true
}

// say sends one chunk and says whether it could.
func say(w http.ResponseWriter, out *http.ResponseController, chunk map[string]any) bool {
	chunk["id"], chunk["object"], chunk["created"], chunk["model"] = "cmpl-1", "chat.completion.chunk", 1, "scripted"
	b, err := json.Marshal(chunk)
	if err != nil {
		return false
	}
	if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
		return false
	}
	return out.Flush() == nil
}

// poisoned makes a frame one that befalls whoever asks for its answer.
func (p *provider) poisoned(frameID string, befalls func(caller string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.poison[frameID] = befalls
}

// of are the calls that were made to answer some frames.
func (p *provider) of(frames map[string]bool) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []call
	for _, c := range p.calls {
		if frames[c.frameID] {
			out = append(out, *c)
		}
	}
	return out
}

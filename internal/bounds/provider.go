package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// deltaPause is how slowly the provider speaks.
const deltaPause = 200 * time.Millisecond

// provider is an endpoint of OpenAI's kind that answers slowly and without end,
// until it is hung up on, and notes when that was.
type provider struct {
	*httptest.Server
	mu    sync.Mutex
	calls map[string]*call // the newest that was asked for a text
}

// call is one request that the provider got.
type call struct {
	said   int       // deltas
	hungUp time.Time // zero while the caller listens
}

func newProvider() *provider {
	p := &provider{calls: map[string]*call{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.answer))
	return p
}

func (p *provider) answer(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Messages []struct {
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked.Messages) == 0 {
		http.Error(w, "not a chat completion", http.StatusBadRequest)
		return
	}
	c := &call{}
	p.mu.Lock()
	p.calls[asked.Messages[len(asked.Messages)-1].Content] = c
	p.mu.Unlock()
	// A handler that ends was hung up on: it has nothing else to end for.
	defer p.hangUp(c)

	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	tick := time.NewTicker(deltaPause)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		chunk := map[string]any{"id": "cmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
			"choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": fmt.Sprintf("part %d. ", n)}}}}
		b, err := json.Marshal(chunk)
		if err != nil {
			panic(err) // the chunk above is plain
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", b); err != nil {
			return
		}
		if out.Flush() != nil {
			return
		}
		p.spoke(c)
	}
}

func (p *provider) spoke(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.said++
}

func (p *provider) hangUp(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.hungUp = time.Now()
}

// speaking says whether somebody listens to the answer to a text, and has heard
// some of it.
func (p *provider) speaking(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls[text]
	return c != nil && c.said >= 3 && c.hungUp.IsZero()
}

// hungUp is when the newest call for a text was hung up on; zero when it was not.
func (p *provider) hungUp(text string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.calls[text]; c != nil {
		return c.hungUp
	}
	return time.Time{}
}

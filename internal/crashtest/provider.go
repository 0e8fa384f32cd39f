package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
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
	// tools are what is called before some frames are answered, by frame.
	tools map[string][]wish
}

// wish is a tool call that the model asks for.
type wish struct {
	tool  string
	input map[string]any
}

// call is one request that the provider got.
type call struct {
	key       string // the Idempotency-Key header
	frameID   string
	begun     time.Time
	asks      bool // it was answered with tool calls
	completed bool // every part of the answer was sent
}

func newProvider() *provider {
	p := &provider{poison: map[string]func(string){}, tools: map[string][]wish{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.answer))
	return p
}

// answerTo is the text that answers a frame, with what its tool calls came to.
func answerTo(frameID string, results ...string) string {
	return strings.Join(spoken(frameID, results), "")
}

// askingFor is the text with which the model asks for a frame's tool calls.
func askingFor(frameID string) string { return "I look something up for " + frameID + ". " }

// spoken is an answer in its parts.
func spoken(frameID string, results []string) []string {
	var parts []string
	for n := range deltas {
		parts = append(parts, delta(frameID, n))
	}
	for _, r := range results {
		parts = append(parts, "I was told "+r+". ")
	}
	return parts
}

// told is how the model names the outcome of a call that it was shown.
func told(outcome []byte) string {
	canonical, err := canon.JSON(outcome)
	if err != nil {
		canonical = outcome
	}
	return canon.Hash(canonical)[len("sha256:"):][:16]
}

func delta(frameID string, n int) string { return fmt.Sprintf("%s, part %d. ", frameID, n+1) }

// asked is what the model is asked: the frame that was shown last, and what its
// tool calls came to.
type asked struct {
	frameID string
	results []string
}

func readAsked(r *http.Request) (a asked, err error) {
	var body struct {
		Messages []struct {
			Role    string `json:"role"`
			Content string `json:"content"`
		} `json:"messages"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return a, err
	}
	for _, m := range body.Messages {
		switch m.Role {
		case "user":
			a = asked{frameID: m.Content}
		case "tool":
			a.results = append(a.results, told([]byte(m.Content)))
		}
	}
	if a.frameID == "" {
		return a, errors.New("no frame is shown")
	}
	return a, nil
}

func (p *provider) answer(w http.ResponseWriter, r *http.Request) {
	a, err := readAsked(r)
	if err != nil {
		http.Error(w, "not a chat completion", http.StatusBadRequest)
		return
	}
	c := &call{key: r.Header.Get("Idempotency-Key"), frameID: a.frameID, begun: time.Now()}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	poison, wishes := p.poison[c.frameID], p.tools[c.frameID]
	c.asks = len(wishes) > 0 && len(a.results) == 0
	p.mu.Unlock()
	if poison != nil {
		caller, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		poison("/" + caller)
		return
	}
	parts, reason := spoken(a.frameID, a.results), "stop"
	if c.asks {
		parts, reason = []string{askingFor(a.frameID)}, "tool_calls"
	}

	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for _, part := range parts {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(deltaPause):
		}
		if !say(w, out, choice(map[string]any{"content": part}, nil)) {
			return
		}
	}
	if c.asks && !say(w, out, choice(map[string]any{"tool_calls": onWire(wishes)}, nil)) {
		return
	}
	whole := say(w, out, choice(map[string]any{}, &reason)) &&
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

// choice is a chunk with something new, and why there is no more if so.
func choice(delta map[string]any, reason *string) map[string]any {
	one := map[string]any{"index": 0, "delta": delta}
	if reason != nil {
		one["finish_reason"] = *reason
	}
	return map[string]any{"choices": []any{one}}
}

func onWire(wishes []wish) []any {
	var all []any
	for i, w := range wishes {
		arguments, err := json.Marshal(w.input)
		if err != nil {
			panic(err) // the gate makes nothing else than JSON
		}
		all = append(all, map[string]any{"index": i, "id": fmt.Sprintf("wish-%d", i), "type": "function",
			"function": map[string]any{"name": w.tool, "arguments": string(arguments)}})
	}
	return all
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

// wishes makes a frame one for whose answer tools are called.
func (p *provider) wishes(frameID string, wishes []wish) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tools[frameID] = wishes
}

// wished are the tool calls that a frame's answer takes.
func (p *provider) wished(frameID string) []wish {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tools[frameID]
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

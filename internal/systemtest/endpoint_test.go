package systemtest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// message is one of those that a model is shown.
type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// said is what the endpoint's model answers: a text in pieces, or calls of tools.
type turn struct {
	pieces []string
	calls  []toolCall
	status int    // of a failure
	body   string // of a failure
}

type toolCall struct {
	Name string
	Args map[string]any
}

// endpoint is a model behind OpenAI's API whose answers the test decides on.
type endpoint struct {
	*httptest.Server
	answer func(shown []message) turn

	mu    sync.Mutex
	asked []string // bodies
}

func newEndpoint(t *testing.T, answer func(shown []message) turn) *endpoint {
	t.Helper()
	e := &endpoint{answer: answer}
	e.Server = httptest.NewServer(http.HandlerFunc(e.serve))
	t.Cleanup(e.Close)
	return e
}

// requests are the bodies of all that the model was asked.
func (e *endpoint) requests() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.asked, "\n")
}

func (e *endpoint) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller has gone
	}
	e.mu.Lock()
	e.asked = append(e.asked, string(body))
	e.mu.Unlock()
	var q struct{ Messages []message }
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	t := e.answer(q.Messages)
	if t.status != 0 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(t.status)
		_, _ = io.WriteString(w, t.body)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	chunk := func(delta any, finish any) {
		b, _ := json.Marshal(map[string]any{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
			"choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}})
		fmt.Fprintf(w, "data: %s\n\n", b)
	}
	for _, p := range t.pieces {
		chunk(map[string]any{"content": p}, nil)
	}
	for i, c := range t.calls {
		args, _ := json.Marshal(c.Args)
		chunk(map[string]any{"tool_calls": []any{map[string]any{"index": i, "id": fmt.Sprint("c", i), "type": "function",
			"function": map[string]any{"name": c.Name, "arguments": string(args)}}}}, nil)
	}
	finish := "stop"
	if len(t.calls) > 0 {
		finish = "tool_calls"
	}
	chunk(map[string]any{}, finish)
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}

// since are the messages behind the last one of the user.
func since(shown []message) []message {
	for i := len(shown) - 1; i >= 0; i-- {
		if shown[i].Role == "user" {
			return shown[i+1:]
		}
	}
	return nil
}

// lastText is the newest text of the user.
func lastText(shown []message) string {
	for i := len(shown) - 1; i >= 0; i-- {
		if shown[i].Role == "user" {
			return shown[i].Content
		}
	}
	return ""
}

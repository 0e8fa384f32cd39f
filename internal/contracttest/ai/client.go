// Package ai reads streams with the npm clients that browsers use.
//
// The scripts beside it run in Node.js on the packages that package-lock.json
// pins. They are installed once into the user's cache.
package ai

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

//go:embed *.mjs
var scripts embed.FS

const scriptTime = 90 * time.Second

// Target is a run's stream at <API>/<RunID>/stream. Headers go with every
// request, so a server whose tokens are good for one request needs a proxy
// that signs. With Parts the releases that take those parts ask for them.
type Target struct {
	API     string            `json:"api"`
	RunID   string            `json:"runId"`
	Parts   string            `json:"parts,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
}

// Part is one part as a client's schema has let it pass.
type Part map[string]any

// Message is what a client has assembled.
type Message struct {
	ID    string `json:"id"`
	Role  string `json:"role"`
	Parts []Part `json:"parts"`
}

// Text is the text parts joined together, and Reasoning the reasoning parts.
func (m Message) Text() string { return m.join("text") }

// Reasoning is the reasoning parts joined together.
func (m Message) Reasoning() string { return m.join("reasoning") }

func (m Message) join(partType string) string {
	var out string
	for _, p := range m.Parts {
		if text, ok := p["text"].(string); ok && p["type"] == partType {
			out += text
		}
	}
	return out
}

// Reading is one release's reading of a stream.
type Reading struct {
	RunID     string    `json:"runId"`
	Release   string    `json:"release"`
	Resumable bool      `json:"resumable"` // false when the server said that there is nothing to resume
	Parts     []Part    `json:"parts"`
	Errors    []string  `json:"errors"` // that the release's reader reported
	Message   *Message  `json:"message"`
	Requests  []Request `json:"requests"`
}

// Request is one request of a client and how it was answered.
type Request struct {
	URL         string `json:"url"`
	LastEventID string `json:"lastEventId"`
	Status      int    `json:"status"`
}

type cutTarget struct {
	Target
	Cuts []int `json:"cuts,omitempty"`
}

// Read reads the stream from its beginning with each release. Each release's
// first connections are cut after so many bytes each, and it goes on from the
// last event that was whole.
func Read(t testing.TB, target Target, cuts ...int) []Reading {
	t.Helper()
	return readRuns(t, target, []string{target.RunID}, cuts)
}

// ReadRuns reads the streams of several runs, each with each release that takes
// the parts.
func ReadRuns(t testing.TB, api, parts string, runIDs ...string) []Reading {
	t.Helper()
	return readRuns(t, Target{API: api, Parts: parts}, runIDs, nil)
}

func readRuns(t testing.TB, target Target, runIDs []string, cuts []int) []Reading {
	t.Helper()
	input := struct {
		cutTarget
		RunIDs []string `json:"runIds"`
	}{cutTarget{target, cuts}, runIDs}
	var out []Reading
	Run(t, "read.mjs", input, &out)
	return out
}

// Chat is what the newest release's chat shows in the end.
type Chat struct {
	Status   string    `json:"status"`
	Error    string    `json:"error"`
	Messages []Message `json:"messages"`
	Finishes []struct {
		IsDisconnect bool   `json:"isDisconnect"`
		IsError      bool   `json:"isError"`
		FinishReason string `json:"finishReason"`
	} `json:"finishes"` // of each connection
	Requests []Request `json:"requests"`
}

// Replay follows the run with the newest release's chat, cutting the first
// connections after so many bytes each; after a cut it reads everything again.
func Replay(t testing.TB, target Target, cuts ...int) Chat {
	t.Helper()
	var out Chat
	Run(t, "replay.mjs", cutTarget{target, cuts}, &out)
	return out
}

// Events is what an EventSource got before it was told to stop.
type Events struct {
	Events []struct {
		Data        string `json:"data"`
		LastEventID string `json:"lastEventId"`
	} `json:"events"`
	Requests []Request `json:"requests"`
}

// EventSource follows the run from ?cursor=0 until the server has nothing more,
// cutting the first connections after so many bytes each.
func EventSource(t testing.TB, target Target, cuts ...int) Events {
	t.Helper()
	var out Events
	Run(t, "eventsource.mjs", cutTarget{target, cuts}, &out)
	return out
}

// Run runs one of the scripts and decodes its answer.
func Run(t testing.TB, script string, input, out any) {
	t.Helper()
	home, err := install(t.Context())
	require.NoError(t, err)
	// Node looks for packages in the folders above a script.
	dir, err := os.MkdirTemp(home, "run-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.CopyFS(dir, scripts))
	argument, err := json.Marshal(input)
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "node", filepath.Join(dir, script), string(argument))
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", script, errors.Join(err, ctx.Err()), stderr.String())
	}
	require.NoError(t, json.Unmarshal(stdout.Bytes(), out), "%s", stdout.String())
}

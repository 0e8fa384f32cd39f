package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

const defaultAddr = "127.0.0.1:4000"

// principal is on whose behalf the client calls.
type principal struct {
	UserID     int64
	GuestScope string
}

// client calls a running service: the generated client, with every request
// signed.
type client struct {
	*api.ClientWithResponses
	who principal
}

// signer makes the headers of signed requests.
type signer struct {
	keys     auth.Keyring
	audience string
	who      principal
	actor    string // who acts, for the service's audit
	scope    auth.Scope
}

// headers are what a request needs beside its body. A token is for one request.
func (s signer) headers(method, target string, body []byte) (http.Header, error) {
	h := http.Header{}
	claims := auth.Claims{
		Audience: s.audience, Scope: s.scope, Actor: s.actor, Method: method, Target: target,
		BodySHA256: auth.BodyHash(body), GuestScope: s.who.GuestScope,
	}
	if s.who.UserID > 0 {
		claims.UserID = &s.who.UserID
		h.Set(auth.UserHeader, strconv.FormatInt(s.who.UserID, 10))
	}
	if s.who.GuestScope != "" {
		h.Set(auth.GuestHeader, s.who.GuestScope)
	}
	var err error
	if claims.RunID, claims.ThreadID, err = named(target); err != nil {
		return nil, err
	}
	token, err := auth.Sign(s.keys, claims, time.Now())
	h.Set(auth.SignatureHeader, token)
	return h, err
}

// newClient makes a client whose requests are signed.
func newClient(url string, s signer) (*client, error) {
	sign := func(_ context.Context, r *http.Request) error {
		body, err := readBody(r)
		if err != nil {
			return err
		}
		h, err := s.headers(r.Method, r.URL.RequestURI(), body)
		if err != nil {
			return err
		}
		maps.Copy(r.Header, h)
		return nil
	}
	c, err := api.NewClientWithResponses(url, api.WithHTTPClient(egress.New(egress.Config{})), api.WithRequestEditorFn(sign))
	if err != nil {
		return nil, err
	}
	return &client{ClientWithResponses: c, who: s.who}, nil
}

func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, err
}

// named is the run or thread that a request's target names.
func named(target string) (runID, threadID string, err error) {
	r, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return "", "", fmt.Errorf("target %q: %w", target, err)
	}
	mux := http.NewServeMux()
	for _, path := range []string{"/internal/v1/runs/{runId}", "/internal/v1/runs/{runId}/{what}", "/internal/v1/threads/{threadId}/state",
		"/internal/v1/spend/reservations/{runId}/{call}/{what}"} {
		mux.HandleFunc(path, func(_ http.ResponseWriter, r *http.Request) {
			runID, threadID = r.PathValue("runId"), r.PathValue("threadId")
		})
	}
	mux.ServeHTTP(nothing{}, r)
	return runID, threadID, nil
}

// nothing is a response that nobody reads.
type nothing struct{}

func (nothing) Header() http.Header         { return http.Header{} }
func (nothing) Write(b []byte) (int, error) { return len(b), nil }
func (nothing) WriteHeader(int)             {}

// answerError is what an answer that is not a success says.
func answerError(status int, body []byte) error {
	var e api.ErrorEnvelope
	if json.Unmarshal(body, &e) == nil && e.Error.Code != "" {
		return fmt.Errorf("%s: %s (request %s)", e.Error.Code, e.Error.Message, e.Error.RequestID)
	}
	return fmt.Errorf("the service answered %d", status)
}

// start starts a run of the client's principal.
func (c *client) start(ctx context.Context, runID, threadID string, keepOpen bool) error {
	return c.startWith(ctx, api.StartRunRequest{RunID: runID, ThreadID: threadID, KeepOpen: &keepOpen})
}

// startWith starts a run that is as the request says, but for whose it is.
func (c *client) startWith(ctx context.Context, body api.StartRunRequest) error {
	body.AuthenticatedSession = c.who.GuestScope == ""
	if c.who.UserID > 0 {
		body.UserID = &c.who.UserID
	}
	if c.who.GuestScope != "" {
		body.GuestScope = &c.who.GuestScope
	}
	r, err := c.StartRunWithResponse(ctx, &api.StartRunParams{}, body)
	if err != nil {
		return err
	}
	if r.StatusCode() != http.StatusAccepted {
		return answerError(r.StatusCode(), r.GetBody())
	}
	return nil
}

// say appends a user's text.
func (c *client) say(ctx context.Context, runID, frameID, text string) error {
	return c.frame(ctx, runID, api.AppendFrameRequest{FrameID: frameID, Type: "user_message", Payload: map[string]any{"text": text}})
}

func (c *client) frame(ctx context.Context, runID string, f api.AppendFrameRequest) error {
	r, err := c.AppendFrameWithResponse(ctx, runID, &api.AppendFrameParams{}, f)
	if err != nil {
		return err
	}
	if r.StatusCode() != http.StatusAccepted && r.StatusCode() != http.StatusOK {
		return answerError(r.StatusCode(), r.GetBody())
	}
	return nil
}

// errDone ends a follow.
var errDone = errors.New("done")

// follow streams a run after a cursor until [DONE], reconnecting when the
// connection breaks, and gives each part to f. parts names the parts to ask for;
// empty is the service's default.
func (c *client) follow(ctx context.Context, runID, parts string, cursor int64, f func(part) error) error {
	for failures := 0; ; {
		before := cursor
		err := c.read(ctx, runID, parts, &cursor, f)
		if cursor > before {
			failures = 0
		}
		var refused refusedError
		switch {
		case errors.Is(err, errDone):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &refused), failures >= 5:
			return err
		}
		failures++
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(failures) * 300 * time.Millisecond):
		}
	}
}

// refusedError is an answer that trying again does not change.
type refusedError struct{ error }

// read reads one connection's worth of a stream and moves the cursor.
func (c *client) read(ctx context.Context, runID, parts string, cursor *int64, f func(part) error) error {
	p := &api.StreamRunParams{LastEventIDParam: cursor}
	if parts != "" {
		dialect := api.StreamDialect(parts)
		p.StreamPartsParam = &dialect
	}
	r, err := c.StreamRun(ctx, runID, p)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	switch {
	case r.StatusCode == http.StatusNoContent:
		return errDone
	case r.StatusCode != http.StatusOK:
		body, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
		if err != nil {
			return err
		}
		err = answerError(r.StatusCode, body)
		if r.StatusCode < http.StatusInternalServerError {
			return refusedError{err}
		}
		return err
	}
	return readParts(r.Body, func(p part) error {
		*cursor = p.Seq
		if p.Data == "[DONE]" {
			return errDone
		}
		if p.Data == "" {
			return nil
		}
		if err := f(p); err != nil {
			return refusedError{err}
		}
		return nil
	})
}

// withTrace gives a command's calls one trace.
func withTrace(ctx context.Context) context.Context {
	return telemetry.WithTrace(ctx, telemetry.NewTrace("", "", ""))
}

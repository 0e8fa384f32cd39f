package rig

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const (
	// UserID is who owns the runs.
	UserID = int64(7)
	// patience is how long a client waits for an answer before it asks another
	// process.
	patience = 2 * time.Second
)

// Wire carries requests. Connections are not kept: a process that stops
// answering must not hold up the requests that another would answer.
var Wire = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Request makes a signed request; what is below /internal/v1.
func Request(ctx context.Context, method, base, what, runID string, body any) (*http.Request, error) {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	who := UserID
	target := "/internal/v1" + what
	token, err := auth.Sign(keys, auth.Claims{
		Audience: "openagents-runtime", Scope: auth.Service, Actor: "rig", Method: method, Target: target,
		BodySHA256: auth.BodyHash(sent), UserID: &who, RunID: runID,
	}, time.Now())
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, base+target, bytes.NewReader(sent))
	if err != nil {
		return nil, err
	}
	req.Header.Set(auth.SignatureHeader, token)
	req.Header.Set(auth.UserHeader, strconv.FormatInt(UserID, 10))
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// Ask sends a request to one process and gives its whole answer.
func Ask(ctx context.Context, method, base, what, runID string, body any) (status int, answer []byte, err error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	req, err := Request(ctx, method, base, what, runID, body)
	if err != nil {
		return 0, nil, err
	}
	res, err := Wire.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// Pause waits, or says why it did not.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// Block is one event's bytes in a stream, comments left out.
type Block struct {
	Seq  int64
	Text string
}

// ErrDone is the end of a stream that has said [DONE].
var ErrDone = errors.New("done")

// ReadBlocks gives each block of a stream to f. A stream that said [DONE] ends
// with ErrDone; any other end is a broken one.
func ReadBlocks(body io.Reader, f func(Block)) error {
	return ReadStream(body, f, func(time.Duration) {})
}

// ReadStream is ReadBlocks that also tells how long the stream asks its readers
// to wait before they come back.
func ReadStream(body io.Reader, f func(Block), retry func(time.Duration)) error {
	var text strings.Builder
	var seq int64
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		switch {
		case line == "\n":
			if seq > 0 {
				b := Block{seq, text.String()}
				f(b)
				if strings.Contains(b.Text, "data: [DONE]") {
					return ErrDone
				}
			}
			text.Reset()
			seq = 0
			continue
		case field == "":
			continue // a comment
		case field == "retry":
			millis, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				return fmt.Errorf("a bad retry: %w", err)
			}
			retry(time.Duration(millis) * time.Millisecond)
			continue
		case field == "id":
			if seq, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
				return fmt.Errorf("a bad id: %w", err)
			}
		}
		text.WriteString(line)
	}
}

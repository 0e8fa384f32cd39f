package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const (
	userID = int64(7)
	// patience is how long a client waits for an answer before it asks another
	// process.
	patience = 2 * time.Second
)

var (
	keys = keyring()
	// Connections are not kept: a process that stops answering must not hold up
	// the requests that another would answer.
	wire = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
)

// request makes a signed request; what is below /internal/v1.
func request(ctx context.Context, method, base, what, runID string, body any) (*http.Request, error) {
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	who := userID
	target := "/internal/v1" + what
	token, err := auth.Sign(keys, auth.Claims{
		Audience: "openagents-runtime", Scope: auth.Service, Actor: "crashtest", Method: method, Target: target,
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
	req.Header.Set(auth.UserHeader, strconv.FormatInt(userID, 10))
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// answer is what a process said.
type answer struct {
	status int
	body   []byte
}

func (a answer) code() string {
	var e struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(a.body, &e) != nil {
		return ""
	}
	return e.Error.Code
}

func ask(ctx context.Context, method, base, what, runID string, body any) (answer, error) {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	req, err := request(ctx, method, base, what, runID, body)
	if err != nil {
		return answer{}, err
	}
	res, err := wire.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, b}, err
}

// insist sends a request to one process after another until one has answered
// it for good, whatever that answer is: only unreachable, refused tokens, 5xx
// and 429 are tried again.
func insist(ctx context.Context, f *fleet, rng *rand.Rand, method, what, runID string, body any) (answer, error) {
	for n := 0; ; n++ {
		a, err := ask(ctx, method, f.pick(rng, n == 0), what, runID, body)
		again := err != nil || a.status >= 500 || a.status == http.StatusTooManyRequests || a.status == http.StatusUnauthorized
		if !again {
			return a, nil
		}
		if err := pause(ctx, time.Duration(20+rng.IntN(80))*time.Millisecond); err != nil {
			return a, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// block is one event's bytes in a stream, comments left out.
type block struct {
	seq  int64
	text string
}

// errDone is the end of a stream that has said [DONE].
var errDone = errors.New("done")

// readBlocks gives each block of a stream to f. A stream that said [DONE] ends
// with errDone; any other end is a broken one.
func readBlocks(body io.Reader, f func(block)) error {
	var text strings.Builder
	var seq int64
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		if line != "\n" {
			if !strings.HasPrefix(line, ":") && !strings.HasPrefix(line, "retry:") {
				text.WriteString(line)
			}
			if id, found := strings.CutPrefix(line, "id:"); found {
				if seq, err = strconv.ParseInt(strings.TrimSpace(id), 10, 64); err != nil {
					return fmt.Errorf("a bad id: %w", err)
				}
			}
			continue
		}
		if seq > 0 {
			b := block{seq, text.String()}
			f(b)
			if strings.Contains(b.text, "data: [DONE]") {
				return errDone
			}
		}
		text.Reset()
		seq = 0
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

const maxPosters = 32

// errRefused says that the service takes no more work now.
var errRefused = errors.New("refused: too much work")

// poster appends frames over HTTP, a run per client.
type poster struct {
	url    string
	client *http.Client
	runs   []db.Run
}

func newPoster(ctx context.Context, p *process) (*poster, error) {
	w := &poster{url: p.url, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: maxPosters}}}
	for range maxPosters {
		r, err := newRun(ctx, p)
		if err != nil {
			return nil, err
		}
		w.runs = append(w.runs, r)
	}
	return w, nil
}

// frames is n clients, each posting a signed frame after another.
func (w *poster) frames(n int) cell {
	return cell{name: fmt.Sprintf("frame %d", n), measure: func(ctx context.Context, d time.Duration) (result, error) {
		return load(ctx, n, d, 1, func(ctx context.Context, client int) error { return w.post(ctx, w.runs[client].RunID) })
	}}
}

func (w *poster) post(ctx context.Context, runID string) error {
	req, err := frameTo(ctx, w.url, runID)
	if err != nil {
		return err
	}
	res, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	return answered(res, answer)
}

// frameTo is a signed request that appends a frame to a run.
func frameTo(ctx context.Context, url, runID string) (*http.Request, error) {
	body, err := json.Marshal(api.AppendFrameRequest{
		FrameID: uuid.NewString(), Type: "user_message", Payload: map[string]any{"text": deltaText},
	})
	if err != nil {
		return nil, err
	}
	req, err := signed(ctx, http.MethodPost, url, "/internal/v1/runs/"+runID+"/frames", runID, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

// signed makes a request of the user about one run.
func signed(ctx context.Context, method, base, target, runID string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, base+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	user := userID
	token, err := auth.Sign(auth.DevKeyring(), auth.Claims{
		Audience: audience, Scope: auth.Service, Actor: "bench", Method: method, Target: target,
		BodySHA256: auth.BodyHash(body), RunID: runID, UserID: &user,
	}, time.Now())
	if err != nil {
		return nil, err
	}
	req.Header.Set(auth.SignatureHeader, token)
	req.Header.Set(auth.UserHeader, strconv.FormatInt(userID, 10))
	return req, nil
}

package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

const userID = rig.UserID

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
	status, b, err := rig.Ask(ctx, method, base, what, runID, body)
	return answer{status, b}, err
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

func pause(ctx context.Context, d time.Duration) error { return rig.Pause(ctx, d) }

package main

import (
	"bufio"
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

// rudeReader opens a run's stream again and again, reads it byte by byte with
// next to no buffer, and goes in the middle of it without a word.
type rudeReader struct {
	runID string
	fleet *fleet
	seed  uint64
}

// read is rude until ctx ends, and tells how often a stream was under way when it
// went.
func (r *rudeReader) read(ctx context.Context) (left int64) {
	rng := rand.New(rand.NewPCG(r.seed, 6))
	for ctx.Err() == nil {
		if r.once(ctx, rng) {
			left++
		}
		if rig.Pause(ctx, time.Duration(rng.IntN(100))*time.Millisecond) != nil {
			return left
		}
	}
	return left
}

func (r *rudeReader) once(ctx context.Context, rng *rand.Rand) bool {
	base := r.fleet.pick(rng, false)
	req, err := rig.Request(ctx, http.MethodGet, base, "/runs/"+r.runID+"/stream", r.runID, nil)
	if err != nil {
		return false
	}
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(base, "http://"), time.Second)
	if err != nil {
		return false // it was hurt
	}
	tcp := c.(*net.TCPConn)
	defer func() { _ = tcp.Close() }() // with a reset
	if tcp.SetLinger(0) != nil || tcp.SetReadBuffer(1) != nil || req.Write(tcp) != nil ||
		tcp.SetReadDeadline(time.Now().Add(2*time.Second)) != nil {
		return false
	}
	res, err := http.ReadResponse(bufio.NewReaderSize(tcp, 16), req)
	if err != nil || res.StatusCode != http.StatusOK {
		return false
	}
	defer func() { _ = res.Body.Close() }() // it goes with the connection
	one := make([]byte, 1)
	for range rng.IntN(400) {
		if _, err := res.Body.Read(one); err != nil {
			return false
		}
		if rig.Pause(ctx, time.Millisecond) != nil {
			break
		}
	}
	return true
}

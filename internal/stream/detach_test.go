package stream_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

// returning tells when a handler has returned.
func returning(returned chan<- struct{}) func(*httptest.Server) {
	return func(s *httptest.Server) {
		next := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			returned <- struct{}{}
		})
	}
}

// A stream that waits for a live run holds no request, and still gives every
// event, a clean end, and its place back.
func TestAWaitingStreamLetsItsRequestGo(t *testing.T) {
	t.Parallel()
	returned := make(chan struct{}, 1)
	g := newRig(t, stream.Config{}, returning(returned))
	r := runtest.Run(t, g.Pool)
	resp := g.get(t, r, 0)
	live := blocksOf(resp)
	live.until(t, 1)
	<-returned
	require.EqualValues(t, 1, g.count(t, "stream_readers", ""))
	live.until(t, g.Append(t, r, event.RunStartedV1{MessageID: "m"}).LastSeq)
	last := g.Append(t, r, runtest.Reply("a")[1:]...).LastSeq
	live.until(t, last)
	_, err := live.any()
	require.EqualError(t, err, "EOF")
	require.NoError(t, g.h.Wait(t.Context()))
	g.ended(t, "done", 1)
	require.Zero(t, g.count(t, "stream_readers", ""))
}

// A client that leaves a silent stream is noticed at once.
func TestAClientThatLeavesASilentStreamIsNoticed(t *testing.T) {
	t.Parallel()
	returned := make(chan struct{}, 1)
	g := newRig(t, stream.Config{Heartbeat: time.Hour}, returning(returned))
	resp := g.get(t, runtest.Run(t, g.Pool), 0)
	blocksOf(resp).until(t, 1)
	<-returned
	require.NoError(t, resp.Body.Close())
	g.ended(t, "client_gone", 1)
}

// What a process waits for when it drains includes streams without a request.
func TestADrainWaitsForStreamsWithoutARequest(t *testing.T) {
	t.Parallel()
	returned := make(chan struct{}, 1)
	g := newRig(t, stream.Config{}, returning(returned))
	live := blocksOf(g.get(t, runtest.Run(t, g.Pool), 0))
	live.until(t, 1)
	<-returned
	soon, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	require.ErrorIs(t, g.h.Wait(soon), context.DeadlineExceeded)
	g.h.Shutdown()
	require.NoError(t, g.h.Wait(t.Context()))
	live.brokenEnd(t)
}

// Whoever reads a run that others follow is told without a look at the database;
// whatever is not certain is left to it.
func TestAFollowedRunIsKnown(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	_, _, ok := g.h.Followed(r.RunID, 1)
	require.False(t, ok, "nobody follows it")
	live := blocksOf(g.get(t, r, 1))
	last := g.Append(t, r, runtest.Reply("a")[:3]...).LastSeq
	live.until(t, last)
	known, head, ok := g.h.Followed(r.RunID, 1)
	require.True(t, ok)
	require.Equal(t, r.Owner, known.Owner)
	require.Equal(t, last, head)
	for _, cursor := range []int64{0, last + 1} {
		_, _, ok = g.h.Followed(r.RunID, cursor)
		require.False(t, ok, cursor)
	}
	again, err := g.h.OpenFollowed(t.Context(), known, head, 1)
	require.NoError(t, err)
	require.NotNil(t, again)
	live.until(t, g.Append(t, r, runtest.Reply("a")[3:]...).LastSeq)
	_, _, ok = g.h.Followed(r.RunID, 1)
	require.False(t, ok, "it has ended")
}

package stream_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/stream"
)

func TestAnEndedRunHasNothingToResumeAtItsEnd(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	last := g.Append(t, r, runtest.Reply("a")...).LastSeq
	require.Equal(t, http.StatusOK, g.get(t, r, last-1).StatusCode)
	require.Equal(t, http.StatusNoContent, g.get(t, r, last).StatusCode)
	require.Equal(t, http.StatusNoContent, g.get(t, r, last+1).StatusCode)
}

func TestACursorThatALiveRunHasNotReachedIsRefused(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	require.Equal(t, http.StatusOK, g.get(t, r, 1).StatusCode)
	require.Equal(t, http.StatusBadRequest, g.get(t, r, 2).StatusCode)
}

func TestAStaleCursorIsToldWhereToStartAgain(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply(words(10)...)...)
	head, err := runlog.GetHead(t.Context(), g.Pool, r.RunKey)
	require.NoError(t, err)
	head.Oldest = 6

	_, err = g.h.Open(t.Context(), r, head, 4)
	var stale *stream.StaleError
	require.ErrorAs(t, err, &stale)
	require.Equal(t, stream.StaleError{Floor: 5, Head: head.Seq}, *stale)
	_, err = g.h.Open(t.Context(), r, head, stale.Floor)
	require.NoError(t, err)
}

// What is no longer there when it is read, although the head had promised it,
// must not be passed over.
func TestAGapInTheLogBreaksTheStreamOff(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	g.Append(t, r, runtest.Reply(words(10)...)...)
	_, err := g.Pool.Exec(t.Context(), "DELETE FROM run_log_deltas WHERE run_key = $1 AND seq BETWEEN 5 AND 6", r.RunKey)
	require.NoError(t, err)

	got := blocksOf(g.get(t, r, 0)).brokenEnd(t)
	require.NotContains(t, got, "id: 7")
	g.ended(t, "failed", 1)
}

func TestReadersAreBoundedPerRunAndInAll(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{MaxReadersPerRun: 2, MaxReaders: 3})
	one, other := runtest.Run(t, g.Pool), runtest.Run(t, g.Pool)
	first := g.get(t, one, 0)
	require.Equal(t, http.StatusOK, g.get(t, one, 0).StatusCode)
	require.Equal(t, http.StatusServiceUnavailable, g.get(t, one, 0).StatusCode)
	require.Equal(t, http.StatusOK, g.get(t, other, 0).StatusCode)
	require.Equal(t, http.StatusServiceUnavailable, g.get(t, other, 0).StatusCode)

	require.NoError(t, first.Body.Close())
	g.ended(t, "client_gone", 1)
	require.Equal(t, http.StatusOK, g.get(t, one, 0).StatusCode)
}

// A request can fail between opening its stream and serving it.
func TestAStreamThatIsNeverServedGivesItsPlaceBack(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{MaxReaders: 1})
	r := runtest.Run(t, g.Pool)
	head, err := runlog.GetHead(t.Context(), g.Pool, r.RunKey)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	_, err = g.h.Open(ctx, r, head, 0)
	require.NoError(t, err)
	_, err = g.h.Open(ctx, r, head, 0)
	require.ErrorIs(t, err, stream.ErrTooManyReaders)
	cancel()
	require.Eventually(t, func() bool {
		_, err := g.h.Open(t.Context(), r, head, 0)
		return !errors.Is(err, stream.ErrTooManyReaders)
	}, patience, shortly)
}

func TestAProcessThatDrainsTakesNoStreams(t *testing.T) {
	t.Parallel()
	g := newRig(t, stream.Config{})
	r := runtest.Run(t, g.Pool)
	head, err := runlog.GetHead(t.Context(), g.Pool, r.RunKey)
	require.NoError(t, err)
	g.h.Shutdown()
	_, err = g.h.Open(t.Context(), r, head, 0)
	require.ErrorIs(t, err, stream.ErrDraining)
}

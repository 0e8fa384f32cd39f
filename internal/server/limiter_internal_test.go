package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// windows has a limiter's requests take so long for so many windows, with all of
// its places taken in each.
func windows(l *limiter, n int, took time.Duration) {
	now := l.begun.Add(time.Hour)
	for range n {
		entered := 0
		for l.enter() {
			entered++
		}
		now = now.Add(2 * limitWindow)
		for range entered {
			l.leave(took, now)
		}
	}
}

func TestTheLimitFollowsHowLongRequestsTake(t *testing.T) {
	t.Parallel()
	l := newLimiter(512)
	require.Equal(t, limitCalm, l.limit)
	windows(l, 200, 2*time.Millisecond)
	require.Equal(t, 512, l.limit, "nobody waits for anybody")
	windows(l, 100, 20*time.Millisecond)
	require.Equal(t, limitCalm, l.limit, "requests wait for each other")
	windows(l, 100, time.Second)
	require.Equal(t, limitLeast, l.limit, "they wait for very long")
	windows(l, 100, 20*time.Millisecond)
	require.Equal(t, limitCalm, l.limit, "it recovers")
	require.Zero(t, l.inFlight)
}

func TestTheLimitIsNeverAboveItsBound(t *testing.T) {
	t.Parallel()
	l := newLimiter(4)
	windows(l, 50, time.Millisecond)
	require.Equal(t, 4, l.limit)
	windows(l, 50, time.Second)
	require.Equal(t, 4, l.limit)
	for range 4 {
		require.True(t, l.enter())
	}
	require.False(t, l.enter())
	require.True(t, l.full())
}

func TestALimitThatIsNotReachedIsNotRaised(t *testing.T) {
	t.Parallel()
	l := newLimiter(512)
	now := time.Now()
	for range 50 {
		require.True(t, l.enter())
		now = now.Add(2 * limitWindow)
		l.leave(time.Millisecond, now)
	}
	require.Equal(t, limitCalm, l.limit)
}

package main

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/rig"
)

func of(millis ...int) figure {
	f := figure{what: "something", ttl: time.Second}
	for _, m := range millis {
		f.add(time.Duration(m) * time.Millisecond)
	}
	return f
}

func TestQuantilesAreSamples(t *testing.T) {
	t.Parallel()
	f := of(5, 1, 4, 2, 3)
	for of, want := range map[string]int{"min": 1, "p50": 3, "p99": 5, "max": 5} {
		require.Equal(t, time.Duration(want)*time.Millisecond, f.quantile(of), of)
	}
	var many []int
	for n := range 200 {
		many = append(many, n+1)
	}
	require.Equal(t, 198*time.Millisecond, of(many...).quantile("p99"))
	require.Equal(t, 100*time.Millisecond, of(many...).quantile("p50"))
}

func TestABrokenBoundIsNamedAndMarked(t *testing.T) {
	t.Parallel()
	f := of(10, 20, 30)
	f.bounds = []bound{{"p50", 20 * time.Millisecond}, {"max", 29 * time.Millisecond}, {"min", 0}}
	require.Equal(t, []string{"something, TTL 1s: max ≤ 29 ms, and it is 30"}, brokenOf([]figure{f}))
	require.Contains(t, f.line(), "**no**")
	early := of(-1, 5)
	early.bounds = []bound{{"min", 0}}
	require.Len(t, brokenOf([]figure{early}), 1, "a run that was taken over before its lease had ended")
	f.bounds = f.bounds[:1]
	require.Empty(t, brokenOf([]figure{f}))
	require.Contains(t, document([]figure{f}, "Here.", []string{"0.10"}), "| something | 1s | 3 | 10 | 20 | 30 | 30 | p50 ≤ 20 | yes |")
}

func TestTheProviderSpeaksUntilItIsHungUpOn(t *testing.T) {
	t.Parallel()
	p := newProvider()
	t.Cleanup(p.Close)
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, strings.NewReader(`{"messages":[{"content":"r-1"}]}`))
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	require.Eventually(t, func() bool { return p.speaking("r-1") }, 10*time.Second, 10*time.Millisecond)
	require.False(t, p.speaking("r-2"))
	require.Zero(t, p.hungUp("r-1"))
	hangUp()
	require.Eventually(t, func() bool { return !p.hungUp("r-1").IsZero() }, 10*time.Second, 10*time.Millisecond)
	require.False(t, p.speaking("r-1"))
}

func TestAFollowerNotesAGapARepeatAndAMissingEnd(t *testing.T) {
	t.Parallel()
	for _, seqs := range [][]int64{{1, 3}, {1, 1}, {2}} {
		f := &follower{done: true}
		for _, seq := range seqs {
			f.take(rig.Block{Seq: seq})
		}
		require.ErrorContains(t, f.wrong(), "comes", "%v", seqs)
	}
	f := &follower{}
	f.take(rig.Block{Seq: 1})
	require.ErrorContains(t, f.wrong(), "no [DONE]")
	f.done = true
	require.NoError(t, f.wrong())
}

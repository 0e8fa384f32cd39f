package tool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

func TestLimitsAreNeverExceeded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := tool.Config{Global: rapid.IntRange(1, 6).Draw(t, "global"), PerOwner: rapid.IntRange(1, 4).Draw(t, "owner"),
			PerProvider: rapid.IntRange(1, 4).Draw(t, "provider")}
		catalog, err := tool.NewCatalog()
		require.NoError(t, err)
		r := tool.NewRunner(c, catalog, telemetry.NewMetrics())
		runs := []uuid.UUID{uuid.New(), uuid.New()}
		parallel := []int{0, rapid.IntRange(1, 3).Draw(t, "parallel")}
		perRun := rapid.IntRange(1, 4).Draw(t, "run")
		type held struct {
			run, owner, tool int
			release          func()
		}
		var all []held
		count := func(match func(held) bool) (n int) {
			for _, h := range all {
				if match(h) {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				h := held{run: rapid.IntRange(0, 1).Draw(t, "run"), owner: rapid.IntRange(0, 1).Draw(t, "owner"), tool: rapid.IntRange(0, 1).Draw(t, "tool")}
				s := spec(fmt.Sprint("t", h.tool), func(s *tool.Spec) { s.Parallel, s.Provider = parallel[h.tool], "one" })
				room := len(all) < c.Global && len(all) < c.PerProvider &&
					count(func(o held) bool { return o.run == h.run }) < perRun &&
					count(func(o held) bool { return o.owner == h.owner }) < c.PerOwner &&
					(parallel[h.tool] == 0 || count(func(o held) bool { return o.tool == h.tool }) < parallel[h.tool])
				var ok bool
				h.release, ok = r.Acquire(runs[h.run], fmt.Sprint("user:", h.owner), s, perRun)
				require.Equal(t, room, ok)
				if ok {
					all = append(all, h)
				}
			},
			"let go": func(t *rapid.T) {
				if len(all) == 0 {
					return
				}
				i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
				freed := r.Freed()
				all[i].release()
				all[i].release() // twice is once
				<-freed
				all = append(all[:i], all[i+1:]...)
			},
			"": func(t *rapid.T) { require.Equal(t, len(all), r.Running("global", "")) },
		})
	})
}

func TestARefusedCallTakesNoPlace(t *testing.T) {
	t.Parallel()
	r := runner(t, tool.Config{Global: 1})
	release, ok := r.Acquire(uuid.New(), "user:1", spec("a"), 0)
	require.True(t, ok)
	_, ok = r.Acquire(uuid.New(), "user:2", spec("b"), 0)
	require.False(t, ok)
	require.Zero(t, r.Running("owner", "user:2"))
	release()
	_, ok = r.Acquire(uuid.New(), "user:2", spec("b"), 0)
	require.True(t, ok)
}

func TestAClientToolTakesNoPlace(t *testing.T) {
	t.Parallel()
	r := runner(t, tool.Config{Global: 1})
	for range 3 {
		_, ok := r.Acquire(uuid.New(), "user:1", spec("a", func(s *tool.Spec) { s.Kind = tool.Client }), 1)
		require.True(t, ok)
	}
}

// Five hundred sessions want a place each, of which there are a few; everybody
// gets one in the end, and never are there more at once.
func TestWhoWaitsForAPlaceGetsOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		s := spec("a")
		r := runner(t, tool.Config{Global: 7, PerOwner: 1000}, made{s, func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(10 * time.Millisecond)
			return tool.Result{}, nil
		}})
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				for {
					freed := r.Freed()
					if release, ok := r.Acquire(uuid.New(), "user:1", s, 0); ok {
						defer release()
						r.Do(t.Context(), call("a"), s, quiet)
						return
					}
					<-freed
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 7, most.Load())
		require.Zero(t, r.Running("global", ""))
	})
}

// What a call costs beyond the time of the tool itself: 500 calls of a second at
// once take a second.
func BenchmarkFiveHundredCallsOfASecond(b *testing.B) {
	s := spec("a", func(s *tool.Spec) { s.Timeout = time.Minute })
	r := runner(b, tool.Config{PerOwner: 500, PerProvider: 500, PerRun: 500}, made{s, func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
		time.Sleep(time.Second)
		return tool.Result{Output: json.RawMessage(`{"ok":true}`)}, nil
	}})
	run := uuid.New()
	for b.Loop() {
		began := time.Now()
		var wg sync.WaitGroup
		for range 500 {
			release, ok := r.Acquire(run, "user:1", s, 0)
			require.True(b, ok)
			wg.Go(func() {
				defer release()
				r.Do(b.Context(), call("a"), s, quiet)
			})
		}
		wg.Wait()
		b.ReportMetric(float64((time.Since(began) - time.Second).Microseconds()), "µs-over")
	}
}

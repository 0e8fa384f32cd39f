package loop_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/loop"
)

type payload = map[string]any

// feed adds frames and gives what was found, by the number of the frame from 1.
func feed(t *testing.T, w *loop.Window, n int, frame func(i int) (string, payload)) map[int]loop.Finding {
	t.Helper()
	found := map[int]loop.Finding{}
	for i := 1; i <= n; i++ {
		kind, p := frame(i)
		f, err := w.Add(kind, p)
		require.NoError(t, err)
		if f != nil {
			found[i] = *f
			if f.Level == loop.Critical {
				break
			}
		}
	}
	return found
}

// requireLoop checks that a detector warned once and then was critical.
func requireLoop(t *testing.T, found map[int]loop.Finding, d loop.Detector, warned, critical int) {
	t.Helper()
	require.Len(t, found, 2, "%v", found)
	require.Equal(t, d, found[warned].Detector, "%v", found)
	require.Equal(t, loop.Warning, found[warned].Level)
	require.Equal(t, d, found[critical].Detector, "%v", found)
	require.Equal(t, loop.Critical, found[critical].Level)
	require.Equal(t, 20, found[critical].Count)
	require.Contains(t, found[critical].Reason, "20")
}

func TestTheSameFrameAgainAndAgain(t *testing.T) {
	t.Parallel()
	found := feed(t, loop.New(loop.Defaults()), 30, func(int) (string, payload) { return "build_failed", payload{"step": "lint"} })
	requireLoop(t, found, loop.GenericRepeat, 10, 20)
}

func TestWhatIsVolatileMakesNoFrameAnother(t *testing.T) {
	t.Parallel()
	found := feed(t, loop.New(loop.Defaults()), 30, func(i int) (string, payload) {
		return "build_failed", payload{"step": "lint", "at": fmt.Sprint(i), "detail": payload{"request_id": i, "items": []any{payload{"timestamp": i}}}}
	})
	requireLoop(t, found, loop.GenericRepeat, 10, 20)

	c := loop.Defaults()
	c.Volatile = nil
	require.Empty(t, feed(t, loop.New(c), 30, func(i int) (string, payload) { return "build_failed", payload{"at": i} }))
}

func TestTwoFramesThatFollowOneAnother(t *testing.T) {
	t.Parallel()
	found := feed(t, loop.New(loop.Defaults()), 30, func(i int) (string, payload) { return "editor", payload{"state": i % 2} })
	requireLoop(t, found, loop.PingPong, 10, 20)
}

func TestAPollThatFindsTheSame(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]payload{
		"status":     {"tool_name": "command_status", "status": "running", "text": "…"},
		"camel case": {"toolName": "process", "action": "log", "totalLines": 12, "output": "waiting"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Other members may differ: a poll is compared by what it found.
			found := feed(t, loop.New(loop.Defaults()), 30, func(i int) (string, payload) {
				q := payload{"poll": i}
				for k, v := range p {
					q[k] = v
				}
				return "tool_result", q
			})
			requireLoop(t, found, loop.KnownPoll, 10, 20)
		})
	}
	require.Empty(t, feed(t, loop.New(loop.Defaults()), 60, func(i int) (string, payload) {
		return "tool_result", payload{"tool_name": "process", "action": "poll", "total_lines": i}
	}), "a command that writes is getting on")
}

func TestToolsThatBringNothingNew(t *testing.T) {
	t.Parallel()
	found := feed(t, loop.New(loop.Defaults()), 60, func(i int) (string, payload) { return "tool_result", payload{"file": i % 3} })
	require.Len(t, found, 1)
	for _, f := range found {
		require.Equal(t, loop.GlobalCircuitBreaker, f.Detector)
		require.Equal(t, loop.Critical, f.Level)
		require.Equal(t, 30, f.Count)
	}
}

func TestUsefulToolsAreNoLoop(t *testing.T) {
	t.Parallel()
	require.Empty(t, feed(t, loop.New(loop.Defaults()), 200, func(i int) (string, payload) { return "tool_result", payload{"page": i} }))
	require.Empty(t, feed(t, loop.New(loop.Defaults()), 200, func(i int) (string, payload) {
		if i%2 == 0 {
			return "tool_result", payload{"ok": true}
		}
		return "tool_call", payload{"page": i}
	}), "every call is new, though all are done alike")
}

func TestAPersonMayRepeatThemselves(t *testing.T) {
	t.Parallel()
	say := func(answer func(i int) string) map[int]loop.Finding {
		w := loop.New(loop.Defaults())
		return feed(t, w, 40, func(i int) (string, payload) {
			w.Answered(answer(i))
			return "user_message", payload{"text": "go on"}
		})
	}
	require.Empty(t, say(func(i int) string { return fmt.Sprint("chapter ", i) }))
	requireLoop(t, say(func(int) string { return "I cannot." }), loop.GenericRepeat, 10, 20)
}

func TestTicksAreNoLoop(t *testing.T) {
	t.Parallel()
	require.Empty(t, feed(t, loop.New(loop.Defaults()), 100, func(int) (string, payload) { return "tick", payload{} }))
}

func TestAStreakThatBreaksWarnsAnew(t *testing.T) {
	t.Parallel()
	found := feed(t, loop.New(loop.Defaults()), 40, func(i int) (string, payload) {
		return "sensor", payload{"value": i / 15} // 14 the same, then 15, then 15
	})
	require.Len(t, found, 3)
	for _, f := range found {
		require.Equal(t, loop.Warning, f.Level)
	}
}

func TestADetectorMayBeOff(t *testing.T) {
	t.Parallel()
	c := loop.Defaults()
	c.Off = []loop.Detector{loop.GenericRepeat}
	require.NoError(t, c.Validate())
	require.Empty(t, feed(t, loop.New(c), 60, func(int) (string, payload) { return "sensor", payload{} }))
	c.Off = []loop.Detector{loop.GlobalCircuitBreaker}
	require.Error(t, c.Validate())
	for _, wrong := range []func(*loop.Config){
		func(c *loop.Config) { c.Warning = 0 },
		func(c *loop.Config) { c.Critical = c.Warning },
		func(c *loop.Config) { c.Breaker = c.Critical },
		func(c *loop.Config) { c.Window = c.Breaker },
	} {
		c := loop.Defaults()
		wrong(&c)
		require.Error(t, c.Validate())
	}
}

// However the frames come: frames that are all different are never a loop.
func TestNewFramesAreNeverALoop(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		kinds := []string{"tool_result", "tool_call", "user_message", "sensor"}
		order := rapid.SliceOfN(rapid.SampledFrom(kinds), 1, 150).Draw(rt, "kinds")
		w := loop.New(loop.Defaults())
		for i, kind := range order {
			f, err := w.Add(kind, payload{"n": i})
			if err != nil || f != nil {
				rt.Fatalf("frame %d: %v %v", i, f, err)
			}
		}
	})
}

package tool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// flaky fails so often before it succeeds, and notes its calls.
func flaky(failures int, err error, calls *[]tool.Call) runFunc {
	return func(_ context.Context, c tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
		*calls = append(*calls, c)
		if len(*calls) <= failures {
			return tool.Result{}, err
		}
		return tool.Result{Output: json.RawMessage(`{"ok":true}`)}, nil
	}
}

func TestASafeCallIsMadeAgainUnderTheSameKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls []tool.Call
		s := spec("a")
		r := runner(t, tool.Config{}, made{s, flaky(2, &tool.Error{Class: "busy", Retryable: true}, &calls)})
		o := r.Do(t.Context(), call("a"), s, quiet)
		require.Equal(t, tool.Succeeded, o.State)
		require.Equal(t, 3, o.Attempts)
		require.Len(t, calls, 3)
		for i, c := range calls {
			require.Equal(t, i+1, c.Attempt)
			require.Equal(t, "key", c.IdempotencyKey)
		}
		require.Greater(t, o.Latency, 200*time.Millisecond, "the waits count")
	})
}

func TestWhatIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	busy := &tool.Error{Class: "busy", Retryable: true}
	for name, c := range map[string]struct {
		change func(*tool.Spec)
		err    error
	}{
		"a call that must be reconciled": {func(s *tool.Spec) { s.Boundary = tool.Reconcile }, busy},
		"an error that will come again":  {func(*tool.Spec) {}, &tool.Error{Class: "bad_request"}},
		"an error that says nothing":     {func(*tool.Spec) {}, errors.New("no")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls []tool.Call
			s := spec("a", c.change)
			o := runner(t, tool.Config{}, made{s, flaky(9, c.err, &calls)}).Do(t.Context(), call("a"), s, quiet)
			require.Equal(t, tool.Failed, o.State)
			require.Len(t, calls, 1)
			require.Equal(t, 1, o.Attempts)
		})
	}
}

func TestAProvidersWaitIsKeptWithinTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls []tool.Call
		s := spec("a", func(s *tool.Spec) { s.Timeout = time.Minute })
		slow := &tool.Error{Class: "rate_limited", Retryable: true, RetryAfter: 20 * time.Second}
		r := runner(t, tool.Config{}, made{s, flaky(1, slow, &calls)})
		began := time.Now()
		require.Equal(t, tool.Succeeded, r.Do(t.Context(), call("a"), s, quiet).State)
		require.Equal(t, 20*time.Second, time.Since(began))

		calls = nil
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		began = time.Now()
		o := r.Do(ctx, call("a"), s, quiet)
		require.Equal(t, tool.Failed, o.State)
		require.Equal(t, "rate_limited", o.Err.Class)
		require.Zero(t, time.Since(began), "nobody waits for what cannot come in time")
	})
}

func TestAToolThatHangsIsLeftBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, boundary := range []tool.Boundary{tool.SafeRetry, tool.Reconcile} {
			free := make(chan struct{})
			s := spec("a", func(s *tool.Spec) { s.Boundary, s.Writes = boundary, true })
			r, m := measured(t, tool.Config{Grace: time.Second}, made{s, func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
				<-free
				return tool.Result{}, nil
			}})
			began := time.Now()
			o := r.Do(t.Context(), call("a"), s, quiet)
			require.Equal(t, 2*time.Second, time.Since(began))
			require.Equal(t, tool.TimedOut, o.State)
			require.True(t, o.Err.Unknown)
			if boundary == tool.Reconcile {
				require.Equal(t, tool.ClassOutcomeUnknown, o.Err.Class)
			} else {
				require.Equal(t, tool.ClassTimeout, o.Err.Class)
			}
			left, err := testutil.GatherAndCount(m.Registry, "openagents_runtime_tool_abandoned_total")
			require.NoError(t, err)
			require.Equal(t, 1, left)
			close(free)
		}
	})
}

func TestACancelSaysWhy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := spec("a")
		r := runner(t, tool.Config{}, made{s, func(ctx context.Context, _ tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
			<-ctx.Done()
			return tool.Result{}, &tool.Error{Class: "http", Message: "gave up", ProviderFault: true}
		}})
		ctx, cancel := context.WithCancelCause(t.Context())
		go cancel(tool.Cause("interrupted", "A frame interrupted it."))
		o := r.Do(ctx, call("a"), s, quiet)
		require.Equal(t, tool.Canceled, o.State)
		require.Equal(t, "interrupted", o.Err.Class)
		require.Equal(t, "closed", r.Breakers()[s.Provider])
		o = r.Do(ctx, call("a"), s, quiet)
		require.Equal(t, tool.Canceled, o.State)
		require.Zero(t, o.Attempts, "nothing goes out after that")
	})
}

func TestASuccessStandsThoughSomebodyWantedItToStop(t *testing.T) {
	t.Parallel()
	s := spec("a")
	ctx, cancel := context.WithCancel(t.Context())
	r := runner(t, tool.Config{}, made{s, func(ctx context.Context, _ tool.Call, _ func(json.RawMessage) error) (tool.Result, error) {
		cancel()
		return tool.Result{Output: json.RawMessage(`"sent"`)}, nil
	}})
	o := r.Do(ctx, call("a"), s, quiet)
	require.Equal(t, tool.Succeeded, o.State)
	require.JSONEq(t, `"sent"`, string(o.Output))
}

func TestAPanicFailsOneCall(t *testing.T) {
	t.Parallel()
	s := spec("a", func(s *tool.Spec) { s.Writes = true })
	o := runner(t, tool.Config{}, made{s, func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
		panic("sk-secret")
	}}).Do(t.Context(), call("a"), s, quiet)
	require.Equal(t, tool.Failed, o.State)
	require.Equal(t, tool.ClassPanic, o.Err.Class)
	require.NotContains(t, o.Err.Message, "sk-secret")
	require.True(t, o.Err.Unknown)
}

func TestTheBreakerOpensForFaultsOfTheProviderOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var err error
		var calls int
		s := spec("a")
		r := runner(t, tool.Config{}, made{s, func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
			calls++
			return tool.Result{}, err
		}})
		err = &tool.Error{Class: "http_404"}
		for range 100 {
			require.Equal(t, "http_404", r.Do(t.Context(), call("a"), s, quiet).Err.Class)
		}
		require.Equal(t, map[string]string{s.Provider: "closed"}, r.Breakers())
		err = &tool.Error{Class: "http_502", ProviderFault: true}
		for range 5 {
			require.Equal(t, "http_502", r.Do(t.Context(), call("a"), s, quiet).Err.Class)
		}
		require.Equal(t, "open", r.Breakers()[s.Provider])
		before := calls
		o := r.Do(t.Context(), call("a"), s, quiet)
		require.Equal(t, tool.ClassCircuitOpen, o.Err.Class)
		require.Equal(t, "tool_failed.provider_circuit_open", o.Err.ReasonCode)
		require.Zero(t, o.Attempts)
		require.Equal(t, before, calls)
	})
}

func TestHalfOpenLetsOneThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var in atomic.Int64
		err := error(&tool.Error{Class: "http_502", ProviderFault: true})
		s := spec("a", func(s *tool.Spec) { s.Timeout = time.Minute })
		r := runner(t, tool.Config{}, made{s, func(context.Context, tool.Call, func(json.RawMessage) error) (tool.Result, error) {
			in.Add(1)
			time.Sleep(time.Second) // of the bubble's clock: the others come meanwhile
			return tool.Result{}, err
		}})
		for range 5 {
			r.Do(t.Context(), call("a"), s, quiet)
		}
		for _, worked := range []bool{false, true} {
			in.Store(0)
			time.Sleep(31 * time.Second)
			require.Equal(t, "half_open", r.Breakers()[s.Provider])
			if worked {
				err = nil
			}
			var wg sync.WaitGroup
			var refused atomic.Int64
			for range 64 {
				wg.Go(func() {
					if o := r.Do(t.Context(), call("a"), s, quiet); o.Err != nil && o.Err.Class == tool.ClassCircuitOpen {
						refused.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 1, in.Load())
			require.EqualValues(t, 63, refused.Load())
			require.Equal(t, map[bool]string{false: "open", true: "closed"}[worked], r.Breakers()[s.Provider])
		}
	})
}

func TestAFallbackIsVisible(t *testing.T) {
	t.Parallel()
	fault := &tool.Error{Class: "http_502", ProviderFault: true}
	first := func(change ...func(*tool.Spec)) tool.Spec {
		return spec("a", append(change, func(s *tool.Spec) { s.Fallback = "b" })...)
	}
	for name, c := range map[string]struct {
		spec tool.Spec
		err  error
		may  bool
		asks bool
	}{
		"asked":                {first(), fault, true, true},
		"policy did not say":   {first(), fault, false, false},
		"our own fault":        {first(), &tool.Error{Class: "ssrf_block.private_address"}, true, false},
		"it may have happened": {first(func(s *tool.Spec) { s.Writes = true }), &tool.Error{Class: "cut", ProviderFault: true, Unknown: true}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := spec("b")
			r := runner(t, tool.Config{}, made{c.spec, fails(c.err)}, made{b, gives(`1`)})
			k := call("a")
			k.MayFallBack = c.may
			o := r.Do(t.Context(), k, c.spec, quiet)
			if !c.asks {
				require.Equal(t, tool.Failed, o.State)
				require.Empty(t, o.PrimaryProvider)
				return
			}
			require.Equal(t, tool.Succeeded, o.State)
			require.Equal(t, b.Provider, o.Provider)
			require.Equal(t, c.spec.Provider, o.PrimaryProvider)
			require.Equal(t, "http_502", o.FallbackReason)
			require.Equal(t, 2, o.Attempts)
			require.Zero(t, r.Running("provider", b.Provider))
		})
	}
}

func TestWhatBecameOfACallIsAsked(t *testing.T) {
	t.Parallel()
	s := spec("a", func(s *tool.Spec) { s.Boundary, s.Writes = tool.Reconcile, true })
	cut := fails(&tool.Error{Class: "cut", Message: "the connection broke", Unknown: true, Retryable: true})
	for name, c := range map[string]struct {
		found func(context.Context, tool.Call) (tool.Result, bool, error)
		state string
		class string
	}{
		"it happened": {func(context.Context, tool.Call) (tool.Result, bool, error) {
			return tool.Result{Output: json.RawMessage(`{"id":1}`)}, true, nil
		}, tool.Succeeded, ""},
		"it did not": {func(context.Context, tool.Call) (tool.Result, bool, error) {
			return tool.Result{}, true, &tool.Error{Class: "not_sent"}
		}, tool.Failed, "not_sent"},
		"nobody knows": {func(context.Context, tool.Call) (tool.Result, bool, error) {
			return tool.Result{}, false, nil
		}, tool.Failed, tool.ClassOutcomeUnknown},
		"it breaks": {func(context.Context, tool.Call) (tool.Result, bool, error) { panic("no") }, tool.Failed, tool.ClassOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := runner(t, tool.Config{}, asked{made{s, cut}, c.found})
			o := r.Do(t.Context(), call("a"), s, quiet)
			require.Equal(t, c.state, o.State)
			require.Equal(t, 1, o.Attempts)
			if c.class != "" {
				require.Equal(t, c.class, o.Err.Class)
			}
			again, known := r.Reconcile(t.Context(), call("a"), s)
			require.Equal(t, c.class != tool.ClassOutcomeUnknown, known)
			if known {
				require.Equal(t, c.state, again.State)
			}
		})
	}
}

func TestProgressIsBoundedAndTheLatestCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const steps, pause = 20_000, time.Millisecond
		var after func(json.RawMessage) error
		s := spec("a", func(s *tool.Spec) { s.Timeout = time.Hour })
		r := runner(t, tool.Config{}, made{s, func(_ context.Context, _ tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
			after = progress
			require.Error(t, progress(json.RawMessage(`{`)))
			require.Error(t, progress(json.RawMessage(`"`+strings.Repeat("x", 2<<20)+`"`)))
			for i := range steps {
				require.NoError(t, progress(json.RawMessage(fmt.Sprint(i))))
				time.Sleep(pause)
			}
			return tool.Result{}, nil
		}})
		var shown []int
		var at []time.Time
		o := r.Do(t.Context(), call("a"), s, func(raw json.RawMessage) error {
			var i int
			require.NoError(t, json.Unmarshal(raw, &i))
			shown, at = append(shown, i), append(at, time.Now())
			return nil
		})
		require.Equal(t, tool.Succeeded, o.State)
		require.Len(t, shown, tool.ProgressTimes)
		for i := 1; i < len(shown); i++ {
			require.GreaterOrEqual(t, at[i].Sub(at[i-1]), tool.ProgressEvery)
			require.Greater(t, shown[i], shown[i-1]+100, "what came in between was skipped")
		}
		require.Error(t, after(json.RawMessage(`1`)), "nothing is heard after the end")
	})
}

func TestProgressIsCutAndRedactedLikeAnOutput(t *testing.T) {
	t.Parallel()
	s := spec("a")
	seen := make(chan json.RawMessage, 1)
	r := runner(t, tool.Config{}, made{s, func(ctx context.Context, _ tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
		if err := progress(json.RawMessage(`{"page":"` + strings.Repeat("x", 500_000) + `"}`)); err != nil {
			return tool.Result{}, err
		}
		<-seen
		return tool.Result{}, nil
	}})
	o := r.Do(t.Context(), call("a"), s, func(raw json.RawMessage) error {
		require.Less(t, len(raw), 17<<10)
		require.True(t, json.Valid(raw))
		seen <- raw
		return nil
	})
	require.Equal(t, tool.Succeeded, o.State)
}

func TestAnOutputIsBoundedAndItsHashIsOfTheWhole(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 100_000)
	for name, output := range map[string]string{
		"an object": `{"status":200,"text":"` + long + `"}`,
		"a string":  `"` + long + `"`,
		"an array":  `[` + strings.Repeat(`{"a":1},`, 50_000) + `0]`,
		"members":   `{` + members(20_000) + `"last":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec("a", func(s *tool.Spec) { s.MaxOutput = 4096 })
			o := runner(t, tool.Config{}, made{s, gives(output)}).Do(t.Context(), call("a"), s, quiet)
			require.Equal(t, tool.Succeeded, o.State)
			require.True(t, o.Truncated)
			require.LessOrEqual(t, len(o.Output), 4096)
			whole, err := canon.JSON([]byte(output))
			require.NoError(t, err)
			require.Equal(t, canon.Hash(whole), o.OutputHash)
			again, err := canon.JSON(o.Output)
			require.NoError(t, err)
			require.Equal(t, string(again), string(o.Output), "what is stored is canonical")
			if name == "an object" {
				require.Contains(t, string(o.Output), `"status":200`, "the shape stays")
			}
		})
	}
}

func members(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\"m%d\":%d,", i, i)
	}
	return b.String()
}

func TestAnyOutputFitsTheLog(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                            `null`,
		"\"a\xffb\"":                  "\"a\uFFFDb\"",
		`"\ud800"`:                    "\"\uFFFD\"",
		`{"a":1,"a":2}`:               `{"a":2}`,
		`{"id":12345678901234567890}`: `{"id":"12345678901234567890"}`,
		`[1,"x",null]`:                `[1,"x",null]`,
	} {
		s := spec("a")
		o := runner(t, tool.Config{}, made{s, gives(given)}).Do(t.Context(), call("a"), s, quiet)
		require.Equal(t, tool.Succeeded, o.State, "%q", given)
		require.Equal(t, want, string(o.Output))
	}
	for _, given := range []string{`{`, `1 2`, `<html>`} {
		s := spec("a")
		o := runner(t, tool.Config{}, made{s, gives(given)}).Do(t.Context(), call("a"), s, quiet)
		require.Equal(t, tool.ClassOutput, o.Err.Class, "%q", given)
	}
}

func TestAnOutputMustBeWhatTheToolPromises(t *testing.T) {
	t.Parallel()
	s := spec("a", func(s *tool.Spec) {
		s.Output = json.RawMessage(`{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}`)
	})
	o := runner(t, tool.Config{}, made{s, gives(`{"n":"hunter2"}`)}).Do(t.Context(), call("a"), s, quiet)
	require.Equal(t, tool.Failed, o.State)
	require.Equal(t, tool.ClassOutput, o.Err.Class)
	require.Contains(t, o.Err.Message, "/n must be integer, not string")
	require.NotContains(t, o.Err.Message, "hunter2")
	require.NotEmpty(t, o.OutputHash)
}

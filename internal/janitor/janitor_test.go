package janitor_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/janitor"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// metric is the value of a sweep's counter, or how often its time was taken.
func metric(t *testing.T, m *telemetry.Metrics, name, sweep, outcome string) float64 {
	t.Helper()
	families, err := m.Registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "openagents_runtime_"+name {
			continue
		}
		for _, one := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range one.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["sweep"] == sweep && labels["outcome"] == outcome {
				return one.GetCounter().GetValue() + float64(one.GetHistogram().GetSampleCount())
			}
		}
	}
	return 0
}

func TestAPassIsCountedByHowItEnded(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	j := janitor.New(m)
	once := func(n int64, err error) janitor.Sweep {
		return janitor.Sweep{Name: "dust", Once: func(context.Context) (int64, error) { return n, err }}
	}
	require.NoError(t, j.Once(t.Context(), once(3, nil)))
	wrong := errors.New("no broom")
	require.ErrorIs(t, j.Once(t.Context(), once(2, wrong)), wrong)
	require.ErrorContains(t, j.Once(t.Context(), janitor.Sweep{Name: "dust", Once: func(context.Context) (int64, error) { panic("a mouse") }}), "a mouse")

	for outcome, want := range map[string]float64{"ok": 1, "error": 1, "panic": 1} {
		require.InDelta(t, want, metric(t, m, "sweep_passes_total", "dust", outcome), 0, outcome)
	}
	require.InDelta(t, 5, metric(t, m, "sweep_changes_total", "dust", ""), 0)
	require.InDelta(t, 3, metric(t, m, "sweep_seconds", "dust", ""), 0)
}

// Neither an error nor a panic nor a pass that does not end keeps the other
// sweeps, or the same one later, from being made.
func TestSweepsGoOnWhateverOneOfThemDoes(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	passes := make(chan string, 100)
	sweep := func(name string, then func(context.Context) (int64, error)) janitor.Sweep {
		return janitor.Sweep{Name: name, Every: time.Millisecond, Once: func(ctx context.Context) (int64, error) {
			select {
			case passes <- name:
			default:
			}
			return then(ctx)
		}}
	}
	j := janitor.New(telemetry.NewMetrics(),
		sweep("good", func(context.Context) (int64, error) { return 1, nil }),
		sweep("failing", func(context.Context) (int64, error) { return 0, errors.New("as asked") }),
		sweep("panicking", func(context.Context) (int64, error) { panic("as asked") }),
		sweep("hanging", func(ctx context.Context) (int64, error) { <-ctx.Done(); return 0, ctx.Err() }),
	)
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	seen := map[string]int{}
	for seen["good"] < 3 || seen["failing"] < 3 || seen["panicking"] < 3 || seen["hanging"] < 1 {
		select {
		case name := <-passes:
			seen[name]++
		case <-time.After(10 * time.Second):
			t.Fatal("only these passes were made: ", seen)
		}
	}
	stop()
	require.NoError(t, <-ended)
	require.Equal(t, 1, seen["hanging"])
}

package telemetry_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics()
	m.Counter("things_total", "Things that were done.", telemetry.Outcome).WithLabelValues("ok").Inc()
	m.Seconds("thing_seconds", "Time of a thing.").WithLabelValues().Observe(.1)
	m.Sizes("thing_units", "Units of a thing.", 8).WithLabelValues().Observe(3)
	m.Gauge("open_things", "Things that are open.").WithLabelValues().Set(1)
	problems, err := testutil.GatherAndLint(m.Registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	count, err := testutil.GatherAndCount(m.Registry, "openagents_runtime_things_total")
	require.NoError(t, err)
	require.Equal(t, 1, count)
}

func TestAnUnboundedLabelCannotBeNamed(t *testing.T) {
	t.Parallel()
	for _, name := range []telemetry.Label{"run_id", "seq", "tool_call_id", "user_id"} {
		require.Panics(t, func() { telemetry.NewMetrics().Counter("x_total", "x.", name) })
	}
}

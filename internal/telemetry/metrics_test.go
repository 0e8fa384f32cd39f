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
	m.Counter(telemetry.LeaseAcquires).WithLabelValues("ok").Inc()
	m.Seconds(telemetry.LogCommitSeconds).WithLabelValues().Observe(.1)
	m.Sizes(telemetry.LogCommitUnits, 8).WithLabelValues().Observe(3)
	m.Gauge(telemetry.ExecutorActive).WithLabelValues().Set(1)
	problems, err := testutil.GatherAndLint(m.Registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	count, err := testutil.GatherAndCount(m.Registry, "openagents_runtime_lease_acquires_total")
	require.NoError(t, err)
	require.Equal(t, 1, count)
}

func TestAnUnboundedLabelCannotBeNamed(t *testing.T) {
	t.Parallel()
	for _, name := range []telemetry.Label{"run_id", "seq", "tool_call_id", "user_id"} {
		require.Panics(t, func() {
			telemetry.NewMetrics().Counter(telemetry.Metric{Name: "x_total", Help: "x.", Labels: []telemetry.Label{name}})
		})
	}
}

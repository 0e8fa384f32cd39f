package stream

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// outcome is how a stream ended.
type outcome string

const (
	done       outcome = "done"        // after [DONE]
	clientGone outcome = "client_gone" // the client closed the connection
	slowReader outcome = "slow_reader" // it did not read for as long as a write may take
	drained    outcome = "drained"     // the process shuts down
	expired    outcome = "expired"     // the token that opened it has expired
	failed     outcome = "failed"      // the log could not be read, or a fault of ours
)

type metrics struct {
	open    prometheus.Gauge
	blocks  prometheus.Counter
	ends    *prometheus.CounterVec
	catchUp prometheus.Observer
}

func newMetrics(m *telemetry.Metrics) metrics {
	return metrics{
		open:    m.Gauge(telemetry.StreamReaders).WithLabelValues(),
		blocks:  m.Counter(telemetry.StreamBlocks).WithLabelValues(),
		ends:    m.Counter(telemetry.StreamEnds),
		catchUp: m.Seconds(telemetry.StreamCatchUp).WithLabelValues(),
	}
}

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
		open:   m.Gauge("stream_readers", "Streams that are open.").WithLabelValues(),
		blocks: m.Counter("stream_blocks_total", "Events sent to readers.").WithLabelValues(),
		ends:   m.Counter("stream_ends_total", "Streams that ended, by how; all but done were broken off.", telemetry.Outcome),
		catchUp: m.Seconds("stream_catch_up_seconds",
			"Time from opening a stream until its reader had all events that were there, if there were any.").WithLabelValues(),
	}
}

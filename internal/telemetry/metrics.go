// Package telemetry names metrics, log fields and trace ids, and says which labels a metric may carry.
package telemetry

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const namespace = "openagents_runtime"

// Label is a metric label. The list is closed: a label whose values grow with
// the traffic (a run, a seq, a tool call, a user) cannot be named.
type Label string

// The labels that exist, with what bounds their values.
const (
	Operation   Label = "operation"    // operationIds of the contract
	StatusClass Label = "status_class" // 2xx 4xx 5xx
	Outcome     Label = "outcome"      // a closed set per metric
	EventType   Label = "event_type"   // types of openapi/events.yaml
	ReasonClass Label = "reason_class" // ReasonClass of the contract
	RunStatus   Label = "run_status"   // RunStatus of the contract
	Provider    Label = "provider"     // configured providers
	Reason      Label = "reason"       // refusal reasons of auth, ssrf_block codes of the taxonomy
	Signature   Label = "signature"    // signatures in schemas/ds
	Sweep       Label = "sweep"        // sweeps that cmd/openagents-runtime names
)

// Metrics makes and registers the metrics of one process. Each room asks for
// its own when it is built.
type Metrics struct{ Registry *prometheus.Registry }

// NewMetrics makes a registry that has the Go and process metrics.
func NewMetrics() *Metrics {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return &Metrics{Registry: r}
}

// Counter registers a counter; its name ends in _total.
func (m *Metrics) Counter(d Metric) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: d.Name, Help: d.Help}, names(d.Labels))
	m.Registry.MustRegister(c)
	return c
}

// Gauge registers a gauge; its name ends in its unit.
func (m *Metrics) Gauge(d Metric) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: d.Name, Help: d.Help}, names(d.Labels))
	m.Registry.MustRegister(g)
	return g
}

// Seconds registers a histogram of durations from 0.5 ms to a minute; its name
// ends in _seconds.
func (m *Metrics) Seconds(d Metric) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: d.Name, Help: d.Help,
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, names(d.Labels))
	m.Registry.MustRegister(h)
	return h
}

// Sizes registers a histogram of counts, by powers of two up to limit.
func (m *Metrics) Sizes(d Metric, limit int) *prometheus.HistogramVec {
	var buckets []float64
	for b := 1; b <= limit; b *= 2 {
		buckets = append(buckets, float64(b))
	}
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: d.Name, Help: d.Help, Buckets: buckets}, names(d.Labels))
	m.Registry.MustRegister(h)
	return h
}

func names(labels []Label) []string {
	out := make([]string, len(labels))
	for i, l := range labels {
		if !known[l] {
			panic(fmt.Sprintf("telemetry: label %q is not in the list", l))
		}
		out[i] = string(l)
	}
	return out
}

var known = map[Label]bool{
	Operation: true, StatusClass: true, Outcome: true, EventType: true, ReasonClass: true,
	RunStatus: true, Provider: true, Reason: true, Signature: true, Sweep: true,
}

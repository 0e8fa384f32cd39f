package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

// Check is one thing that a process needs before it takes requests.
type Check struct {
	Name string
	// Ready returns nil, or what is missing. Its words go to the log and not to
	// the caller.
	Ready func(ctx context.Context) error
}

// OpsConfig is what the operations listener tells about.
type OpsConfig struct {
	Version string
	// Checks must all pass for the process to be ready: the database, the
	// migrations, that the process does not drain.
	Checks []Check
	// Timeout is for all checks together; 3 s when zero.
	Timeout time.Duration
	Logger  *slog.Logger
	Metrics *telemetry.Metrics
}

// NewOps makes the handler of the operations listener: /healthz, /readyz,
// /metrics and /debug/pprof. It asks for no token, so it belongs on an address
// that only the platform reaches, and it has none of the API's routes.
func NewOps(c OpsConfig) http.Handler {
	if c.Timeout == 0 {
		c.Timeout = 3 * time.Second
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		tellOps(w, http.StatusOK, map[string]string{"status": "ok", "version": c.Version})
	})
	mux.HandleFunc("GET /readyz", c.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(c.Metrics.Registry, promhttp.HandlerOpts{
		Registry: c.Metrics.Registry, ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelError),
	}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// ready answers 200 when every check passes, else 503, and says which did not.
func (c OpsConfig) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), c.Timeout)
	defer cancel()
	status, checks := http.StatusOK, map[string]string{}
	for _, check := range c.Checks {
		checks[check.Name] = "ok"
		if err := check.Ready(ctx); err != nil {
			status, checks[check.Name] = http.StatusServiceUnavailable, "failing"
			c.Logger.WarnContext(ctx, "the process is not ready", "check", check.Name, "error", err.Error())
		}
	}
	word := "ready"
	if status != http.StatusOK {
		word = "not ready"
	}
	tellOps(w, status, map[string]any{"status": word, "checks": checks})
}

func tellOps(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A probe that does not take its answer has left.
	_ = json.NewEncoder(w).Encode(body)
}

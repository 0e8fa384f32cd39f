package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/telemetry"
)

func get(t *testing.T, h http.Handler, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", target, nil))
	return w
}

func TestReadinessNamesWhatFailsAndKeepsTheCauseInTheLog(t *testing.T) {
	t.Parallel()
	var failure error
	log := &lines{}
	ops := server.NewOps(server.OpsConfig{Version: "1.2.3", Metrics: telemetry.NewMetrics(), Logger: telemetry.NewLogger(log, slog.LevelInfo), Checks: []server.Check{
		{Name: "database", Ready: func(context.Context) error { return failure }},
		{Name: "migrations", Ready: func(context.Context) error { return nil }},
	}})
	require.Equal(t, http.StatusOK, get(t, ops, "/readyz").Code)
	failure = errors.New("password of runtime is wrong")
	w := get(t, ops, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.JSONEq(t, `{"status":"not ready","checks":{"database":"failing","migrations":"ok"}}`, w.Body.String())
	require.Equal(t, "password of runtime is wrong", log.named(t, "the process is not ready")[0]["error"])
	require.Equal(t, http.StatusOK, get(t, ops, "/healthz").Code, "the process itself is well")
	var health map[string]string
	require.NoError(t, json.Unmarshal(get(t, ops, "/healthz").Body.Bytes(), &health))
	require.Equal(t, map[string]string{"status": "ok", "version": "1.2.3"}, health)
}

func TestReadinessGivesUpOnACheckThatHangs(t *testing.T) {
	t.Parallel()
	ops := server.NewOps(server.OpsConfig{Metrics: telemetry.NewMetrics(), Logger: slog.New(slog.DiscardHandler), Timeout: 1, Checks: []server.Check{
		{Name: "database", Ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
	}})
	require.Equal(t, http.StatusServiceUnavailable, get(t, ops, "/readyz").Code)
}

func TestMetricsAndProfilesAreOnTheOperationsListenerAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{health: healthy})
	r.do(r.health(t))
	ops := server.NewOps(server.OpsConfig{Metrics: r.metrics, Logger: slog.New(slog.DiscardHandler)})
	w := get(t, ops, "/metrics")
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Body.String(), `openagents_runtime_http_requests_total{operation="health",status_class="2xx"} 1`)
	require.Contains(t, w.Body.String(), `openagents_runtime_http_request_seconds_count{operation="health"} 1`)
	problems, err := promlint.New(w.Body).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	for _, target := range []string{"/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline", "/debug/pprof/symbol"} {
		require.Equal(t, http.StatusOK, get(t, ops, target).Code, target)
	}
	for _, op := range api.Operations() {
		require.Equal(t, http.StatusNotFound, get(t, ops, op.Path).Code, op.Path)
	}
}

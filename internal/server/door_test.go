package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTheTraceIsReturnedAndLogged(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{health: healthy})
	q := r.health(t)
	q.Header.Set("traceparent", parent)
	q.Header.Set("x-request-id", "req-of-the-caller")
	w := r.do(q)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "req-of-the-caller", w.Header().Get("x-request-id"))
	require.Equal(t, parent, w.Header().Get("traceparent"))
	line := r.log.named(t, "request")[0]
	require.Equal(t, "req-of-the-caller", line["x_request_id"])
	require.Equal(t, "0af7651916cd43dd8448eb211c80319c", line["trace_id"])
	require.Equal(t, "health", line["operation"])
	require.Equal(t, "tester", line["actor"])
	require.EqualValues(t, 200, line["status"])
	require.NotContains(t, logged(r), q.Header.Get(auth.SignatureHeader))
}

func TestAPanicIsAnEnvelopeAndOneLogLine(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{health: func(context.Context) (api.HealthResponseObject, error) { panic("the secret cause") }})
	w := r.do(r.health(t))
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Equal(t, api.Internal, errorOf(t, w).Code)
	require.NotContains(t, w.Body.String(), "secret")
	line := r.log.named(t, "a handler panicked")
	require.Len(t, line, 1)
	require.Equal(t, "the secret cause", line[0]["panic"])
	require.Equal(t, errorOf(t, w).RequestID, line[0]["x_request_id"])
	require.Contains(t, line[0]["stack"], "door_test.go")
}

// written answers a part and goes wrong.
type written struct{ then func() error }

func (a written) VisitHealthResponse(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusOK)
	_, err := w.Write([]byte("{"))
	return errors.Join(err, a.then())
}

func TestWhatGoesWrongAfterTheFirstByteBreaksTheConnection(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func() error{
		"a panic": func() error { panic("late") }, "an error": func() error { return errors.New("late") }, "an abort": func() error { panic(http.ErrAbortHandler) },
	} {
		r := newRig(t, answers{health: func(context.Context) (api.HealthResponseObject, error) { return written{then}, nil }})
		w := httptest.NewRecorder()
		require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { r.ServeHTTP(w, r.health(t)) }, name)
		require.Equal(t, "{", w.Body.String(), "nothing is added to what went out")
		require.Len(t, r.log.named(t, "request"), 1)
	}
}

func TestAClientThatLeavesIsNoFaultOfTheService(t *testing.T) {
	t.Parallel()
	r := newRig(t, fails(context.Canceled))
	ctx, leave := context.WithCancel(t.Context())
	leave()
	require.PanicsWithError(t, http.ErrAbortHandler.Error(), func() { r.do(r.health(t).WithContext(ctx)) })
	require.Equal(t, 1.0, requests(t, r, "health", "4xx"))
	require.Empty(t, r.log.named(t, "a request failed"))
}

func TestAnAnswerThatTakesTooLongIsUnavailable(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, server.Config{AnswerTimeout: 10 * time.Millisecond}, answers{health: func(ctx context.Context) (api.HealthResponseObject, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	w := r.do(r.health(t))
	require.Equal(t, api.Unavailable, errorOf(t, w).Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))
}

func TestAnErrorOfOursIsCountedAndLoggedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, fails(errors.New("a table is gone")))
	w := r.do(r.health(t))
	require.Equal(t, api.Internal, errorOf(t, w).Code)
	require.NotContains(t, w.Body.String(), "table")
	require.Len(t, r.log.named(t, "a request failed"), 1)
	require.Equal(t, 1.0, requests(t, r, "health", "5xx"))
}

// requests is how many requests of an operation were counted in a class.
func requests(t *testing.T, r *rig, operation, class string) float64 {
	t.Helper()
	families, err := r.metrics.Registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != "openagents_runtime_http_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["operation"] == operation && labels["status_class"] == class {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

func TestRoutesThatDoNotExist(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{health: healthy})
	for _, target := range []string{"/", "/internal/v1/health/", "//internal/v1/health", "/internal/v1/../v1/health", "/internal/v1/%68ealth", "/healthz"} {
		w := r.do(r.request(t, "GET", target, ""))
		require.Equal(t, api.RouteNotFound, errorOf(t, w).Code, target)
		require.Empty(t, w.Header().Get("Location"), "nothing is redirected")
	}
	for _, method := range []string{"DELETE", "PUT", "OPTIONS", "PATCH", "TRACE", "GETX"} {
		w := r.do(r.request(t, method, "/internal/v1/runs", ""))
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
		require.Equal(t, "GET, POST", w.Header().Get("Allow"))
		require.Equal(t, api.MethodNotAllowed, errorOf(t, w).Code)
	}
	require.Equal(t, http.StatusMethodNotAllowed, r.do(r.request(t, "HEAD", "/internal/v1/health", "")).Code, "a HEAD is not a GET")
	require.Equal(t, 13.0, requests(t, r, "none", "4xx"), "requests without a route share one label")
}

func TestTheContractIsToldOnlyToCallersWhoAreLetIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{})
	q := r.request(t, "POST", "/internal/v1/runs/r1/frames", `{"frameId":1}`)
	q.Header.Del(auth.SignatureHeader)
	w := r.do(q)
	require.Equal(t, api.Unauthorized, errorOf(t, w).Code)
	require.NotContains(t, w.Body.String(), "frameId")
}

func TestARefusalIsCountedByItsReason(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{})
	q := r.health(t)
	q.Header.Del(auth.SignatureHeader)
	r.do(q)
	families, err := r.metrics.Registry.Gather()
	require.NoError(t, err)
	var found bool
	for _, f := range families {
		if f.GetName() == "openagents_runtime_auth_refusals_total" {
			found = true
			require.Equal(t, "missing_token", f.GetMetric()[0].GetLabel()[0].GetValue())
			require.Equal(t, 1.0, f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	require.True(t, found)
	require.Equal(t, "missing_token", r.log.named(t, "request")[0]["reason"])
}

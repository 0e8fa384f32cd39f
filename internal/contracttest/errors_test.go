package contracttest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/server"
)

// Every code of the contract is answered by some request, with its status.
func TestEveryErrorCodeIsReached(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{Config: server.Config{BodyTimeout: 300 * time.Millisecond}})
	post := func(target, body string) contracttest.Request {
		return contracttest.Request{Method: "POST", Target: target, Body: body}
	}
	frames := func(id string) string { return "/internal/v1/runs/" + id + "/frames" }
	operator := func(target, body string) contracttest.Request {
		return contracttest.Request{Method: "POST", Target: "/internal/v1/spend/" + target, Body: body, Scope: "operator"}
	}
	const found = `{"outcome":"release","reason":"looked it up","evidence":{"lookup":"FAILED"}}`
	require.Equal(t, 200, w.Do(t, post("/internal/v1/spend/authorizations/auth-gone-1/revoke", `{"reason":"over"}`)).Status)
	requests := map[api.ErrorCode]contracttest.Request{
		api.InvalidRequest:        post("/internal/v1/runs", `{}`),
		api.InvalidJSON:           post("/internal/v1/runs", `{`),
		api.InvalidCursor:         {Target: "/internal/v1/runs/" + w.live + "/stream?cursor=x"},
		api.HistoryNotAccepted:    post(frames(w.live), `{"frameId":"f","type":"tick","payload":{"messages":[]}}`),
		api.Unauthorized:          {Target: "/internal/v1/health", Token: contracttest.NoToken},
		api.Forbidden:             {Method: "POST", Target: "/internal/v1/runs/" + w.live + "/cancel", Scope: "read"},
		api.RunNotFound:           {Target: "/internal/v1/runs/" + w.other},
		api.ThreadNotFound:        {Target: "/internal/v1/threads/nowhere/state"},
		api.RouteNotFound:         {Target: "/internal/v1/nowhere"},
		api.MethodNotAllowed:      {Method: "DELETE", Target: "/internal/v1/runs/" + w.live},
		api.RunConflict:           post("/internal/v1/runs", fmt.Sprintf(`{"runId":%q,"threadId":"t","userId":1,"authenticatedSession":true}`, w.live)),
		api.FrameConflict:         post(frames(w.live), `{"frameId":"f1","type":"tick","payload":{}}`),
		api.RunFinished:           post(frames(w.ended), `{"frameId":"f2","type":"tick","payload":{}}`),
		api.RunBusy:               post(frames(w.live), `{"frameId":"f2","type":"tick","payload":{},"mode":"reject"}`),
		api.StaleCursor:           {Target: "/internal/v1/runs/" + w.stale + "/events?cursor=1"},
		api.PayloadTooLarge:       {Target: "/internal/v1/health", Body: "{}"},
		api.ToolNotFound:          post("/internal/v1/tools/execute", execute(w.tools, "c1", "nowhere.tool")),
		api.ToolInputInvalid:      post("/internal/v1/tools/execute", execute(w.tools, "c1", contracttest.FreeTool)),
		api.PolicyDenied:          post("/internal/v1/tools/execute", execute(w.tools, "c2", contracttest.DeniedTool)),
		api.ToolCallConflict:      post("/internal/v1/tools/execute", execute(w.tools, "call-free", contracttest.FreeTool)),
		api.ToolTaskNotFound:      {Target: "/internal/v1/tool-tasks/nowhere"},
		api.ApprovalNotFound:      {Target: "/internal/v1/approvals/" + w.guestApprovals[0]},
		api.ApprovalClosed:        post("/internal/v1/approvals/"+w.approvals[0]+"/decision", `{"decision":"rejected"}`),
		api.ApprovalChanged:       post("/internal/v1/approvals/"+w.approvals[1]+"/decision", `{"decision":"rejected","argsHash":"sha256:`+strings.Repeat("0", 64)+`"}`),
		api.ManifestInvalid:       post("/internal/v1/skills/tool-specs", toolSpec("acme.find", 1, `,"integration_manifest":{}`)),
		api.SpecConflict:          post("/internal/v1/skills/tool-specs", toolSpec("acme.stored", 1, `,"commercial":{"pricing_model":"free"}`)),
		api.SpecNotFound:          {Target: "/internal/v1/skills/releases/nowhere/1"},
		api.AuthorizationNotFound: {Target: "/internal/v1/spend/authorizations/nowhere"},
		api.AuthorizationConflict: post("/internal/v1/spend/authorizations",
			`{"authorization":{"authorization_id":"auth-1","scope_kind":"owner","mode":"deny","max_total_sats":1,"expires_at":"2099-01-01T00:00:00Z"}}`),
		api.AuthorizationChanged: operator("authorizations/auth-1/amend", `{"revision":9,"reason":"x","changes":{"max_total_sats":5}}`),
		api.AuthorizationInUse:   operator("authorizations/auth-2/amend", `{"revision":1,"reason":"x","changes":{"max_total_sats":1}}`),
		api.AuthorizationClosed:  operator("authorizations/auth-gone-1/amend", `{"revision":2,"reason":"x","changes":{"max_total_sats":5}}`),
		api.ReservationNotFound:  operator("reservations/"+w.tools+"/nowhere/reconcile", found),
		api.ReservationSettled:   operator("reservations/"+w.tools+"/call-free/reconcile", found),
		api.UnsupportedMediaType: {Method: "POST", Target: "/internal/v1/runs", Body: "x", Header: http.Header{"Content-Type": {"text/plain"}}},
	}
	r, err := run.Get(t.Context(), w.Pool, run.Everybody, w.tools)
	require.NoError(t, err)
	held, ok := runtest.Hold(t, w.Process, r)
	require.True(t, ok)
	a := w.Do(t, operator("reservations/"+w.tools+"/call-asked-2/reconcile", found))
	runtest.LetGo(held)
	reached := map[api.ErrorCode]bool{api.ReservationAtWork: a.Code() == string(api.ReservationAtWork)}
	for code, q := range requests {
		a := w.Do(t, q)
		require.Equal(t, string(code), a.Code(), "answered %d %s", a.Status, a.Body)
		reached[code] = true
	}
	reached[api.RequestTimeout] = slowBody(t, w)
	for _, code := range []api.ErrorCode{api.TooManyFrames, api.OwnerBusy, api.Overloaded} {
		reached[code] = refused(t, code)
	}
	reached[api.Internal] = broken(t, func(s *server.Server) api.StrictServerInterface { return panickingGetRun{s} }) == api.Internal
	reached[api.Unavailable] = broken(t, func(s *server.Server) api.StrictServerInterface { return busyGetRun{s} }) == api.Unavailable
	for _, code := range api.ErrorCodes() {
		require.True(t, reached[code], "no request is answered %s", code)
	}
	require.Len(t, reached, len(api.ErrorCodes()))
}

func execute(runID, callID, name string) string {
	return fmt.Sprintf(`{"runId":%q,"toolCallId":%q,"tool":%q,"input":{}}`, runID, callID, name)
}

type busyGetRun struct{ *server.Server }

func (busyGetRun) GetRun(context.Context, api.GetRunRequestObject) (api.GetRunResponseObject, error) {
	return nil, fmt.Errorf("get run: %w", runlog.ErrBusy)
}

func broken(t *testing.T, wrap func(*server.Server) api.StrictServerInterface) api.ErrorCode {
	t.Helper()
	r := contracttest.New(t, dbtest.New(t), contracttest.Options{Answers: wrap})
	a := r.Do(t, contracttest.Request{Target: "/internal/v1/runs/r1"})
	require.NotContains(t, string(a.Body), "broken on purpose", "the cause is for the log")
	return api.ErrorCode(a.Code())
}

// slowBody sends half a body and waits for the answer.
func slowBody(t *testing.T, w *world) bool {
	t.Helper()
	s := &siege{world: w}
	c := s.dial(t)
	c.send(t, s.head(t, s.cancel())+"Content-Length: 19\r\n\r\n{")
	resp := c.answer(t)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, w.Check(contracttest.Answer{Operation: "cancelRun", Status: resp.StatusCode, Header: resp.Header, Body: body}))
	return resp.StatusCode == http.StatusRequestTimeout
}

// A database that does not answer is 503 with a time to wait, on every
// operation, and health says so too.
func TestWithoutADatabaseEveryOperationIsUnavailable(t *testing.T) {
	t.Parallel()
	pool, err := pgxpool.New(t.Context(), dbtest.URL(t))
	require.NoError(t, err)
	w := newWorld(t, contracttest.Options{})
	r := contracttest.New(t, pool, contracttest.Options{})
	pool.Close()
	for _, op := range api.Operations() {
		f := newFuzzer(w, op, 1)
		q := f.draft().request(f)
		a := r.Do(t, q)
		require.Equal(t, http.StatusServiceUnavailable, a.Status, "%s: %s", op.ID, a.Body)
		require.NotEmpty(t, a.Header.Get("Retry-After"))
	}
}

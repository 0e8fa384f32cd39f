package server_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
)

func TestMessagesSayWhatToChange(t *testing.T) {
	t.Parallel()
	const start, frames = "/internal/v1/runs", "/internal/v1/runs/r1/frames"
	r := newRig(t, answers{})
	for _, c := range []struct{ method, target, body, pointer, message string }{
		{"POST", start, `{"threadId":"t","authenticatedSession":true}`, "", "body: lacks runId"},
		{"POST", start, `[]`, "", "body: must be an object; PHP encodes an empty array as [], send {} instead"},
		{"POST", start, `{"runId":"r","threadId":"t","authenticatedSession":true,"toolPolicy":[]}`, "/toolPolicy",
			"body /toolPolicy: must be an object; PHP encodes an empty array as [], send {} instead"},
		{"POST", start, `{"runId":"r","threadId":"t","authenticatedSession":"yes"}`, "/authenticatedSession", "body /authenticatedSession: must be a boolean"},
		{"POST", start, `{"runId":"r","threadId":"t","authenticatedSession":true,"limits":{"maxSteps":0}}`, "/limits/maxSteps", "body /limits/maxSteps: must be at least 1"},
		{"POST", start, `{"runId":"r","threadId":"t","authenticatedSession":true,"limits":{"maxSteps":10001}}`, "/limits/maxSteps", "body /limits/maxSteps: must be at most 10000"},
		{"POST", start, `{"runId":"r","threadId":"t","authenticatedSession":true,"user_id":1}`, "/user_id",
			"body /user_id: is no member that the contract knows here; leave it out"},
		{"POST", start, `{"runId":"","threadId":"t","authenticatedSession":true}`, "/runId", "body /runId: must have 1 character or more"},
		{"POST", start, `{"runId":"r/1","threadId":"t","authenticatedSession":true}`, "/runId", "body /runId: must match ^[A-Za-z0-9][A-Za-z0-9._:-]*$"},
		{"POST", start, `{"runId":"r","threadId":"t","authenticatedSession":true,"toolPolicy":{"allow":["a",7]}}`, "/toolPolicy/allow/1", "body /toolPolicy/allow/1: must be a string"},
		{"POST", frames, `{"frameId":"` + strings.Repeat("f", 201) + `","type":"tick","payload":{}}`, "/frameId", "body /frameId: must have at most 200 characters"},
		{"POST", frames, `{"frameId":"f","type":"tick","payload":"x"}`, "/payload", "body /payload: must be an object"},
		{"POST", frames, ``, "", "body: must be sent, as application/json"},
	} {
		e := errorOf(t, r.do(r.request(t, c.method, c.target, c.body)))
		require.Equal(t, api.InvalidRequest, e.Code, c.body)
		require.Equal(t, c.message, e.Message)
		require.Equal(t, c.pointer, e.Details["pointer"])
	}
	for _, c := range []struct {
		target, message string
		code            api.ErrorCode
	}{
		{"/internal/v1/runs?limit=0", "query limit: must be at least 1", api.InvalidRequest},
		{"/internal/v1/runs?limit=1&limit=2", "query limit: must come once", api.InvalidRequest},
		{"/internal/v1/runs?thread=1", "query thread: this operation has no such parameter", api.InvalidRequest},
		{"/internal/v1/runs?status=done", "query status: must be one of accepted, running, waiting, canceling, completed, failed, canceled", api.InvalidRequest},
		{"/internal/v1/runs?limit=%zz", "query: must be name=value pairs, joined by & and percent-encoded", api.InvalidRequest},
	} {
		e := errorOf(t, r.do(r.request(t, "GET", c.target, "")))
		require.Equal(t, c.code, e.Code)
		require.Equal(t, c.message, e.Message)
	}
}

// What a caller sent may be a secret, or somebody's words; an error names its
// place and never repeats it.
func TestErrorsDoNotRepeatValues(t *testing.T) {
	t.Parallel()
	const secret = "hunter2-s3cret"
	r := newRig(t, answers{})
	for _, body := range []string{
		`{"frameId":"` + secret + ` ","type":"tick","payload":{}}`, `{"frameId":"f","type":"` + secret + `","payload":{}}`,
		`{"frameId":"f","type":"tick","payload":"` + secret + `"}`, `{"frameId":"f","type":"tick","payload":{"a":"` + secret + `\ud800"}}`,
		`{"frameId":"f","type":"tick","payload":{"messages":"` + secret + `"}}`, `{"frameId":"f","type":"tick","payload":{},"x":"` + secret + `"}`,
	} {
		w := r.do(r.request(t, "POST", "/internal/v1/runs/r1/frames", body))
		require.GreaterOrEqual(t, w.Code, 400)
		require.NotContains(t, w.Body.String(), secret, body)
	}
	w := r.do(r.request(t, "GET", "/internal/v1/runs?limit="+secret, ""))
	require.NotContains(t, w.Body.String(), secret)
	require.NotContains(t, logged(r), secret)
}

func logged(r *rig) string {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	return r.log.all.String()
}

func TestAnUnknownNameIsToldShortAndPrintable(t *testing.T) {
	t.Parallel()
	r := newRig(t, answers{})
	e := errorOf(t, r.do(r.request(t, "POST", "/internal/v1/runs/r1/frames", `{"frameId":"f","type":"tick","payload":{},"`+strings.Repeat("n", 500)+`\u0007":1}`)))
	require.Equal(t, "/"+strings.Repeat("n", 64)+"…", e.Details["pointer"])
}

// The answer sees the body as canonical JSON, with the contract's defaults in
// the query.
func TestTheBodyReachesTheAnswerAsItIs(t *testing.T) {
	t.Parallel()
	var got api.AppendFrameRequest
	r := newRig(t, answers{frame: func(_ context.Context, q api.AppendFrameRequestObject) (api.AppendFrameResponseObject, error) {
		got = *q.Body
		return api.AppendFrame202JSONResponse{}, nil
	}})
	body := ` { "type":"tick", "frameId":"f1", "payload": {"b":1.50,"a":"\u00fc\u0000<"} , "source":{"kind":"test"} }`
	require.Equal(t, 202, r.do(r.request(t, "POST", "/internal/v1/runs/r1/frames", body)).Code)
	require.Equal(t, map[string]any{"a": "ü\x00<", "b": 1.5}, got.Payload)
	require.Equal(t, "test", got.Source.Kind)
}

package contracttest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

var sameTrace = http.Header{"X-Request-Id": {"same"}, "Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}

// A run of somebody else and a run that does not exist are answered with the
// same bytes on every route.
func TestA13ThingsOfOthers(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A13", contracttest.Options{})
	routes := []contracttest.Request{
		{Target: "/internal/v1/runs/{id}"}, {Target: "/internal/v1/runs/{id}/events"}, {Target: "/internal/v1/runs/{id}/stream"},
		{Method: "HEAD", Target: "/internal/v1/runs/{id}/stream"}, {Target: "/internal/v1/runs/{id}/stream?cursor=999"},
		{Method: "POST", Target: "/internal/v1/runs/{id}/cancel"},
		{Method: "POST", Target: "/internal/v1/runs/{id}/frames", Body: `{"frameId":"f1","type":"user_message","payload":{"text":"Hi"}}`},
		{Method: "POST", Target: "/internal/v1/runs/{id}/frames", Body: `{"frameId":"f9","type":"tick","payload":{}}`},
	}
	attackers := map[string]contracttest.Request{
		"another user": {User: 3}, "another guest of the same user": {User: 1, Guest: "guest-2"}, "a guest without user": {Guest: "guest-2"},
	}
	victims := []string{s.other, s.ofGuest}
	for name, who := range attackers {
		for _, route := range routes {
			q := route
			q.User, q.Guest, q.Header = who.User, who.Guest, sameTrace
			q.Target = strings.ReplaceAll(route.Target, "{id}", "run-nowhere")
			missing := s.Do(t, q)
			require.Equal(t, http.StatusNotFound, missing.Status)
			for _, id := range victims {
				q.Target = strings.ReplaceAll(route.Target, "{id}", id)
				theirs := s.Do(t, q)
				missing.Header.Del("Date")
				theirs.Header.Del("Date")
				require.Equal(t, missing, theirs, "%s %s tells that the run exists", route.Method, q.Target)
			}
		}
		s.note(t, "runs of others, every route, as "+name, "404 run_not_found, the same bytes as for no run")
	}
	for name, q := range map[string]contracttest.Request{
		"a user who asks for a guest's run of the same user": {User: 1, Target: "/internal/v1/runs/" + s.ofGuest},
		"a guest who asks for a run of the user they share":  {User: 1, Guest: "guest-1", Target: "/internal/v1/runs/" + s.live},
	} {
		s.refuse(t, name, q, "run_not_found", "")
	}
	for name, q := range map[string]contracttest.Request{
		"another guest's thread": {User: 1, Guest: "guest-2", Target: "/internal/v1/threads/thread-1/state", Header: sameTrace},
		"no such thread":         {User: 1, Guest: "guest-2", Target: "/internal/v1/threads/nowhere/state", Header: sameTrace},
	} {
		s.refuse(t, name, q, "thread_not_found", "")
	}
	list := s.Do(t, contracttest.Request{User: 1, Guest: "guest-2", Target: "/internal/v1/runs?threadId=thread-1"})
	require.JSONEq(t, `{"runs":[]}`, string(list.Body))
	s.note(t, "another guest lists the shared thread's runs", "200, none")
	taken := contracttest.Request{Method: "POST", Target: "/internal/v1/runs", User: 3,
		Body: fmt.Sprintf(`{"runId":%q,"threadId":"thread-1","userId":3,"authenticatedSession":true}`, s.other)}
	s.refuse(t, "starting a run under another's runId", taken, "run_conflict", "")
	for name, body := range map[string]string{
		"a run for another user":           `{"runId":"r","threadId":"t","userId":2,"authenticatedSession":true}`,
		"a run for a guest not signed for": `{"runId":"r","threadId":"t","userId":1,"guestScope":"guest-1","authenticatedSession":false}`,
	} {
		s.refuse(t, name, contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: body}, "forbidden", "principal_mismatch")
	}
	guest := contracttest.Request{Method: "POST", Target: "/internal/v1/runs", User: 1, Guest: "guest-1",
		Body: `{"runId":"r","threadId":"t","userId":1,"authenticatedSession":true}`}
	s.refuse(t, "a guest starts a run for the shared user", guest, "forbidden", "principal_mismatch")
	s.refuse(t, "nobody reads a run", contracttest.Request{Nobody: true, Target: "/internal/v1/runs/" + s.live}, "unauthorized", string(auth.InvalidPrincipal))
}

func TestA14ServerOwnedFields(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A14", contracttest.Options{})
	for _, field := range []string{"seq", "epoch", "leaseEpoch", "status", "owner", "spentSats", "spent_sats", "runKey", "acceptedAt", "reasonClass", "requestHash"} {
		start := fmt.Sprintf(`{"runId":"r","threadId":"t","userId":1,"authenticatedSession":true,%q:1}`, field)
		a := s.refuse(t, field+" in startRun", contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: start}, "invalid_request", "")
		require.Equal(t, "/"+field, a.Details()["pointer"])
		frame := fmt.Sprintf(`{"frameId":"f9","type":"tick","payload":{},%q:1}`, field)
		s.refuse(t, field+" in appendFrame", contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.live + "/frames", Body: frame}, "invalid_request", "")
		cancel := fmt.Sprintf(`{%q:1}`, field)
		s.refuse(t, field+" in cancelRun", contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.live + "/cancel", Body: cancel}, "invalid_request", "")
	}
}

var sqlTexts = []string{"'; DROP TABLE runs; --", "' OR '1'='1", `"; DELETE FROM run_log; --`, "$1", "run_log_p1; VACUUM", "1) UNION SELECT 1 --", `\'; SELECT pg_sleep(10) --`}

func TestA17SQLInInputs(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A17", contracttest.Options{})
	for _, text := range sqlTexts {
		escaped := url.PathEscape(text)
		s.refuse(t, "runId "+text, contracttest.Request{Target: "/internal/v1/runs/" + escaped}, "invalid_request", "")
		s.refuse(t, "threadId "+text, contracttest.Request{Target: "/internal/v1/threads/" + escaped + "/state"}, "invalid_request", "")
		query := url.QueryEscape(text)
		s.refuse(t, "cursor "+text, contracttest.Request{Target: "/internal/v1/runs/" + s.live + "/events?cursor=" + query}, "invalid_cursor", "")
		s.refuse(t, "status "+text, contracttest.Request{Target: "/internal/v1/runs?status=" + query}, "invalid_request", "")
		s.refuse(t, "pageToken "+text, contracttest.Request{Target: "/internal/v1/runs?pageToken=" + query}, "invalid_request", "")
		frame := func(name string, body map[string]any) {
			s.refuse(t, name+" "+text, contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.live + "/frames", Body: body}, "invalid_request", "")
		}
		frame("frame type", map[string]any{"frameId": "f9", "type": text, "payload": map[string]any{}})
		frame("source kind", map[string]any{"frameId": "f9", "type": "tick", "payload": map[string]any{}, "source": map[string]any{"kind": text}})
		guest := contracttest.Request{Target: "/internal/v1/runs", Header: http.Header{"X-Oa-Guest-Scope": {text}}}
		s.refuse(t, "guest scope "+text, guest, "unauthorized", string(auth.InvalidPrincipal))
	}
	// Where any text may stand, it is stored as it is and nothing else happens.
	for i, text := range sqlTexts {
		body := map[string]any{"frameId": fmt.Sprintf("%d'--", i), "type": "tick", "payload": map[string]any{text: text}}
		a := s.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.ofGuest + "/frames", User: 1, Guest: "guest-1", Body: body})
		require.Equal(t, http.StatusAccepted, a.Status, string(a.Body))
		var stored string
		require.NoError(t, s.Pool.QueryRow(t.Context(), `SELECT payload->>$1 FROM frames WHERE frame_id = $2`, text, body["frameId"]).Scan(&stored))
		require.Equal(t, text, stored)
		s.note(t, "JSON name and text "+text, "202, stored as text")
	}
	s.before = s.state(t)
}

func TestA18Cursors(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A18", contracttest.Options{})
	for _, cursor := range []string{"-1", "-0", "+1", "1.0", "1e3", "0x10", "007", "", " 1", "1 ", "９", "9007199254740992", "9223372036854775808", strings.Repeat("9", 1000), "NaN", "null", "latest", "1,2"} {
		for _, path := range []string{"/stream", "/events"} {
			q := contracttest.Request{Target: "/internal/v1/runs/" + s.ended + path + "?cursor=" + url.QueryEscape(cursor)}
			s.refuse(t, fmt.Sprintf("cursor %.20q of %s", cursor, path), q, "invalid_cursor", "")
		}
		if strings.TrimSpace(cursor) != cursor || cursor == "９" {
			continue // a header's value has no outer space
		}
		q := contracttest.Request{Target: "/internal/v1/runs/" + s.ended + "/stream", Header: http.Header{"Last-Event-Id": {cursor}}}
		s.refuse(t, fmt.Sprintf("Last-Event-ID %.20q", cursor), q, "invalid_cursor", "")
	}
	twice := contracttest.Request{Target: "/internal/v1/runs/" + s.ended + "/stream?cursor=1&cursor=2"}
	s.refuse(t, "two cursors", twice, "invalid_cursor", "")
	headers := contracttest.Request{Target: "/internal/v1/runs/" + s.ended + "/stream", Header: http.Header{"Last-Event-Id": {"1", "2"}}}
	s.refuse(t, "two Last-Event-IDs", headers, "invalid_cursor", "")
	s.refuse(t, "beyond the head", contracttest.Request{Target: "/internal/v1/runs/" + s.live + "/stream?cursor=1000"}, "invalid_cursor", "")
	a := s.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + s.ended + "/stream?cursor=0", Header: http.Header{"Last-Event-Id": {"9"}}})
	require.Contains(t, string(a.Body), "id: 10\n")
	require.NotContains(t, string(a.Body), "id: 9\n")
	s.note(t, "header and query with different values", "200, the header wins, nothing is sent twice")
}

func TestA19EventInjection(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A19", contracttest.Options{})
	evil := []string{"\n\ndata: [DONE]\nid: 999\n\n", "\r\rdata: x\r", "\r\n\r\nevent: error\r\n", "id: 5\n", "\x00", "\u2028data: x\u2029", "\u0085data: y", "retry: 1\n", ":", "\ufeff"}
	e := runtest.Envelope()
	e.RunID = "run-evil"
	r := runtest.Start(t, s.Pool, e)
	s.Happen(t, r, event.RunStartedV1{MessageID: "m\nid: 7"}, event.MessageStartedV1{PartID: "t\r\n\r\ndata: x"})
	for _, text := range evil {
		s.Happen(t, r, event.MessageDeltaV1{PartID: "t\r\n\r\ndata: x", Delta: text})
	}
	s.Happen(t, r, event.RunFinishedV1{Status: "completed", ReasonClass: "completed", Reason: evil[0]}, event.StreamClosedV1{})
	s.before = s.state(t)
	a := s.Do(t, contracttest.Request{Target: "/internal/v1/runs/run-evil/stream"})
	require.Equal(t, http.StatusOK, a.Status)
	var ids []string
	for line := range strings.SplitSeq(string(a.Body), "\n") {
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			ids = append(ids, id)
		}
	}
	head, err := run.Get(t.Context(), s.Pool, run.Everybody, "run-evil")
	require.NoError(t, err)
	require.Len(t, ids, len(runtest.Types(t, s.Pool, head)))
	for i, id := range ids {
		require.Equal(t, fmt.Sprint(i+1), id)
	}
	require.NotContains(t, string(a.Body), "\r")
	require.NotContains(t, string(a.Body), "\x00")
	require.Equal(t, 1, strings.Count(string(a.Body), "\ndata: [DONE]\n"))
	s.note(t, fmt.Sprintf("%d deltas and ids with line ends, fields and NUL", len(evil)+1), "one block per event, ids in order, one [DONE]")
	for _, text := range []string{"a\r\nid: 1", "a\nb", "a\x00", "a b"} {
		frame := map[string]any{"frameId": text, "type": "tick", "payload": map[string]any{}}
		s.refuse(t, fmt.Sprintf("frameId %q", text), contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.live + "/frames", Body: frame}, "invalid_request", "")
		start := map[string]any{"runId": text, "threadId": "t", "userId": 1, "authenticatedSession": true}
		s.refuse(t, fmt.Sprintf("runId %q", text), contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: start}, "invalid_request", "")
	}
}

func TestA22Bodies(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A22", contracttest.Options{})
	frames := "/internal/v1/runs/" + s.live + "/frames"
	wrap := func(payload string) string { return `{"frameId":"f9","type":"tick","payload":{"a":` + payload + `}}` }
	var keys strings.Builder
	for i := range 1_000_000 {
		fmt.Fprintf(&keys, `"k%d":1,`, i)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 64 {
		_, err := z.Write(bytes.Repeat([]byte(" "), 1<<20))
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	require.Less(t, bomb.Len(), 262144)
	for name, c := range map[string]struct {
		body    any
		chunked bool
		header  http.Header
		code    string
	}{
		"one byte over the limit":         {strings.Repeat(" ", 262145), false, nil, "payload_too_large"},
		"over the limit, length not said": {strings.Repeat(" ", 262145), true, nil, "payload_too_large"},
		"1,000,000 keys":                  {`{"frameId":"f9","type":"tick","payload":{` + keys.String() + `"z":1}}`, false, nil, "payload_too_large"},
		"20,000 keys":                     {`{"frameId":"f9","type":"tick","payload":{` + keys.String()[:nth(keys.String(), ',', 20_000)] + `}}`, false, nil, "invalid_request"},
		"gzip bomb":                       {bomb.Bytes(), false, http.Header{"Content-Encoding": {"gzip"}}, "unsupported_media_type"},
		"gzip without saying so":          {bomb.Bytes(), false, nil, "invalid_json"},
		"100,000 arrays deep":             {wrap(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)), false, nil, "invalid_json"},
		"20,000 objects deep":             {wrap(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)), false, nil, "invalid_json"},
		"a number of 100,000 digits":      {wrap(strings.Repeat("9", 100_000)), false, nil, "invalid_json"},
		"a fraction of 100,000 digits":    {wrap("1e" + strings.Repeat("9", 100_000)), false, nil, "invalid_json"},
		"a name twice":                    {wrap(`1,"a":2`), false, nil, "invalid_json"},
		"a name twice, escaped":           {wrap(`1,"\u0061":2`), false, nil, "invalid_json"},
		"a lone surrogate":                {wrap(`"\ud800"`), false, nil, "invalid_json"},
		"surrogates the wrong way round":  {wrap(`"\udc00\ud800"`), false, nil, "invalid_json"},
		"invalid UTF-8":                   {wrap("\"\xc3\x28\""), false, nil, "invalid_json"},
		"an overlong form":                {wrap("\"\xc0\xaf\""), false, nil, "invalid_json"},
		"NaN":                             {wrap("NaN"), false, nil, "invalid_json"},
		"Infinity":                        {wrap("-Infinity"), false, nil, "invalid_json"},
		"two values":                      {wrap("1") + wrap("2"), false, nil, "invalid_json"},
		"a comment":                       {wrap("1/*x*/"), false, nil, "invalid_json"},
		"a byte order mark":               {"\ufeff" + wrap("1"), false, nil, "invalid_json"},
		"a form":                          {"a=1", false, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "unsupported_media_type"},
		"UTF-16":                          {"\xff\xfe{\x00}\x00", false, http.Header{"Content-Type": {"application/json; charset=utf-16"}}, "unsupported_media_type"},
		"a body for an operation without": {nil, false, nil, "invalid_request"},
		"text of 100,001 characters":      {`{"frameId":"f9","type":"user_message","payload":{"text":"` + strings.Repeat("x", 100_001) + `"}}`, false, nil, "invalid_request"},
		"a payload of 257 members":        {`{"frameId":"f9","type":"tick","payload":{` + keys.String()[:nth(keys.String(), ',', 257)] + `}}`, false, nil, "invalid_request"},
		"a frame id of 201 characters":    {`{"frameId":"` + strings.Repeat("f", 201) + `","type":"tick","payload":{}}`, false, nil, "invalid_request"},
	} {
		q := contracttest.Request{Method: "POST", Target: frames, Body: c.body, Chunked: c.chunked, Header: c.header}
		s.refuse(t, name, q, c.code, "")
	}
	s.refuse(t, "a body with a GET", contracttest.Request{Target: "/internal/v1/runs", Body: "{}"}, "payload_too_large", "")
}

// nth is where the n-th c stands in text.
func nth(text string, c byte, n int) int {
	for i := range len(text) {
		if text[i] == c {
			if n--; n == 0 {
				return i
			}
		}
	}
	return len(text)
}

func TestA23Numbers(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A23", contracttest.Options{})
	for number, code := range map[string]string{
		"9007199254740993": "invalid_json", "9007199254740992": "invalid_json", "18446744073709551616": "invalid_json", "1e400": "invalid_json",
		"9223372036854775807": "invalid_json", "-9007199254740993": "invalid_json", "-0": "invalid_request", "-1": "invalid_request",
		"0.1": "invalid_request", "0": "invalid_request", "1e300": "invalid_request", `"1"`: "invalid_request", "01": "invalid_json", "1000000001": "invalid_request",
	} {
		body := `{"runId":"r","threadId":"t","userId":1,"authenticatedSession":true,"limits":{"maxTokens":` + number + `}}`
		s.refuse(t, "limits.maxTokens "+number, contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: body}, code, "")
	}
	for _, number := range []string{"9007199254740993", "1e400", "123456789012345678", "9007199254740993.0"} {
		body := `{"frameId":"f9","type":"tool_result","payload":{"amount_sats":` + number + `}}`
		a := s.refuse(t, "payload.amount_sats "+number, contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + s.live + "/frames", Body: body}, "invalid_json", "")
		require.Equal(t, "/payload/amount_sats", a.Details()["pointer"])
	}
}

func TestA52TraceHeaders(t *testing.T) {
	t.Parallel()
	s := besiege(t, "A52", contracttest.Options{})
	for name, h := range map[string]http.Header{
		"an oversize traceparent":        {"Traceparent": {"00-" + strings.Repeat("a", 8000)}},
		"an oversize tracestate":         {"Tracestate": {strings.Repeat("a=b,", 2000)}},
		"an oversize request id":         {"X-Request-Id": {strings.Repeat("r", 8000)}},
		"a request id with log text":     {"X-Request-Id": {`x","level":"ERROR","msg":"forged`}},
		"a request id with a space":      {"X-Request-Id": {"a b"}},
		"a request id not in ASCII":      {"X-Request-Id": {"\xff\xfe"}},
		"a traceparent of zeros":         {"Traceparent": {"00-00000000000000000000000000000000-0000000000000000-00"}},
		"a traceparent of version ff":    {"Traceparent": {"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
		"two traceparents":               {"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319d-b7ad6b7169203331-01"}},
		"a traceparent with a line end'": {"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\\r\\nX-Evil: 1"}},
	} {
		a := s.Do(t, contracttest.Request{Target: "/internal/v1/runs/" + s.live, Header: h})
		require.Equal(t, http.StatusOK, a.Status)
		require.Regexp(t, `^req_[0-9a-f]{24}$|^[A-Za-z0-9._:-]{1,128}$`, a.Header.Get("X-Request-Id"))
		require.Regexp(t, `^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$`, a.Header.Get("Traceparent"))
		for header, values := range h {
			require.NotContains(t, values, a.Header.Get(header))
			require.NotContains(t, s.Log.String(), values[0])
		}
		require.Empty(t, a.Header.Get("X-Evil"))
		s.note(t, name, "200, replaced")
	}
	forged := contracttest.Request{Target: "/internal/v1/runs/" + s.other, Header: sameTrace}
	s.refuse(t, "the trace of another tenant's run", forged, "run_not_found", "")
	for name, header := range map[string]string{
		"a line end in a header": "x-request-id: a\rX-Evil: 1\r\n", "NUL in a header": "x-request-id: a\x00b\r\n", "a line end in a name": "x-request\n-id: a\r\n",
	} {
		resp, _ := s.raw(t, s.head(t, contracttest.Request{Target: "/internal/v1/health"})+header+"\r\n")
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
		s.note(t, name, "400 invalid_request")
	}
}

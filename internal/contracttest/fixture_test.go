package contracttest_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/run"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// fixture is one example of the contract: what is there, what is asked, what is
// answered. Times and page tokens are not the same twice, so the answer has a
// word in their place.
type fixture struct {
	Given    []step          `json:"given"`
	Request  fixtureRequest  `json:"request"`
	Response fixtureResponse `json:"response"`
}

// step is one thing that happened before; it has one of these.
type step struct {
	Request *fixtureRequest `json:"request,omitempty"`
	Events  *fixtureEvents  `json:"events,omitempty"` // as an executor appends them
	Forget  *fixtureForget  `json:"forget,omitempty"` // as retention drops them
	Hold    *fixtureHold    `json:"hold,omitempty"`   // as an executor that works on a run
	End     *fixtureEnd     `json:"end,omitempty"`    // as an executor that has carried a call out
	Money   *fixtureMoney   `json:"money,omitempty"`  // as an executor whose call spends
}

type fixtureRequest struct {
	Method     string            `json:"method"`
	Target     string            `json:"target"`
	UserID     int64             `json:"userId,omitempty"`
	GuestScope string            `json:"guestScope,omitempty"`
	Scope      auth.Scope        `json:"scope,omitempty"`
	NoToken    bool              `json:"noToken,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       json.RawMessage   `json:"body,omitempty"`
	Text       string            `json:"text,omitempty"` // a body that is not JSON
}

type fixtureEvents struct {
	RunID  string        `json:"runId"`
	Events []storedEvent `json:"events"`
}

type storedEvent struct {
	Type    string          `json:"type"`
	Version int             `json:"version"`
	Payload json.RawMessage `json:"payload"`
}

type fixtureForget struct {
	RunID string `json:"runId"`
	Seq   int64  `json:"seq"` // the newest that is dropped
}

type fixtureHold struct {
	RunID string `json:"runId"`
}

type fixtureEnd struct {
	RunID      string          `json:"runId"`
	ToolCallID string          `json:"toolCallId"`
	State      string          `json:"state"`
	Output     json.RawMessage `json:"output,omitempty"`
	ErrorClass string          `json:"errorClass,omitempty"`
	Message    string          `json:"message,omitempty"`
}

type fixtureResponse struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    any               `json:"body,omitempty"` // JSON, or the text of a stream
}

const fixtureFolder = "../../openapi/fixtures"

// fixtureTrace is what fixture requests are sent with, so that answers are the
// same each time.
var fixtureTrace = map[string]string{
	"X-Request-Id": "req_fixture", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}

func TestFixturesAreAnsweredAsWritten(t *testing.T) {
	t.Parallel()
	for _, op := range api.Operations() {
		files, err := filepath.Glob(filepath.Join(fixtureFolder, op.ID, "*.json"))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(files), 3, "%s has less than three fixtures in %s", op.ID, fixtureFolder)
		failures := 0
		for _, file := range files {
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			var f fixture
			d := json.NewDecoder(bytes.NewReader(raw))
			d.DisallowUnknownFields()
			require.NoError(t, d.Decode(&f), file)
			if f.Response.Status >= 400 {
				failures++
			}
			t.Run(op.ID+"/"+strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
				t.Parallel()
				f.check(t, op, file)
			})
		}
		require.True(t, failures > 0 || *update, "%s has no fixture of an error", op.ID)
	}
}

func (f fixture) check(t *testing.T, op api.Operation, file string) {
	rig := contracttest.New(t, dbtest.New(t), contracttest.Options{})
	for _, s := range f.Given {
		s.happen(t, rig)
	}
	a := rig.Do(t, f.Request.call())
	require.Equal(t, op.ID, a.Operation, "the fixture lies in the folder of another operation")
	got := responseOf(t, a)
	if *update {
		f.Response = got
		var out bytes.Buffer
		e := json.NewEncoder(&out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		require.NoError(t, e.Encode(f))
		require.NoError(t, os.WriteFile(file, out.Bytes(), 0o644))
		return
	}
	require.Equal(t, asJSON(t, f.Response), asJSON(t, got), "go test ./internal/contracttest -run TestFixtures -update writes the answers anew")
}

func (s step) happen(t *testing.T, rig *contracttest.Rig) {
	t.Helper()
	switch {
	case s.Request != nil:
		require.Less(t, rig.Do(t, s.Request.call()).Status, 300)
	case s.Events != nil:
		r, err := run.Get(t.Context(), rig.Pool, run.Everybody, s.Events.RunID)
		require.NoError(t, err)
		var events []event.Event
		for _, stored := range s.Events.Events {
			e, err := event.Decode(stored.Type, stored.Version, stored.Payload)
			require.NoError(t, err)
			events = append(events, e)
		}
		rig.Happen(t, r, events...)
	case s.Forget != nil:
		rig.Forget(t, s.Forget.RunID, s.Forget.Seq)
	case s.Hold != nil:
		r, err := run.Get(t.Context(), rig.Pool, run.Everybody, s.Hold.RunID)
		require.NoError(t, err)
		held, ok := runtest.Hold(t, rig.Process, r)
		require.True(t, ok)
		t.Cleanup(func() { runtest.LetGo(held) })
	case s.End != nil:
		s.End.happen(t, rig)
	case s.Money != nil:
		s.Money.happen(t, rig)
	}
}

func (e fixtureEnd) happen(t *testing.T, rig *contracttest.Rig) {
	t.Helper()
	r, err := run.Get(t.Context(), rig.Pool, run.Everybody, e.RunID)
	require.NoError(t, err)
	task, err := tool.Get(t.Context(), rig.Pool, "", e.ToolCallID, &r.RunKey)
	require.NoError(t, err)
	rig.Commit(t, r, tool.Started(task, *task.Provider, 0))
	task = tool.AfterStart(task, *task.Provider, 0)
	o := tool.Outcome{State: e.State, Output: e.Output, Provider: *task.Provider, Latency: 200 * time.Millisecond, Attempts: 1, CorrelationID: "its-own-name"}
	if e.Output != nil {
		o.OutputHash = canon.Hash(e.Output)
	}
	if e.ErrorClass != "" {
		o.Err = &tool.Error{Class: e.ErrorClass, Message: e.Message}
	}
	change, err := tool.Finished(task, o, 0)
	require.NoError(t, err)
	rig.Commit(t, r, change)
}

func (q fixtureRequest) call() contracttest.Request {
	c := contracttest.Request{
		Method: q.Method, Target: q.Target, User: q.UserID, Guest: q.GuestScope, Scope: q.Scope, Header: http.Header{},
		Nobody: q.UserID == 0 && q.GuestScope == "",
	}
	for name, value := range fixtureTrace {
		c.Header.Set(name, value)
	}
	for name, value := range q.Headers {
		c.Header.Set(name, value)
	}
	if q.NoToken {
		c.Token = contracttest.NoToken
	}
	if q.Body != nil {
		c.Body = []byte(q.Body)
	}
	if q.Text != "" {
		c.Body = q.Text
	}
	return c
}

// random are members whose values are not the same twice.
var random = regexp.MustCompile(`"(entry_id|evaluation_hash)":"[^"]+"`)

// What is not the same twice in a table.
var (
	cellMoment = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+`)
	cellEntry  = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\r\n`)
)

var (
	moment = regexp.MustCompile(`"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"`)
	token  = regexp.MustCompile(`"nextPageToken":"[^"]+"`)
)

// toldHeaders are the headers that a fixture states.
var toldHeaders = []string{
	"Content-Type", "X-Request-Id", "Traceparent", "Retry-After", "Allow", "Idempotent-Replay", "X-Oa-Run-Id", "X-Oa-Stream-Floor",
	"X-Oa-Stream-Head", "X-Oa-Stream-Closed", "X-Oa-Restart-Cursor", "X-Oa-Next-Page-Token", "X-Vercel-Ai-Ui-Message-Stream", "X-Accel-Buffering",
}

func responseOf(t *testing.T, a contracttest.Answer) fixtureResponse {
	t.Helper()
	r := fixtureResponse{Status: a.Status, Headers: map[string]string{}}
	for _, name := range toldHeaders {
		if value := a.Header.Get(name); value != "" {
			r.Headers[strings.ToLower(name)] = value
		}
	}
	if r.Headers["x-oa-next-page-token"] != "" {
		r.Headers["x-oa-next-page-token"] = "<page token>"
	}
	switch {
	case len(a.Body) == 0:
	case a.Header.Get("Content-Type") == "text/event-stream":
		r.Body = string(a.Body)
	case strings.HasPrefix(a.Header.Get("Content-Type"), "text/csv"):
		r.Body = string(cellEntry.ReplaceAll(cellMoment.ReplaceAll(a.Body, []byte("<time>")), []byte("<entry>\r\n")))
	default:
		text := token.ReplaceAll(moment.ReplaceAll(a.Body, []byte(`"<time>"`)), []byte(`"nextPageToken":"<page token>"`))
		if strings.Contains(a.Operation, "Spend") {
			text = random.ReplaceAll(text, []byte(`"$1":"<random>"`))
		}
		require.NoError(t, json.Unmarshal(text, &r.Body))
	}
	return r
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.MarshalIndent(v, "", "  ")
	require.NoError(t, err)
	return string(raw)
}

// The contract shows requests as examples; they are what people send first.
func TestTheContractsOwnExamplesAreAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, contracttest.Options{})
	doc := contracttest.Contract(t)
	sent := 0
	for _, op := range api.Operations() {
		at := "/paths/" + strings.ReplaceAll(op.Path, "/", "~1") + "/" + strings.ToLower(op.Method)
		examples, _ := doc.At(at + "/requestBody/content/application~1json/examples")
		for _, name := range slices.Sorted(maps.Keys(examples)) {
			example, _ := doc.At(at + "/requestBody/content/application~1json/examples/" + name)
			target := strings.NewReplacer("{runId}", w.live, "{toolCallId}", w.calls[0], "{approvalId}", w.approvals[1], "{authorizationId}", w.auths[0]).Replace(op.Path)
			q := contracttest.Request{Method: op.Method, Target: target, Body: example["value"]}
			if op.Scope == api.ScopeOperator {
				q.Scope = auth.Operator
			}
			body, _ := example["value"].(map[string]any)
			want := http.StatusAccepted
			switch op.ID {
			case "startRun":
				q.User, q.Guest = mustInt(t, body["userId"]), asText(body["guestScope"])
			case "executeTool":
				body["runId"] = w.tools
			case "cancelToolTask":
				q.Target += "?runId=" + w.tools
			case "putToolSpec", "putSkillSpec":
				want = http.StatusOK
			case "createSpendAuthorization":
				authorization := body["authorization"].(map[string]any)
				authorization["expires_at"] = "2099-01-01T00:00:00Z" // of the example's time
				want = http.StatusOK
			case "amendSpendAuthorization":
				body["changes"].(map[string]any)["max_total_sats"] = 1_500_000 // of the example's budget
				want = http.StatusOK
			case "revokeSpendAuthorization", "recoverStuckSpend":
				want = http.StatusOK
			case "reconcileSpendReservation":
				q.Target = strings.NewReplacer(w.live, w.tools, w.calls[0], w.calls[2]).Replace(target)
				want = http.StatusOK
			case "decideApproval":
				delete(body, "argsHash") // of the example's call
				want = http.StatusOK
			}
			require.Equal(t, want, w.Do(t, q).Status, "%s, example %s", op.ID, name)
			sent++
		}
	}
	require.GreaterOrEqual(t, sent, 4)
}

func mustInt(t *testing.T, v any) int64 {
	t.Helper()
	n, ok := v.(json.Number)
	require.True(t, ok, "%v is no number", v)
	i, err := n.Int64()
	require.NoError(t, err)
	return i
}

func asText(v any) string {
	s, _ := v.(string)
	return s
}

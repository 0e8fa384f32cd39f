package contracttest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/db"
	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/executor"
	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/policy"
	"github.com/openagentsinc/openagents-runtime/internal/predict"
	"github.com/openagentsinc/openagents-runtime/internal/runlog"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/server"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/email"
	"github.com/openagentsinc/openagents-runtime/internal/tool/github"
	"github.com/openagentsinc/openagents-runtime/internal/tool/httpfetch"
)

// stranger is a server that somebody else runs.
type stranger struct {
	*httptest.Server
	mu  sync.Mutex
	got []string // requests as they came
}

func newStranger(t *testing.T, answer http.HandlerFunc) *stranger {
	t.Helper()
	s := &stranger{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		var all strings.Builder
		fmt.Fprintf(&all, "%s %s\nHost: %s\n", r.Method, r.RequestURI, r.Host)
		_ = r.Header.Write(&all) // into memory
		all.Write(body)
		s.mu.Lock()
		s.got = append(s.got, all.String())
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return s
}

func (s *stranger) address() string { return s.Listener.Addr().String() }

// requests are those that came.
func (s *stranger) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// What the workshop's tools prove themselves with.
const (
	codeSecret = "the-secret-of-the-code-provider"
	mailSecret = "the-secret-of-the-mail-provider"
)

// workshop is the API with an executor at work and the tools that are shipped.
// Its model does whatever it is told, by anybody.
type workshop struct {
	*siege
	web, code, mail *stranger
	model           *obedient
	seen            int
}

type workshopOptions struct {
	web    http.HandlerFunc
	guard  egress.GuardConfig
	tools  []tool.Tool
	policy string // the service's file
}

// openWorkshop starts one; web answers what http.fetch reads.
func openWorkshop(t *testing.T, id string, o workshopOptions) *workshop {
	t.Helper()
	w := &workshop{model: &obedient{}}
	if o.web == nil {
		o.web = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "A page.") }
	}
	w.web = newStranger(t, o.web)
	w.code = newStranger(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"number":1,"title":"An issue","state":"open","body":"It is broken."}`)
	})
	w.mail = newStranger(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":"m1"}`) })
	secrets, err := secret.New(secret.Config{Static: map[string]string{"github": codeSecret, "email": mailSecret}})
	require.NoError(t, err)
	guard := func(s *stranger) egress.GuardConfig {
		g := o.guard
		g.Exceptions = append(slices.Clone(g.Exceptions), s.address())
		return g
	}
	pages, err := httpfetch.New(httpfetch.Config{Guard: guard(w.web), MaxText: 4 << 10})
	require.NoError(t, err)
	code, err := github.New(github.Config{BaseURL: w.code.URL, Repositories: []string{"ours/*"}, Guard: guard(w.code), Secrets: secrets})
	require.NoError(t, err)
	mail, err := email.New(email.Config{BaseURL: w.mail.URL, From: "agent@example.com", Recipients: []string{"@example.com"}, Guard: guard(w.mail), Secrets: secrets})
	require.NoError(t, err)
	catalog, err := tool.NewCatalog(slices.Concat([]tool.Tool{pages.Fetch(), pages.Request(), mail}, code.All(), o.tools)...)
	require.NoError(t, err)
	rules := policy.Default()
	if o.policy != "" {
		rules, err = policy.Parse([]byte(o.policy))
		require.NoError(t, err)
	}
	pool := dbtest.New(t)
	var runner *tool.Runner
	rig := contracttest.New(t, pool, contracttest.Options{Tools: &server.Tools{Catalog: catalog, Rules: rules, Breakers: func() map[string]string { return runner.Breakers() }}})
	runner = tool.NewRunner(tool.Config{FirstWait: time.Millisecond, Grace: 100 * time.Millisecond}, catalog, rig.Process.Metrics)
	w.siege = &siege{world: &world{Rig: rig, t: t}, id: id}
	w.work(t, executor.Tools{Catalog: catalog, Runner: runner, Policy: rules})
	return w
}

// work starts the executor.
func (w *workshop) work(t *testing.T, tools executor.Tools) {
	t.Helper()
	p := w.Process
	config := executor.DefaultConfig()
	config.Tick = 20 * time.Millisecond
	e := executor.New(config, w.Pool, p.Watch, p.Leases, predict.NewCaller(w.model, p.Metrics), tools, p.Metrics)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
}

// obedient is a model that calls what the newest message tells it to call:
// `CALL name {arguments} END`, and repeats everything else.
type obedient struct {
	mu       sync.Mutex
	requests []model.Request
	spelled  []string
}

var order = regexp.MustCompile(`(?s)CALL (\S+) (\{.*?\}) END`)

func (*obedient) Info() model.Info { return model.Info{Provider: "script", Model: "obedient"} }

func (o *obedient) Stream(ctx context.Context, req model.Request, emit func(model.Event) error) (model.Result, error) {
	o.mu.Lock()
	o.requests = append(o.requests, req)
	spelled := o.spelled
	o.spelled = nil
	o.mu.Unlock()
	if spelled != nil {
		return model.NewScript(model.Say(spelled...)).Stream(ctx, req, emit)
	}
	var told string
	for _, m := range slices.Backward(req.Messages) {
		if m.Role == model.RoleAssistant {
			break
		}
		content := m.Content
		if m.Role == model.RoleTool { // JSON, whose texts have orders in them
			content = strings.ReplaceAll(content, `\"`, `"`)
		}
		told = content + "\n" + told
	}
	var t model.Turn
	for i, m := range order.FindAllStringSubmatch(told, -1) {
		t.Events = append(t.Events, model.Event{Kind: model.CallsTool, ToolCall: &model.ToolCall{ID: fmt.Sprint("c", i), Name: m[1], Arguments: json.RawMessage(m[2])}})
	}
	if len(t.Events) == 0 {
		for word := range strings.FieldsSeq(told[:min(len(told), 2000)]) {
			t.Events = append(t.Events, model.Event{Kind: model.TextDelta, Delta: word + " "})
		}
	}
	return model.NewScript(t).Stream(ctx, req, emit)
}

// spell makes the next answer one of these pieces.
func (o *obedient) spell(pieces []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spelled = pieces
}

// shown is all that the model was shown.
func (o *obedient) shown() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all strings.Builder
	for _, r := range o.requests {
		for _, m := range r.Messages {
			all.WriteString(m.Content + "\n")
		}
	}
	return all.String()
}

// call tells the model to call a tool.
func call(name string, input any) string {
	b, err := json.Marshal(input)
	if err != nil {
		panic(err) // a test's own value
	}
	return "CALL " + name + " " + string(b) + " END"
}

// begin starts a run under a tool policy and tells it something.
func (w *workshop) begin(t *testing.T, toolPolicy map[string]any, text string, change ...func(map[string]any, *contracttest.Request)) db.Run {
	t.Helper()
	w.seen++
	id := fmt.Sprintf("run-%d", w.seen)
	body := map[string]any{"runId": id, "threadId": "thread-" + id, "userId": 1, "authenticatedSession": true}
	if toolPolicy != nil {
		body["toolPolicy"] = toolPolicy
	}
	start := contracttest.Request{Method: "POST", Target: "/internal/v1/runs", Body: body}
	frame := contracttest.Request{Method: "POST", Target: "/internal/v1/runs/" + id + "/frames",
		Body: map[string]any{"frameId": "f1", "type": "user_message", "payload": map[string]any{"text": text}}}
	for _, f := range change {
		f(body, &start)
		frame.Guest, frame.Header = start.Guest, start.Header
	}
	require.Equal(t, http.StatusAccepted, w.Do(t, start).Status)
	require.Equal(t, http.StatusAccepted, w.Do(t, frame).Status)
	r, err := db.New(w.Pool).RunGet(t.Context(), id)
	require.NoError(t, err)
	return r
}

// finish waits for a run's end and checks that its log is whole: each call and
// the run end once, and the chain verifies.
func (w *workshop) finish(t *testing.T, r db.Run) []event.ToolFinishedV1 {
	t.Helper()
	w.Process.WaitFor(t, r, event.TypeRunFinished)
	ends := eventsOf[event.ToolFinishedV1](t, w, r)
	once := map[string]bool{}
	for _, e := range ends {
		require.False(t, once[e.ToolCallID], "call %s has ended twice", e.ToolCallID)
		once[e.ToolCallID] = true
	}
	require.Len(t, eventsOf[event.ToolRequestedV1](t, w, r), len(ends))
	require.Len(t, eventsOf[event.RunFinishedV1](t, w, r), 1)
	_, err := runlog.Verify(t.Context(), w.Pool, r.RunKey, r.RunID)
	require.NoError(t, err)
	return ends
}

func eventsOf[E event.Event](t *testing.T, w *workshop, r db.Run) (out []E) {
	t.Helper()
	require.NoError(t, runlog.Each(t.Context(), w.Pool, r.RunKey, 0, func(row db.RunLog) error {
		e, err := runlog.Decode(row)
		if err != nil {
			return err
		}
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
		return nil
	}))
	return out
}

// outcomes are how the run's calls ended, in the order in which they were asked
// for: tool, state, class of the error, and policy's reason when it refused.
func (w *workshop) outcomes(t *testing.T, r db.Run) (out []string) {
	t.Helper()
	w.finish(t, r)
	rows, err := w.Pool.Query(t.Context(), `SELECT concat_ws(' ', tool_name, state, error_class, CASE WHEN decision <> 'allowed' THEN reason_code END)
		FROM tool_tasks WHERE run_key = $1 ORDER BY step, call_index`, r.RunKey)
	require.NoError(t, err)
	out, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return out
}

// agreed is a run whose owner agrees to whatever it asks, and its outcomes.
func (w *workshop) agreed(t *testing.T, r db.Run) []string {
	t.Helper()
	bell := w.Process.Watch.Run(r.RunKey)
	defer bell.Close()
	agreedTo := 0
	for late := time.After(30 * time.Second); len(eventsOf[event.RunFinishedV1](t, w, r)) == 0; {
		if asked := len(eventsOf[event.ApprovalRequestedV1](t, w, r)); asked > agreedTo {
			agreedTo = asked
			w.decide(t, r, "approved")
		}
		select {
		case <-bell.C:
		case <-time.After(20 * time.Millisecond):
		case <-late:
			require.FailNow(t, "the run does not end", "%v", runtest.Types(t, w.Pool, r))
		}
	}
	return w.outcomes(t, r)
}

// decide answers what a run asks.
func (w *workshop) decide(t *testing.T, r db.Run, decision string) {
	t.Helper()
	w.Process.WaitFor(t, r, event.TypeApprovalRequested)
	for _, a := range eventsOf[event.ApprovalRequestedV1](t, w, r) {
		answer := w.Do(t, contracttest.Request{Method: "POST", Target: "/internal/v1/approvals/" + a.ApprovalID + "/decision",
			Body: map[string]any{"decision": decision}})
		require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	}
}

// everything is all that is stored, as text.
func (w *workshop) everything(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, table := range []string{"runs", "frames", "run_log", "run_log_deltas", "tool_tasks", "approvals", "ds_policy_evaluations", "ds_predict_receipts", "checkpoints"} {
		var rows string
		require.NoError(t, w.Pool.QueryRow(t.Context(), `SELECT coalesce(string_agg(x::text, E'\n'), '') FROM `+table+` x`).Scan(&rows))
		all.WriteString(rows + "\n")
	}
	return all.String()
}

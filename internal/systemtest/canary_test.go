package systemtest_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// canaries are secrets that are planted and must turn up nowhere.
type canaries struct {
	mu    sync.Mutex
	all   map[string]string // the secret, and where it was planted
	known []string          // what the process was started with
}

// cage makes a secret of each known shape for a place, and remembers them.
func (c *canaries) cage(place string) []string {
	jwt := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+rand.Text()+`"}`)) + "." + rand.Text()
	fresh := []string{
		"ghp_" + rand.Text() + rand.Text()[:10], "sk-proj-" + rand.Text() + rand.Text(), "AKIA" + rand.Text()[:16],
		"xoxb-1234567890-" + rand.Text(), "re_" + rand.Text() + "x7", jwt,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range fresh {
		c.all[s] = place
	}
	return append(fresh, c.known...)
}

// text is a sentence with all of them.
func (c *canaries) text(place string) string {
	return "Keep " + strings.Join(c.cage(place), " and ") + " to yourself."
}

// one is a single secret of a known shape.
func (c *canaries) one(place string) string { return c.cage(place)[0] }

// requireAbsent looks for every secret.
func (c *canaries) requireAbsent(t *testing.T, where, text string) {
	t.Helper()
	require.NotEmpty(t, text, where)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.known {
		c.all[s] = "the settings"
	}
	for s, place := range c.all {
		// Six characters may have been shown before anybody could tell.
		for _, form := range []string{s, s[6:], url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s))} {
			if at := strings.Index(text, form); at >= 0 {
				t.Errorf("a secret of %s is in %s: …%s…", place, where, text[max(0, at-200):min(len(text), at+len(form)+20)])
			}
		}
	}
}

// What is kept on purpose looks random, too.
const (
	anID    = "run_0123456789abcdef01234567"
	aUUID   = "550e8400-e29b-41d4-a716-446655440000"
	aHash   = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	aCommit = "3f786850e387550fdab836ed7e6dc881de23001b"
	aNumber = "12345678901234567890"
)

var harmless = []string{anID, aUUID, aHash, aCommit, aNumber, "an ordinary sentence"}

// Secrets are planted wherever somebody can bring a text in, and looked for
// wherever one comes out.
func TestSecretsStayOutOfEverythingThatIsKeptOrTold(t *testing.T) {
	t.Parallel()
	c := &canaries{all: map[string]string{}, known: []string{"signing-" + rand.Text(), "the-model-key-" + rand.Text(), "tool-secret-" + rand.Text(), "db-password-" + rand.Text()}}
	ordinary := strings.Join(harmless, " ")

	// The page says a secret in its text, its title and its headers.
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", c.one("a page's headers"))
		w.Header().Set("Content-Type", "text/html")
		if strings.Contains(r.URL.Path, "missing") {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintf(w, "<title>%s</title><p>%s</p><p>%s</p><a href=\"/x?access_token=%s\">go</a>",
			c.one("a page's title"), ordinary, c.text("a page"), c.one("a page's link"))
	}))
	t.Cleanup(pages.Close)
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		b, _ := json.Marshal(map[string]string{"message": c.text("a provider's refusal") + r.Header.Get("Authorization")})
		_, _ = w.Write(b)
	}))
	t.Cleanup(github.Close)
	hooks := newHooks(t, c)
	model := newEndpoint(t, func(shown []message) turn { return c.play(shown, pages.URL) })

	database := dbtest.URL(t)
	u, err := url.Parse(database)
	require.NoError(t, err)
	q := u.Query()
	q.Set("password", c.known[3])
	u.RawQuery = q.Encode()
	settings := filepath.Join(t.TempDir(), "hooks.json")
	require.NoError(t, os.WriteFile(settings, hooks.file(t), 0o600))
	s := serve(t, u.String(),
		"RUNTIME_SIGNATURE_SECRET="+secret+",k2:"+c.known[0],
		"MODEL_PROVIDER=openai", "MODEL_NAME=m", "MODEL_BASE_URL="+model.URL+"/v1", "MODEL_API_KEY="+c.known[1], "MODEL_MAX_RETRIES=0",
		"RUNTIME_TOOL_SECRETS=github="+c.known[2], "RUNTIME_GITHUB_URL="+github.URL, "RUNTIME_HOOKS="+settings,
		"RUNTIME_EGRESS_ALLOW="+pages.Listener.Addr().String()+","+github.Listener.Addr().String(),
		"RUNTIME_LOG_LEVEL=debug")
	v := &visitor{t: t, s: s, c: c}

	v.talk(ordinary)
	v.fail()
	v.execute(pages.URL)
	v.cancel()
	v.knock()

	for where, text := range v.told() {
		c.requireAbsent(t, where, text)
	}
	c.requireAbsent(t, "what the model was shown", model.requests())
	c.requireAbsent(t, "what hooks were told", hooks.asked())
	c.requireAbsent(t, "the process's log", s.out.String())
	c.requireAbsent(t, "the metrics", page(t, s))
	tables := dump(t, database)
	for table, text := range tables {
		if text != "" {
			c.requireAbsent(t, table, text)
		}
	}
	// The log of a run and the rows have what was meant to be kept.
	for _, kept := range harmless {
		for _, table := range []string{"run_log.payload", "frames.payload", "tool_tasks.output"} {
			require.Contains(t, tables[table], kept, table)
		}
		require.Contains(t, model.requests(), kept)
	}
	require.Contains(t, tables["run_log.payload"], "[REDACTED]")
	require.NotEmpty(t, tables["ds_predict_receipts.receipt"])
	require.NotEmpty(t, tables["tool_tasks.receipt"])
	for _, decided := range []string{"tool.late", "approval.decided", "run.hook_applied", "run.hook_error", "tool.replayed", "policy.decision", "run.cancel_requested"} {
		require.Contains(t, tables["run_log.event_type"], decided, "the test has not seen %s", decided)
	}
}

// play is what the model says: it uses the tools, then repeats what it was shown,
// in pieces, and says what it should not know.
func (c *canaries) play(shown []message, pages string) turn {
	asked := lastText(shown)
	switch n := len(since(shown)); {
	case strings.Contains(asked, "FAIL"):
		return turn{status: http.StatusUnauthorized, body: `{"error":{"message":"Incorrect API key: ` + c.known[1] + `","type":"` + c.one("the model's refusal") + `","code":"` + c.one("the model's refusal") + `"}}`}
	case strings.Contains(asked, "TOOLS") && n == 0:
		return turn{pieces: []string{"I look."}, calls: []toolCall{
			{"http_fetch", map[string]any{"url": pages + "/a?access_token=" + c.one("a call's query") + "&q=" + aUUID, "headers": map[string]any{"accept": "text/html"}}},
			{"http_fetch", map[string]any{"url": pages + "/missing/" + c.one("a call's path")}},
			{"github_get_issue", map[string]any{"repository": "a/b", "number": 1}},
			{"ask_person", map[string]any{"question": c.text("a call of the client"), "id": anID, "password": "short1"}},
			{"ask_first", map[string]any{"question": c.text("a call that a person must approve"), "id": anID}},
			{"http_request", map[string]any{"url": pages, "method": "POST", "body": c.text("a body")}},
			{"no_such_tool", map[string]any{"text": c.text("a call of no tool")}},
			{"http_fetch", map[string]any{"url": 7, "text": c.text("an input that does not fit")}},
		}}
	default:
		all := "I saw: "
		for _, m := range since(shown) {
			all += m.Content[:min(len(m.Content), 200)] + "\n"
		}
		all += c.text("what a model says")
		var pieces []string
		for len(all) > 0 {
			n := min(5, len(all))
			pieces, all = append(pieces, all[:n]), all[n:]
		}
		return turn{pieces: pieces}
	}
}

// hookServer answers hooks with secrets.
type hookServer struct {
	*httptest.Server
	mu  sync.Mutex
	all []string
}

func newHooks(t *testing.T, c *canaries) *hookServer {
	t.Helper()
	h := &hookServer{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		h.mu.Lock()
		h.all = append(h.all, string(body))
		h.mu.Unlock()
		var answer map[string]any
		switch r.URL.Path {
		case "/context":
			answer = map[string]any{"prepend_context": "Context. " + c.text("a hook's context")}
		case "/prompt":
			answer = map[string]any{"system_prompt": "You are a test. " + c.text("a hook's prompt")}
		case "/input":
			answer = map[string]any{"input": map[string]any{"headers": map[string]any{"accept": "text/html", "accept-language": c.one("a hook's input")}}}
			if !strings.Contains(string(body), "http.fetch") {
				w.WriteHeader(http.StatusNoContent)
				return
			}
		case "/wrong":
			answer = map[string]any{c.one("a hook's key"): c.text("a hook's wrong answer")}
		default:
			http.Error(w, c.text("a hook's failure"), http.StatusInternalServerError)
			return
		}
		b, _ := json.Marshal(answer)
		_, _ = w.Write(b)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hookServer) asked() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Join(h.all, "\n")
}

func (h *hookServer) file(t *testing.T) []byte {
	t.Helper()
	var all []map[string]any
	for path, phase := range map[string]string{"context": "before_step", "prompt": "before_step", "input": "before_tool_call", "wrong": "before_step", "fails": "after_tool_call"} {
		all = append(all, map[string]any{"id": path, "phase": phase, "url": h.URL + "/" + path})
	}
	b, err := json.Marshal(map[string]any{"hooks": all})
	require.NoError(t, err)
	return b
}

// visitor brings secrets in, and keeps all that it is answered.
type visitor struct {
	t    *testing.T
	s    *server
	c    *canaries
	runs []string
	all  strings.Builder
}

// ask sends a request with secrets in all headers that may say anything.
func (v *visitor) ask(method, what string, body any) answer {
	v.t.Helper()
	req := request(v.t, method, v.s.api, what, body)
	req.Header.Set("X-Request-Id", v.c.one("the request id"))
	req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	req.Header.Set("Tracestate", "vendor="+v.c.one("the trace state"))
	req.Header.Set("User-Agent", v.c.text("the user agent"))
	req.Header.Set("Baggage", "key="+v.c.one("the baggage"))
	a := do(v.t, req)
	require.NoError(v.t, a.err)
	fmt.Fprintln(&v.all, method, a.status, a.body)
	return a
}

func (v *visitor) must(method, what string, body any) answer {
	v.t.Helper()
	a := v.ask(method, what, body)
	require.Less(v.t, a.status, 300, "%s %s: %s", method, what, a.body)
	return a
}

func (v *visitor) start(keepOpen bool) string {
	runID := uuid.NewString()
	v.runs = append(v.runs, runID)
	v.must(http.MethodPost, "/runs", map[string]any{
		"runId": runID, "threadId": "thread-" + aUUID, "userId": userID, "authenticatedSession": true, "keepOpen": keepOpen,
		"toolPolicy": map[string]any{"allow": []string{"*"}, "deny": []string{v.c.one("a policy's list")}, "requireApproval": []string{"ask.first"}},
		"clientTools": []map[string]any{
			{"name": "ask.person", "description": "Asks. " + v.c.text("a client tool"), "inputSchema": map[string]any{"type": "object", "description": v.c.text("a client tool's schema")}},
			{"name": "ask.first", "description": "Asks first.", "inputSchema": map[string]any{"type": "object"}},
		},
	})
	return runID
}

func (v *visitor) frame(runID, kind string, payload map[string]any) {
	v.t.Helper()
	v.must(http.MethodPost, "/runs/"+runID+"/frames", map[string]any{
		"frameId": uuid.NewString(), "type": kind, "payload": payload,
		"source": map[string]any{"kind": "laravel_api", "requestId": v.c.one("a frame's source")},
	})
}

// talk has a conversation that uses all kinds of tools.
func (v *visitor) talk(ordinary string) {
	runID := v.start(true)
	follow := stream(v.t, v.s.api, runID, 0)
	v.frame(runID, "user_message", map[string]any{"text": "TOOLS " + ordinary + " " + v.c.text("a user's text"),
		"attachments": []any{map[string]any{"api_key": v.c.one("an attachment"), "note": v.c.text("an attachment")}}})
	v.decide(runID, "rejected")
	v.decide(runID, "approved")
	for _, tool := range []string{"ask.person", "ask.first"} {
		call := v.call(runID, tool)
		if tool == "ask.person" {
			v.frame(runID, "tool_result", map[string]any{"toolCallId": call, "output": map[string]any{"text": ordinary + v.c.text("a client's result"), "secret": v.c.one("a client's result")}})
		} else {
			v.frame(runID, "tool_result", map[string]any{"toolCallId": call, "errorText": v.c.text("a client's error")})
		}
		v.frame(runID, "tool_result", map[string]any{"toolCallId": call, "output": v.c.text("a late result")})
	}
	v.frame(runID, "webhook", map[string]any{"password": "hunter2", "note": v.c.text("a webhook"), "nested": `{"token":"` + v.c.one("a webhook") + `"}`})
	v.frame(runID, "user_message", map[string]any{"text": "And again? " + v.c.text("a second text")})
	v.finished(runID, 7)
	v.must(http.MethodPost, "/runs/"+runID+"/cancel", map[string]any{"reason": v.c.text("a cancel's reason")})
	v.all.WriteString(follow.rest(v.t).body)
}

// log is a run's whole log, page by page.
func (v *visitor) log(runID string) string {
	v.t.Helper()
	var all strings.Builder
	for cursor := int64(0); ; {
		a := call(v.t, http.MethodGet, v.s.api, fmt.Sprintf("/runs/%s/events?limit=1000&cursor=%d", runID, cursor), nil)
		require.Equal(v.t, http.StatusOK, a.status, a.body)
		all.WriteString(a.body + "\n")
		var page struct {
			NextCursor int64
			UpToDate   bool
		}
		require.NoError(v.t, json.Unmarshal([]byte(a.body), &page))
		if cursor = page.NextCursor; page.UpToDate {
			return all.String()
		}
	}
}

// finished waits until the run has finished so many frames.
func (v *visitor) finished(runID string, frames int) {
	v.until(runID, "frame.finished", func(log string) bool { return strings.Count(log, `"frame.finished"`) >= frames })
}

func (v *visitor) until(runID, what string, holds func(log string) bool) string {
	v.t.Helper()
	var log string
	late := time.After(patience)
	for {
		log = v.log(runID)
		if holds(log) {
			return log
		}
		select {
		case <-time.After(tick):
		case <-late:
			require.FailNow(v.t, "never: "+what, "the log ends with %s", log[max(0, len(log)-3000):])
		}
	}
}

// decide answers what the run asks about one tool.
func (v *visitor) decide(runID, decision string) {
	v.t.Helper()
	tool := map[string]string{"rejected": "http.request", "approved": "ask.first"}[decision]
	var list struct {
		Approvals []struct {
			ApprovalID, State, ToolCallID string
			Request                       map[string]any
		}
	}
	var found string
	require.Eventually(v.t, func() bool {
		require.NoError(v.t, json.Unmarshal([]byte(v.ask(http.MethodGet, "/approvals?state=pending&runId="+runID, nil).body), &list))
		for _, a := range list.Approvals {
			if a.Request["tool_name"] == tool || a.Request["tool"] == tool {
				found = a.ApprovalID
			}
		}
		return found != ""
	}, patience, tick, "nobody is asked about %s", tool)
	v.must(http.MethodPost, "/approvals/"+found+"/decision", map[string]any{"decision": decision, "reason": v.c.text("a decision's reason")})
}

// call waits until a client tool is to be carried out, and gives its call's id.
func (v *visitor) call(runID, tool string) (id string) {
	v.t.Helper()
	v.until(runID, "a call of "+tool, func(log string) bool {
		first, _, _ := strings.Cut(log, "\n") // it has the calls
		var page struct {
			Events []struct {
				EventType string
				Payload   struct {
					ToolCallID string `json:"tool_call_id"`
					ToolName   string `json:"tool_name"`
				}
			}
		}
		require.NoError(v.t, json.Unmarshal([]byte(first), &page), log)
		asked := ""
		for _, e := range page.Events {
			switch {
			case e.EventType == "tool.requested" && e.Payload.ToolName == tool:
				asked = e.Payload.ToolCallID
			case e.EventType == "tool.started" && e.Payload.ToolCallID == asked:
				id = asked
			}
		}
		return id != ""
	})
	return id
}

// fail has a run whose model's endpoint refuses.
func (v *visitor) fail() {
	runID := v.start(false)
	v.frame(runID, "user_message", map[string]any{"text": "FAIL " + v.c.text("a text that fails")})
	v.all.WriteString(stream(v.t, v.s.api, runID, 0).rest(v.t).body)
}

// execute calls tools from outside.
func (v *visitor) execute(pages string) {
	runID := v.start(true)
	for name, input := range map[string]map[string]any{
		"http.fetch": {"url": pages + "/x?api_key=" + v.c.one("a call from outside")}, "github.get_issue": {"repository": "a/b", "number": 2},
		"no.tool": {"text": v.c.text("a call from outside of no tool")}, "email.send": {"to": v.c.text("a call from outside")},
	} {
		v.ask(http.MethodPost, "/tools/execute?wait=20000", map[string]any{"runId": runID, "toolCallId": "x-" + name, "tool": name, "input": input})
	}
	v.ask(http.MethodPost, "/tools/execute", map[string]any{"runId": runID, "toolCallId": "bad", "tool": "http.fetch", "input": map[string]any{"url": v.c.text("a bad input"), v.c.one("a member's name"): 1}})
	v.must(http.MethodPost, "/tools/execute", map[string]any{"runId": runID, "toolCallId": "asked", "tool": "http.request", "input": map[string]any{"url": pages, "method": "POST", "body": v.c.text("a body from outside")}})
	v.must(http.MethodPost, "/tool-tasks/asked/cancel?runId="+runID, map[string]any{"reason": v.c.text("a tool cancel's reason")})
}

// cancel ends a run with a reason.
func (v *visitor) cancel() {
	runID := v.start(true)
	v.must(http.MethodPost, "/runs/"+runID+"/cancel", map[string]any{"reason": v.c.text("a reason")})
	v.all.WriteString(stream(v.t, v.s.api, runID, 0).rest(v.t).body)
}

// knock sends what is refused at the door.
func (v *visitor) knock() {
	runID := v.runs[0]
	for _, what := range []string{
		"/runs/" + runID + "/stream?cursor=" + v.c.one("a cursor"), "/" + v.c.one("a path"), "/runs/" + v.c.one("a run's id"),
		"/approvals?pageToken=" + v.c.one("a page token"), "/runs/" + runID + "?" + v.c.one("a query's name") + "=1",
	} {
		v.ask(http.MethodGet, what, nil)
	}
	v.ask(http.MethodPost, "/runs", map[string]any{"runId": v.c.text("a bad id"), v.c.one("an unknown member"): v.c.text("an unknown member")})
	v.ask(http.MethodPost, "/runs/"+runID+"/frames", map[string]any{"frameId": v.c.text("a bad frame id"), "type": v.c.one("a bad type"), "payload": v.c.text("a bad payload")})
	for _, header := range []string{"X-Oa-Runtime-Signature", "Authorization", "X-Oa-User-Id", "X-Oa-Guest-Scope"} {
		req := request(v.t, http.MethodGet, v.s.api, "/runs/"+runID, nil)
		req.Header.Set(header, v.c.one("the header "+header))
		fmt.Fprintln(&v.all, do(v.t, req).body)
	}
}

// told is all that the API tells of the runs.
func (v *visitor) told() map[string]string {
	all := map[string]string{}
	for _, runID := range v.runs {
		for _, what := range []string{"/runs/%s", "/runs/%s/tool-tasks?limit=200"} {
			what = fmt.Sprintf(what, runID)
			all[what] = v.must(http.MethodGet, what, nil).body
		}
		all["the log of "+runID] = v.log(runID)
	}
	for _, parts := range []string{"ai5", "ai6", "ai7"} {
		req := request(v.t, http.MethodGet, v.s.api, "/runs/"+v.runs[0]+"/stream?parts="+parts, nil)
		all["the stream in "+parts] = do(v.t, req).body
	}
	all["the inbox"] = v.must(http.MethodGet, "/approvals", nil).body
	all["the thread"] = v.must(http.MethodGet, "/threads/thread-"+aUUID+"/state", nil).body
	all["the tools"] = v.must(http.MethodGet, "/tools?runId="+v.runs[0], nil).body
	all["the answers"] = v.all.String()
	return all
}

// dump is every column of every table, as text.
func dump(t *testing.T, databaseURL string) map[string]string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(t.Context())) }()
	rows, err := conn.Query(t.Context(), `SELECT table_name || '.' || column_name, format(
		CASE data_type WHEN 'bytea' THEN 'SELECT coalesce(string_agg(encode(%I, ''escape''), E''\n''), '''') FROM %I.%I'
		ELSE 'SELECT coalesce(string_agg(%I::text, E''\n''), '''') FROM %I.%I' END, column_name, table_schema, table_name)
		FROM information_schema.columns WHERE table_schema = 'runtime'`)
	require.NoError(t, err)
	type column struct{ Name, SQL string }
	columns, err := pgx.CollectRows(rows, pgx.RowToStructByPos[column])
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(columns, func(c column) bool { return c.Name == "run_log.payload" }))
	all := map[string]string{}
	for _, c := range columns {
		var text string
		require.NoError(t, conn.QueryRow(t.Context(), c.SQL).Scan(&text), c.Name)
		all[c.Name] = text
	}
	return all
}

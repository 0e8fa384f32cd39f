package github_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/github"
)

const token = "ghp_canary0123456789canary0123456789"

// hub is a small GitHub: it keeps comments and answers as the real one does.
type hub struct {
	*httptest.Server
	mu       sync.Mutex
	comments []map[string]any
	posts    int
	lists    []string // pages asked for
	lose     bool     // comments are kept, their answers lost
	answer   http.HandlerFunc
}

func newHub(t testing.TB) *hub {
	h := &hub{}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

// with changes or looks at a hub that may be answering.
func (h *hub) with(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *hub) add(body string) map[string]any {
	id := len(h.comments) + 1
	c := map[string]any{
		"id": id, "body": body, "user": map[string]any{"login": "octocat"}, "created_at": "2026-01-02T03:04:05Z",
		"html_url": fmt.Sprintf("https://github.com/o/r/issues/7#issuecomment-%d", id),
	}
	h.comments = append(h.comments, c)
	return c
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token:
		http.Error(w, `{"message":"Bad credentials"}`, http.StatusUnauthorized)
	case r.Header.Get("Accept") != "application/vnd.github+json" || r.Header.Get("X-Github-Api-Version") != "2022-11-28" || r.UserAgent() == "":
		http.Error(w, `{"message":"headers"}`, http.StatusBadRequest)
	case h.answer != nil:
		h.answer(w, r)
	case r.Method == http.MethodPost && r.URL.Path == "/api/v3/repos/o/r/issues/7/comments":
		var v struct{ Body string }
		raw, _ := io.ReadAll(r.Body)
		if json.Unmarshal(raw, &v) != nil || v.Body == "" {
			http.Error(w, `{"message":"Validation Failed"}`, http.StatusUnprocessableEntity)
			return
		}
		h.posts++
		c := h.add(v.Body)
		if h.lose {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(c)
	case r.URL.Path == "/api/v3/repos/o/r/issues/7/comments":
		q := r.URL.Query()
		per, _ := strconv.Atoi(q.Get("per_page"))
		page, _ := strconv.Atoi(q.Get("page"))
		h.lists = append(h.lists, q.Get("page"))
		last := max(1, (len(h.comments)+per-1)/per)
		if page < last {
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next", <%s?per_page=%d&page=%d>; rel="last"`, r.URL.Path, page+1, r.URL.Path, per, last))
		}
		from, to := min((page-1)*per, len(h.comments)), min(page*per, len(h.comments))
		_ = json.NewEncoder(w).Encode(append([]map[string]any{}, h.comments[from:to]...))
	case r.URL.Path == "/api/v3/repos/o/r/issues/7":
		w.Header().Set("X-Github-Request-Id", "ABCD:1")
		_, _ = io.WriteString(w, `{"number":7,"title":"It breaks","state":"open","state_reason":null,"user":{"login":"octocat"},
"labels":[{"name":"bug"}],"assignees":[{"login":"hubot"}],"body":"ünïcode body","comments":3,
"created_at":"2026-01-02T03:04:05Z","updated_at":"2026-01-03T03:04:05Z","closed_at":null,"html_url":"https://github.com/o/r/issues/7","extra":{"x":1}}`)
	case r.URL.Path == "/api/v3/repos/o/r/pulls/8":
		_, _ = io.WriteString(w, `{"number":8,"title":"Mend it","state":"closed","user":null,"labels":[],"assignees":[],"body":null,"comments":0,
"html_url":"https://github.com/o/r/pull/8","draft":false,"merged":true,"mergeable":null,"merged_at":"2026-01-04T00:00:00Z",
"head":{"ref":"fix","sha":"abc","repo":null},"base":{"ref":"main","sha":"def","repo":{"full_name":"o/r"}},
"commits":1,"additions":2,"deletions":3,"changed_files":4}`)
	case r.URL.Path == "/api/v3/repos/o/renamed/issues/7":
		http.Redirect(w, r, "/api/v3/repos/o/r/issues/7", http.StatusMovedPermanently)
	case r.URL.Path == "/api/v3/repos/o/renamed/issues/7/comments":
		http.Redirect(w, r, "/api/v3/repos/o/r/issues/7/comments", http.StatusMovedPermanently)
	default:
		http.Error(w, `{"message":"Not Found"}`, http.StatusNotFound)
	}
}

// byName makes the tools of a hub.
func byName(t testing.TB, h *hub, change func(*github.Config)) map[string]tool.Tool {
	s, err := secret.New(secret.Config{Static: map[string]string{"github": token}})
	require.NoError(t, err)
	c := github.Config{
		BaseURL: h.URL + "/api/v3", Secrets: s,
		Guard: egress.GuardConfig{Exceptions: []string{h.Listener.Addr().String()}, Timeout: 10 * time.Second},
	}
	if change != nil {
		change(&c)
	}
	g, err := github.New(c)
	require.NoError(t, err)
	m := map[string]tool.Tool{}
	for _, x := range g.All() {
		m[x.Spec().Name] = x
	}
	require.Len(t, m, 4)
	return m
}

func validate(t testing.TB, raw json.RawMessage, v any) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("s.json", doc))
	s, err := c.Compile("s.json")
	require.NoError(t, err)
	return s.Validate(v)
}

func call(t testing.TB, in map[string]any) tool.Call {
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	return tool.Call{Input: raw, IdempotencyKey: "run_1:call_1", RunID: "run_1", ToolCallID: "call_1", Attempt: 1}
}

func run(t testing.TB, x tool.Tool, c tool.Call) (map[string]any, tool.Result, error) {
	t.Helper()
	in, err := jsonschema.UnmarshalJSON(bytes.NewReader(c.Input))
	require.NoError(t, err)
	require.NoError(t, validate(t, x.Spec().Input, in))
	r, err := x.Run(t.Context(), c, func(json.RawMessage) error { return nil })
	if err != nil {
		require.NotContains(t, err.Error(), token)
		return nil, r, err
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(r.Output))
	require.NoError(t, err)
	require.NoError(t, validate(t, x.Spec().Output, out))
	return out.(map[string]any), r, nil
}

func refused(t testing.TB, err error, class string) *tool.Error {
	t.Helper()
	var e *tool.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%v", err)
	return e
}

func at(repository string, number int) map[string]any {
	return map[string]any{"repository": repository, "number": number}
}

func TestIssuesAndPullRequestsAreRead(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	m := byName(t, h, nil)
	out, r, err := run(t, m["github.get_issue"], call(t, at("o/r", 7)))
	require.NoError(t, err)
	require.Equal(t, "It breaks", out["title"])
	require.Equal(t, "ünïcode body", out["body"])
	require.Equal(t, []any{"bug"}, out["labels"])
	require.Equal(t, "ABCD:1", r.CorrelationID)
	out, _, err = run(t, m["github.get_issue"], call(t, at("o/renamed", 7)))
	require.NoError(t, err, "a renamed repository is found where it is now")
	require.Equal(t, "It breaks", out["title"])

	out, _, err = run(t, m["github.get_pull_request"], call(t, at("o/r", 8)))
	require.NoError(t, err)
	require.Equal(t, true, out["merged"])
	require.Nil(t, out["mergeable"])
	require.Equal(t, "ghost", out["author"])
	require.Equal(t, map[string]any{"ref": "fix", "sha": "abc", "repository": ""}, out["head"])

	h.with(func() {
		h.add("first")
		h.add(strings.Repeat("ä", 100))
	})
	out, _, err = run(t, byName(t, h, func(c *github.Config) { c.MaxText = 51 })["github.list_comments"], call(t, at("o/r", 7)))
	require.NoError(t, err)
	list := out["comments"].([]any)
	require.Len(t, list, 2)
	require.Equal(t, "first", list[0].(map[string]any)["body"])
	require.Equal(t, strings.Repeat("ä", 25), list[1].(map[string]any)["body"])
	require.Equal(t, true, out["truncated"])
	require.Equal(t, false, out["more"])
}

func TestACommentIsMadeOnce(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	x := byName(t, h, nil)["github.add_issue_comment"]
	in := at("o/r", 7)
	in["body"] = "Grüße"
	out, r, err := run(t, x, call(t, in))
	require.NoError(t, err)
	require.Equal(t, "1", r.CorrelationID)
	require.Contains(t, out["url"], "issuecomment-1")
	var body string
	h.with(func() { body = h.comments[0]["body"].(string) })
	require.True(t, strings.HasPrefix(body, "Grüße\n\n<!-- openagents-runtime:call "), body)
	require.NotContains(t, body, "run_1", "the marker tells nothing of the run")

	// An answer is lost; the next attempt finds the comment behind many others.
	h.with(func() { h.lose = true })
	second := call(t, in)
	second.IdempotencyKey = "run_1:call_2"
	_, _, err = run(t, x, second)
	e := refused(t, err, "answer_incomplete")
	require.True(t, e.Unknown)
	h.with(func() {
		h.lose = false
		for i := range 170 {
			h.add("noise " + strconv.Itoa(i))
		}
		require.Equal(t, 2, h.posts)
	})
	second.Attempt = 2
	out, r, err = run(t, x, second)
	require.NoError(t, err)
	require.Equal(t, "2", r.CorrelationID)
	h.with(func() { require.Equal(t, 2, h.posts, "it was not made again") })
	require.Equal(t, json.Number("2"), out["commentId"])

	r, known, err := x.(tool.Reconciler).Reconcile(t.Context(), second)
	require.NoError(t, err)
	require.True(t, known)
	require.Equal(t, "2", r.CorrelationID)
	h.with(func() { h.lists = nil })
	third := call(t, in)
	third.IdempotencyKey = "run_1:call_3"
	_, known, err = x.(tool.Reconciler).Reconcile(t.Context(), third)
	require.NoError(t, err)
	require.False(t, known)
	h.with(func() {
		require.Equal(t, []string{"1", "4", "3", "2"}, h.lists, "each page once, the newest first")
		for range 1000 {
			h.add("noise")
		}
		h.lists = nil
	})
	_, known, err = x.(tool.Reconciler).Reconcile(t.Context(), third)
	require.NoError(t, err)
	require.False(t, known)
	h.with(func() { require.Len(t, h.lists, 10) })

	// Without the answer of GitHub nothing is posted on a repeated attempt.
	h.with(func() {
		h.answer = func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				t.Error("it was posted")
			}
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	third.Attempt = 2
	_, _, err = run(t, x, third)
	refused(t, err, "provider_error")

	spec := x.Spec()
	require.True(t, spec.Writes)
	require.Equal(t, tool.Reconcile, spec.Boundary)
}

func TestACommentIsNotSentOn(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	in := at("o/renamed", 7)
	in["body"] = "x"
	_, _, err := run(t, byName(t, h, nil)["github.add_issue_comment"], call(t, in))
	refused(t, err, "answer_invalid")
	h.with(func() {
		require.Zero(t, h.posts)
		require.Empty(t, h.lists, "a redirect does not make a question of it")
	})
}

func TestHowRefusalsAreToldApart(t *testing.T) {
	t.Parallel()
	soon := strconv.FormatInt(time.Now().Add(2*time.Minute).Unix(), 10)
	for _, c := range []struct {
		name    string
		status  int
		header  http.Header
		body    string
		class   string
		retry   bool
		fault   bool
		unknown bool // of a write
		wait    time.Duration
	}{
		{"validation", 422, nil, `{"message":"Validation Failed","errors":[{"field":"body","code":"missing"}]}`, "provider_rejected", false, false, false, 0},
		{"credentials", 401, nil, `{"message":"Bad credentials"}`, "unauthorized", false, false, false, 0},
		{"permission", 403, http.Header{"X-Ratelimit-Remaining": {"4999"}}, `{"message":"Resource not accessible"}`, "forbidden", false, false, false, 0},
		{"primary limit", 403, http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {soon}}, `{"message":"API rate limit exceeded"}`, "rate_limited", true, false, false, 2 * time.Minute},
		{"secondary limit", 403, http.Header{"Retry-After": {"30"}}, `{"message":"You have exceeded a secondary limit"}`, "rate_limited", true, false, false, 30 * time.Second},
		{"secondary limit in words", 403, nil, `{"message":"You have exceeded a secondary rate limit"}`, "rate_limited", true, false, false, time.Minute},
		{"limit", 429, http.Header{"Retry-After": {"5"}}, ``, "rate_limited", true, false, false, 5 * time.Second},
		{"a limit that asks too much", 429, http.Header{"Retry-After": {"999999"}}, ``, "rate_limited", true, false, false, time.Hour},
		{"gone", 410, nil, `{"message":"This issue was deleted"}`, "not_found", false, false, false, 0},
		{"broken", 500, nil, `oops`, "provider_error", true, true, true, 0},
		{"overloaded", 503, http.Header{"Retry-After": {"3"}}, `<html>`, "provider_error", true, true, true, 3 * time.Second},
		{"no JSON", 200, nil, `<html>`, "answer_invalid", false, true, true, 0},
		{"another JSON", 200, nil, `[1`, "answer_invalid", false, true, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			h.answer = func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range c.header {
					w.Header()[k] = v
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}
			m := byName(t, h, nil)
			_, _, err := run(t, m["github.get_issue"], call(t, at("o/r", 7)))
			e := refused(t, err, c.class)
			require.Equal(t, c.retry, e.Retryable)
			require.Equal(t, c.fault, e.ProviderFault)
			require.False(t, e.Unknown, "a question changes nothing")
			require.InDelta(t, c.wait.Seconds(), e.RetryAfter.Seconds(), 5)
			require.Equal(t, "coding_failed.provider_error", e.ReasonCode)
			in := at("o/r", 7)
			in["body"] = "x"
			_, _, err = run(t, m["github.add_issue_comment"], call(t, in))
			require.Equal(t, c.unknown, refused(t, err, c.class).Unknown)
		})
	}
}

func TestWhatIsNotAsked(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.answer = func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }
	m := byName(t, h, func(c *github.Config) { c.Repositories = []string{"o/r", "Team/*"} })
	for repository, class := range map[string]string{
		"o/other": "forbidden", "o2/r": "forbidden", "o/..": "tool_input_invalid", "o/.": "tool_input_invalid",
	} {
		_, _, err := run(t, m["github.get_issue"], call(t, at(repository, 7)))
		refused(t, err, class)
	}
	for _, bad := range []string{
		`{"repository":"o/r/../../x","number":7}`, `{"repository":"o","number":7}`, `{"repository":"o/r?x","number":7}`,
		`{"repository":"o/r","number":0}`, `{"repository":"o/r","number":"7"}`, `{"repository":"o%2fr/x","number":7}`,
	} {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(bad))
		require.NoError(t, err)
		require.Error(t, validate(t, m["github.get_issue"].Spec().Input, doc), bad)
		_, err = m["github.get_issue"].Run(t.Context(), tool.Call{Input: json.RawMessage(bad)}, nil)
		refused(t, err, "tool_input_invalid")
	}
	for _, body := range []string{" \n", "x <!-- openagents-runtime:call 00 -->"} {
		in := at("o/r", 7)
		in["body"] = body
		_, _, err := run(t, m["github.add_issue_comment"], call(t, in))
		refused(t, err, "tool_input_invalid")
	}
	in := at("o/r", 7)
	in["body"] = "x"
	without := call(t, in)
	without.IdempotencyKey = ""
	_, _, err := run(t, m["github.add_issue_comment"], without)
	refused(t, err, "tool_input_invalid")

	h.with(func() { h.answer = nil })
	_, _, err = run(t, m["github.get_issue"], call(t, at("O/R", 7)))
	refused(t, err, "not_found") // names are compared as GitHub does; this hub is stricter
	_, _, err = run(t, m["github.get_issue"], call(t, at("team/any", 7)))
	refused(t, err, "not_found")
}

func TestTheSecretGoesToTheConfiguredHostAlone(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	other := newHub(t)
	h.answer = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/api/v3/repos/o/r/issues/7", http.StatusFound)
	}
	other.answer = func(http.ResponseWriter, *http.Request) { t.Error("the secret went on") }
	_, _, err := run(t, byName(t, h, nil)["github.get_issue"], call(t, at("o/r", 7)))
	require.Equal(t, egress.InvalidURL, refused(t, err, egress.InvalidURL).ReasonCode, "the other server has no exception")
	_, _, err = run(t, byName(t, h, func(c *github.Config) {
		c.Guard.Exceptions = append(c.Guard.Exceptions, other.Listener.Addr().String())
	})["github.get_issue"], call(t, at("o/r", 7)))
	refused(t, err, "unauthorized")
	h.with(func() {
		h.answer = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://example.com/", http.StatusFound)
		}
	})
	_, _, err = run(t, byName(t, h, nil)["github.get_issue"], call(t, at("o/r", 7)))
	require.Equal(t, egress.HostNotAllowed, refused(t, err, egress.HostNotAllowed).ReasonCode)
}

func TestWithoutASecretNothingIsSent(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.answer = func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }
	s, err := secret.New(secret.Config{})
	require.NoError(t, err)
	m := byName(t, h, func(c *github.Config) { c.Secrets = s })
	_, _, err = run(t, m["github.get_issue"], call(t, at("o/r", 7)))
	require.Equal(t, "policy_denied.authorization_missing", refused(t, err, "secret_unavailable").ReasonCode)
}

func TestSettingsThatCannotBeMeant(t *testing.T) {
	t.Parallel()
	s, err := secret.New(secret.Config{})
	require.NoError(t, err)
	for _, c := range []github.Config{
		{BaseURL: "http://api.github.com", Secrets: s}, {BaseURL: "https://10.0.0.1", Secrets: s}, {BaseURL: "https://127.0.0.1:8080", Secrets: s},
		{BaseURL: "https://u:p@api.github.com", Secrets: s}, {BaseURL: "api.github.com", Secrets: s}, {},
		{Repositories: []string{"*"}, Secrets: s}, {Repositories: []string{"o"}, Secrets: s}, {MaxText: -1, Secrets: s},
	} {
		_, err := github.New(c)
		require.Error(t, err, "%+v", c)
	}
	for _, base := range []string{"", "https://github.example.com:8443/api/v3"} {
		_, err = github.New(github.Config{BaseURL: base, Secrets: s})
		require.NoError(t, err)
	}
}

package email_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/egress"
	"github.com/openagentsinc/openagents-runtime/internal/secret"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
	"github.com/openagentsinc/openagents-runtime/internal/tool/email"
)

const token = "re_canary0123456789"

// post sends what has one key once, as the real one does.
type post struct {
	*httptest.Server
	mu     sync.Mutex
	bodies map[string]string
	sent   []map[string]any
	lose   bool
	answer http.HandlerFunc
}

func newPost(t testing.TB) *post {
	p := &post{bodies: map[string]string{}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// with changes or looks at a post that may be answering.
func (p *post) with(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

func (p *post) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.answer != nil {
		p.answer(w, r)
		return
	}
	raw, _ := io.ReadAll(r.Body)
	key := r.Header.Get("Idempotency-Key")
	var m map[string]any
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/emails" || r.Header.Get("Authorization") != "Bearer "+token || json.Unmarshal(raw, &m) != nil:
		w.WriteHeader(http.StatusBadRequest)
		return
	case p.bodies[key] != "" && p.bodies[key] != string(raw):
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"name":"invalid_idempotent_request","message":"Same key, other payload."}`)
		return
	case p.bodies[key] == "":
		p.bodies[key] = string(raw)
		p.sent = append(p.sent, m)
	}
	if p.lose {
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(w, `{"id":"msg_`+key+`"}`)
}

func newTool(t testing.TB, p *post, change func(*email.Config)) *email.Tool {
	s, err := secret.New(secret.Config{Static: map[string]string{"email": token}})
	require.NoError(t, err)
	c := email.Config{
		BaseURL: p.URL, From: "Agent <agent@example.com>", Secrets: s,
		Guard: egress.GuardConfig{Exceptions: []string{p.Listener.Addr().String()}, Timeout: 10 * time.Second},
	}
	if change != nil {
		change(&c)
	}
	x, err := email.New(c)
	require.NoError(t, err)
	return x
}

func validate(t testing.TB, schema, value json.RawMessage) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("s.json", doc))
	s, err := c.Compile("s.json")
	require.NoError(t, err)
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	require.NoError(t, err)
	return s.Validate(v)
}

func run(t testing.TB, x *email.Tool, key string, in map[string]any) (tool.Result, error) {
	t.Helper()
	raw, err := json.Marshal(in)
	require.NoError(t, err)
	r, err := x.Run(t.Context(), tool.Call{Input: raw, IdempotencyKey: key}, func(json.RawMessage) error { return nil })
	if err == nil {
		require.NoError(t, validate(t, x.Spec().Input, raw))
		require.NoError(t, validate(t, x.Spec().Output, r.Output))
	} else {
		require.NotContains(t, err.Error(), token)
	}
	return r, err
}

func refused(t testing.TB, err error, class string) *tool.Error {
	t.Helper()
	var e *tool.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, class, e.Class, "%v", err)
	return e
}

func letter(change func(m map[string]any)) map[string]any {
	m := map[string]any{"to": []string{"ada@example.org"}, "subject": "Grüße", "text": "Hello"}
	if change != nil {
		change(m)
	}
	return m
}

func TestAMessageIsSentOnce(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	x := newTool(t, p, nil)
	p.lose = true
	in := letter(func(m map[string]any) {
		m["to"], m["html"], m["replyTo"] = []string{"ada@example.org", "ADA@example.org", "bob@example.org"}, "<p>Hello</p>", "help@example.com"
	})
	_, err := run(t, x, "key_1", in)
	e := refused(t, err, "answer_incomplete")
	require.True(t, e.Unknown && e.Retryable)
	p.with(func() { p.lose = false })
	r, err := run(t, x, "key_1", in)
	require.NoError(t, err)
	require.Equal(t, "msg_key_1", r.CorrelationID)
	require.JSONEq(t, `{"messageId":"msg_key_1","recipients":2}`, string(r.Output))
	var sent []map[string]any
	p.with(func() { sent = p.sent })
	require.Equal(t, []map[string]any{{
		"from": "Agent <agent@example.com>", "to": []any{"ada@example.org", "bob@example.org"}, "subject": "Grüße",
		"text": "Hello", "html": "<p>Hello</p>", "reply_to": "help@example.com",
	}}, sent)

	_, err = run(t, x, "key_1", letter(nil))
	require.False(t, refused(t, err, "provider_conflict").Retryable)
	p.with(func() { require.Len(t, p.sent, 1) })
	spec := x.Spec()
	require.True(t, spec.Writes && spec.NeedsApproval)
	require.Equal(t, tool.SafeRetry, spec.Boundary)
}

func TestWhoIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	x := newTool(t, p, func(c *email.Config) {
		c.Suppressed = []string{"Stop@example.org", "@no.example"}
		c.Recipients = []string{"@example.org", "@no.example", "ceo@example.net"}
	})
	for to, class := range map[string]string{
		"stop@example.org": "suppressed_recipient", "STOP@EXAMPLE.ORG": "suppressed_recipient", "any@no.example": "suppressed_recipient",
		"x@elsewhere.example": "forbidden", "cto@example.net": "forbidden", "x@sub.example.org": "forbidden",
	} {
		_, err := run(t, x, "k", letter(func(m map[string]any) { m["to"] = []string{"ada@example.org", to} }))
		e := refused(t, err, class)
		require.NotContains(t, e.Message, to)
		if class == "suppressed_recipient" {
			require.Equal(t, "policy_denied.suppressed_recipient", e.ReasonCode)
		}
	}
	p.with(func() { require.Empty(t, p.sent, "one such recipient holds the message back") })
	_, err := run(t, x, "k", letter(func(m map[string]any) { m["to"] = []string{"ceo@example.net"} }))
	require.NoError(t, err)
}

func TestMessagesThatAreNone(t *testing.T) {
	t.Parallel()
	p := newPost(t)
	x := newTool(t, p, func(c *email.Config) { c.MaxRecipients = 2 })
	for name, change := range map[string]func(map[string]any){
		"no recipient":       func(m map[string]any) { m["to"] = []string{} },
		"too many":           func(m map[string]any) { m["to"] = []string{"a@x.example", "b@x.example", "c@x.example"} },
		"a name":             func(m map[string]any) { m["to"] = []string{"Ada <ada@example.org>"} },
		"two in one":         func(m map[string]any) { m["to"] = []string{"a@x.example,b@x.example"} },
		"a header":           func(m map[string]any) { m["to"] = []string{"a@x.example\r\nBcc: b@x.example"} },
		"quoted":             func(m map[string]any) { m["to"] = []string{`"a@b"@x.example`} },
		"a route":            func(m map[string]any) { m["to"] = []string{"a%b.example@x.example"} },
		"no address":         func(m map[string]any) { m["to"] = []string{"ada"} },
		"another alphabet":   func(m map[string]any) { m["to"] = []string{"аda@example.org"} },
		"a header's subject": func(m map[string]any) { m["subject"] = "x\r\nBcc: b@x.example" },
		"an empty subject":   func(m map[string]any) { m["subject"] = " " },
		"nothing in it":      func(m map[string]any) { delete(m, "text") },
		"too long":           func(m map[string]any) { m["text"] = strings.Repeat("a", 300<<10) },
		"reply to a header":  func(m map[string]any) { m["replyTo"] = "a@x.example\nX: y" },
		"another type":       func(m map[string]any) { m["to"] = "a@x.example" },
	} {
		_, err := run(t, x, "k", letter(change))
		refused(t, err, "tool_input_invalid")
		p.with(func() { require.Empty(t, p.sent, name) })
	}
	_, err := run(t, x, "", letter(nil))
	refused(t, err, "tool_input_invalid")
	raw, err := json.Marshal(letter(func(m map[string]any) { m["from"] = "ceo@example.com" }))
	require.NoError(t, err)
	require.Error(t, validate(t, x.Spec().Input, raw), "the sender is not the model's to choose")
}

func TestHowRefusalsAreToldApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status              int
		body, class         string
		retry, fault, maybe bool
	}{
		{400, `{"name":"validation_error","message":"bad"}`, "provider_rejected", false, false, false},
		{401, `{"name":"missing_api_key"}`, "unauthorized", false, false, false},
		{403, `{"name":"invalid_api_key"}`, "forbidden", false, false, false},
		{404, ``, "not_found", false, false, false},
		{409, `{"name":"concurrent_idempotent_requests"}`, "provider_conflict", true, false, true},
		{422, `{"name":"invalid_from_address"}`, "provider_rejected", false, false, false},
		{429, `{"name":"rate_limit_exceeded"}`, "rate_limited", true, false, false},
		{500, ``, "provider_error", true, true, true},
		{502, `<html>`, "provider_error", true, true, true},
		{307, ``, "answer_invalid", false, true, true},
		{200, `{}`, "answer_invalid", false, true, true},
		{200, `x`, "answer_invalid", false, true, true},
	} {
		p := newPost(t)
		p.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		}
		_, err := run(t, newTool(t, p, nil), "k", letter(nil))
		e := refused(t, err, c.class)
		require.Equal(t, []bool{c.retry, c.fault, c.maybe}, []bool{e.Retryable, e.ProviderFault, e.Unknown}, "%d", c.status)
		require.Equal(t, "comms_failed.provider_error", e.ReasonCode)
	}
}

func TestSettingsThatCannotBeMeant(t *testing.T) {
	t.Parallel()
	s, err := secret.New(secret.Config{})
	require.NoError(t, err)
	for _, c := range []email.Config{
		{Secrets: s}, {From: "agent", Secrets: s}, {From: "a@example.com"}, {From: "a@example.com", Secrets: s, MaxRecipients: 51},
		{From: "a@example.com", Secrets: s, Suppressed: []string{"example.com"}}, {From: "a@example.com", Secrets: s, Recipients: []string{"@"}},
		{From: "a@example.com", Secrets: s, BaseURL: "http://api.resend.com"}, {From: "a@example.com", Secrets: s, BaseURL: "https://192.168.0.1"},
	} {
		_, err := email.New(c)
		require.Error(t, err, "%+v", c)
	}
	_, err = email.New(email.Config{From: "a@example.com", Secrets: s})
	require.NoError(t, err)
}

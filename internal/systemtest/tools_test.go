package systemtest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
	"github.com/openagentsinc/openagents-runtime/internal/dbtest"
)

// The settings reach the tools: a secret is fetched for the user of the run, by a
// signed request, and goes to its provider alone; what is refused is counted.
func TestTheSettingsOfToolsAreAtWork(t *testing.T) {
	t.Parallel()
	const token = "a-token-of-user-seven-4711"
	keys, err := auth.ParseKeyring(secret)
	require.NoError(t, err)
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if !assert.NoError(t, err) {
			return
		}
		v := auth.Verifier{Keys: keys, Audience: "their-control-plane", Nonces: once{}}
		_, err = v.Verify(r.Context(), auth.Request{Method: r.Method, Target: r.RequestURI, Header: r.Header, BodySHA256: auth.BodyHash(body), Scope: auth.Service})
		assert.NoError(t, err)
		assert.Equal(t, "/secrets", r.URL.Path)
		var asked struct {
			UserID   int64 `json:"user_id"`
			Provider string
		}
		assert.NoError(t, json.Unmarshal(body, &asked))
		assert.Equal(t, userID, asked.UserID)
		fmt.Fprintf(w, `{"data":{"provider":%q,"secret":%q}}`, asked.Provider, token)
	}))
	t.Cleanup(control.Close)
	github := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "Bearer "+token, r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, `{"number":1,"title":"An issue","state":"open","body":"It says `+token+`."}`)
	}))
	t.Cleanup(github.Close)
	s := serve(t, dbtest.URL(t), "RUNTIME_SECRETS_URL="+control.URL, "RUNTIME_SECRETS_PATH=/secrets", "RUNTIME_SECRETS_AUDIENCE=their-control-plane",
		"RUNTIME_GITHUB_URL="+github.URL, "RUNTIME_GITHUB_REPOSITORIES=ours/*", "RUNTIME_EGRESS_ALLOW="+github.Listener.Addr().String(),
		"RUNTIME_EMAIL_FROM=agent@example.com", "RUNTIME_HTTP_DENY=*.example.org")
	s.until(t, `"msg":"calls to hosts that are not public are allowed[^"]*","provider":"http"`)

	runID := uuid.NewString()
	a := call(t, http.MethodPost, s.api, "/runs", map[string]any{"runId": runID, "threadId": runID, "userId": userID,
		"authenticatedSession": true, "keepOpen": true, "toolPolicy": map[string]any{"allow": []string{"*"}}})
	require.Equal(t, http.StatusAccepted, a.status, a.body)
	for _, c := range []struct {
		tool  string
		input map[string]any
		says  []string
	}{
		{"github.get_issue", map[string]any{"repository": "ours/x", "number": 1}, []string{`"state":"succeeded"`, "An issue", "It says [REDACTED]."}},
		{"github.get_issue", map[string]any{"repository": "theirs/x", "number": 1}, []string{`"errorClass":"forbidden"`}},
		{"http.fetch", map[string]any{"url": "http://169.254.169.254/"}, []string{`"errorClass":"ssrf_block.metadata_endpoint"`}},
		{"http.fetch", map[string]any{"url": "https://a.example.org/"}, []string{`"errorClass":"ssrf_block.host_not_allowed"`}},
	} {
		a := call(t, http.MethodPost, s.api, "/tools/execute?wait=20000", map[string]any{"runId": runID, "toolCallId": uuid.NewString(), "tool": c.tool, "input": c.input})
		require.Equal(t, http.StatusOK, a.status, a.body)
		for _, text := range c.says {
			require.Contains(t, a.body, text)
		}
	}
	list := call(t, http.MethodGet, s.api, "/tools", nil)
	require.Contains(t, list.body, `"email.send"`)
	require.NotContains(t, s.out.String(), token)
	for _, reason := range []string{"metadata_endpoint", "host_not_allowed"} {
		require.Contains(t, page(t, s), `openagents_runtime_egress_refusals_total{provider="http",reason="ssrf_block.`+reason+`"} 1`)
	}
}

// once takes every token for new.
type once struct{}

func (once) Remember(context.Context, []byte, time.Time) (bool, error) { return true, nil }

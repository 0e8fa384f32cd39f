package ai_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/gen/event"
	"github.com/openagentsinc/openagents-runtime/internal/contracttest/ai"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// A chat of the AI SDK is asked, answers, and goes on in the same stream. It keeps
// its own answer until the log's comes, and sends nothing by itself meanwhile.
func TestAChatApprovesACall(t *testing.T) {
	t.Parallel()
	for _, parts := range []string{"ai6", "ai7"} {
		for file, approved := range map[string]bool{"approval_granted": true, "approval_refused": false} {
			t.Run(parts+"/"+file, func(t *testing.T) {
				t.Parallel()
				got := approve(t, parts, file, approved)
				require.Empty(t, got.Error)
				require.Equal(t, "ready", got.Status)
				require.Zero(t, got.Sent)
				require.Empty(t, got.Called, "the service carries the call out")
				require.Len(t, got.Messages, 1)
				require.Equal(t, "Done.", got.Messages[0].Text())
				last := "output-denied"
				if approved {
					last = "output-available"
				}
				require.Equal(t, []string{"input-available", "approval-requested", "approval-responded", last}, got.States)
			})
		}
	}
}

type approving struct {
	ai.Chat
	States []string `json:"states"`
	Called []string `json:"called"`
	Sent   int      `json:"sent"`
}

// approve writes a log up to its question, and the rest when the chat has
// answered.
func approve(t *testing.T, parts, file string, approved bool) approving {
	t.Helper()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	log := readFixture(t, filepath.Join("../../../openapi/fixtures/stream", file+".json"))[1:]
	decided := 0
	for i, e := range log {
		if _, ok := e.(event.ApprovalDecidedV1); ok {
			decided = i
		}
	}
	s.Append(t, r, log[:decided]...)
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		var said struct {
			ApprovalID string
			Approved   bool
		}
		assert.NoError(t, json.NewDecoder(q.Body).Decode(&said))
		assert.Equal(t, theApproval, said.ApprovalID)
		assert.Equal(t, approved, said.Approved)
		s.Append(t, r, log[decided:]...)
	}))
	t.Cleanup(answers.Close)
	var got approving
	ai.Run(t, "approve.mjs", map[string]any{
		"api": s.url + "/runs", "runId": r.RunID, "parts": parts, "answers": answers.URL, "approved": approved,
	}, &got)
	return got
}

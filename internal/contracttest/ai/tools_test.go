package ai_test

import (
	"cmp"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contracttest/ai"
	"github.com/openagentsinc/openagents-runtime/internal/runtest"
)

// shown is what a message shows of a call or an approval in the end.
type shown map[string]any

const (
	theCall     = "call_0123456789abcdef01234567"
	theApproval = "appr_0123456789abcdef01234567"
)

// Every release shows a call's one end: what it came to, why it failed, and who
// said no. What a release has no word for it is told in data parts.
func TestEveryReleaseShowsWhatBecameOfACall(t *testing.T) {
	t.Parallel()
	mail := map[string]any{"to": "ada@example.com", "subject": "Hi"}
	for file, want := range map[string]map[string][]shown{
		"tool_call": {"ai5": {{
			"toolCallId": theCall, "toolName": "http.fetch", "state": "output-available", "providerExecuted": true,
			"input":  map[string]any{"url": "https://example.com/"},
			"output": map[string]any{"status": 200.0, "text": "line\nend\u2028 \u0085 \"quoted\" 1e21", "share": 0.5, "none": nil},
		}}},
		"tool_progress":       {"ai5": {{"state": "output-available", "output": []any{1.0, "two", nil, true}, "preliminary": nil}}},
		"tool_without_output": {"ai5": {{"state": "output-available", "output": nil}}},
		"tool_failed": {"ai5": {
			{"toolCallId": theCall, "state": "output-error", "errorText": "The address is private."},
			{"toolName": "email.send", "state": "output-error", "errorText": "The tool is not allowed.", "input": mail},
			{"state": "output-error", "errorText": "The tool call took too long."},
			{"state": "output-error", "errorText": "The tool call was canceled."},
		}},
		"client_tool": {"ai5": {{"toolName": "browser.location", "state": "output-available", "providerExecuted": nil,
			"output": map[string]any{"city": "Paris"}}}},
		"approval_granted": {
			"ai5": {
				{"toolCallId": theCall, "state": "output-available", "output": map[string]any{"id": "m1"}},
				{"type": "data-approval", "id": theApproval, "state": "approved"},
			},
			"ai6": {
				{"state": "output-available", "approval": map[string]any{"id": theApproval}},
				{"type": "data-approval", "id": theApproval, "state": "approved"},
			},
			"ai7": {{"state": "output-available", "approval": map[string]any{"id": theApproval, "approved": true}}},
		},
		"approval_refused": {
			"ai5": {
				{"state": "output-error", "errorText": "A person refused the call: Not to her."},
				{"type": "data-approval", "state": "rejected"},
			},
			"ai6": {
				{"state": "output-denied", "approval": map[string]any{"id": theApproval}},
				{"type": "data-approval", "state": "rejected"},
			},
			"ai7": {{"state": "output-denied", "approval": map[string]any{"id": theApproval, "approved": false, "reason": "Not to her."}}},
		},
		"approval_expired": {"ai6": {
			{"state": "output-error", "errorText": "Nobody decided in time."},
			{"type": "data-approval", "state": "expired"},
		}},
		"approval_of_a_budget":         {"ai5": {{"type": "data-approval", "id": "appr_111111111111111111111111", "state": "approved"}}},
		"api_tool":                     {"ai5": {{"type": "data-tool", "id": "mine-1", "state": "output-available", "output": map[string]any{"status": 200.0}}}},
		"tool_before_a_discarded_step": {"ai5": {{"state": "output-available", "output": "page"}}},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			r := runtest.Run(t, s.Pool)
			log := readFixture(t, filepath.Join("../../../openapi/fixtures/stream", file+".json"))
			s.Append(t, r, log[1:]...)
			calls := want["ai5"]
			for _, parts := range []string{"ai5", "ai6", "ai7"} {
				if own, has := want[parts]; has {
					calls = own
				}
				if calls == nil {
					continue // other tests tell
				}
				readings := ai.ReadRuns(t, s.url+"/runs", parts, r.RunID)
				require.Len(t, readings, releases[parts])
				for _, got := range readings {
					require.Empty(t, got.Errors, "%s in release %s", parts, got.Release)
					requireShown(t, calls, got.Message.Parts, parts+" in release "+got.Release)
				}
			}
		})
	}
}

// What the caller of the API has called is told whether or not the step around
// it stays, and no release stumbles over what it was made to forget.
func TestACallOfTheAPISurvivesAStepThatIsTakenBack(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := runtest.Run(t, s.Pool)
	s.Append(t, r, readFixture(t, "../../../openapi/fixtures/stream/tool_in_a_discarded_step.json")[1:]...)
	for _, parts := range []string{"", "ai6", "ai7"} {
		for _, got := range ai.ReadRuns(t, s.url+"/runs", parts, r.RunID) {
			require.Empty(t, got.Errors, got.Release)
			states := map[any]any{}
			for _, p := range got.Message.Parts {
				if data, ok := p["data"].(map[string]any); ok {
					states[p["id"]] = data["state"]
				}
			}
			delete(states, nil) // data-discard
			require.Equal(t, map[any]any{
				"mine-1": "output-denied", "mine-2": "output-error", "appr_111111111111111111111111": "rejected",
			}, states, "%s in release %s", cmp.Or(parts, "every"), got.Release)
		}
	}
}

// requireShown compares the members that are named; nil is absent or null.
func requireShown(t *testing.T, want []shown, parts []ai.Part, where string) {
	t.Helper()
	var got []ai.Part
	for _, p := range parts {
		switch p["type"] {
		case "dynamic-tool":
			got = append(got, p)
		case "data-tool", "data-approval":
			flat := ai.Part{"type": p["type"], "id": p["id"]}
			for name, v := range p["data"].(map[string]any) {
				flat[name] = v
			}
			got = append(got, flat)
		}
	}
	require.Len(t, got, len(want), where)
	for i, w := range want {
		for name, v := range w {
			require.Equal(t, v, got[i][name], "%s: %s of part %d", where, name, i)
		}
	}
}

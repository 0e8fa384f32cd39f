package tool_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// Canaries are made of parts, so that no scanner takes this file for a leak.
var canaries = []string{
	"ghp_" + strings.Repeat("Ab3dE5", 6), "AKIA" + "QX7YJ2M4N6P8R0ST", "sk-" + strings.Repeat("q9Zk3", 8),
}

func TestNoSecretOfACallIsStored(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	secrets, err := json.Marshal(map[string]any{"text": "use " + strings.Join(canaries, " or "), "deep": []any{map[string]any{"password": "hunter2-hunter2"}}})
	require.NoError(t, err)
	s := spec("a")
	var ran json.RawMessage
	going := make(chan struct{})
	r := runner(t, tool.Config{}, made{s, func(_ context.Context, c tool.Call, progress func(json.RawMessage) error) (tool.Result, error) {
		ran = c.Input
		if err := progress(secrets); err != nil {
			return tool.Result{}, err
		}
		<-going
		return tool.Result{Output: secrets, CorrelationID: canaries[0]}, nil
	}})

	q := d.request("call_1")
	q.Spec, q.Input = s, secrets
	require.NoError(t, d.commit(tool.Requested(q, allowed, "")))
	task := d.task(t, "call_1")
	_, refused := tool.StoredInput(task)
	require.Equal(t, tool.ClassInputRedacted, refused.Class, "what redaction changed does not run")
	require.NoError(t, d.commit(tool.CancelRequested(task, "user:1", "because "+canaries[1]), nil))
	require.NoError(t, d.commit(tool.Started(task, s.Provider, 1), nil))
	task = tool.AfterStart(task, s.Provider, 1)
	o := r.Do(t.Context(), tool.CallOf(d.run, task, q.Input), s, func(raw json.RawMessage) error {
		defer close(going)
		return d.commit(tool.Progressed(task, raw, 1), nil)
	})
	require.JSONEq(t, string(secrets), string(ran), "the tool itself sees everything")
	require.Equal(t, tool.ParamsHash(secrets), o.OutputHash)
	require.NoError(t, d.commit(tool.Finished(task, o, 1)))

	wrong := d.request("call_2")
	wrong.Input = json.RawMessage(`not JSON: ` + canaries[2])
	require.NoError(t, d.commit(tool.Refused(wrong, &allowed, &tool.Error{Class: "x", Message: "it said " + canaries[0]})))

	rows, err := d.pool.Query(t.Context(), `SELECT to_jsonb(t)::text FROM runtime.tool_tasks t UNION ALL SELECT to_jsonb(e)::text FROM runtime.run_log e`)
	require.NoError(t, err)
	defer rows.Close()
	var all strings.Builder
	for rows.Next() {
		var text string
		require.NoError(t, rows.Scan(&text))
		all.WriteString(text)
	}
	require.NoError(t, rows.Err())
	for _, c := range append([]string{"hunter2-hunter2"}, canaries...) {
		require.NotContains(t, all.String(), c)
	}
	require.Contains(t, all.String(), redact.Redacted)
}

// A cut never leaves a part of a secret: redaction comes first.
func TestACutLeavesNoHalfOfASecret(t *testing.T) {
	t.Parallel()
	for pad := range 60 {
		s := spec("a", func(s *tool.Spec) { s.MaxOutput = 400 })
		output, err := json.Marshal(strings.Repeat("x ", 80+pad) + canaries[0] + strings.Repeat(" y", 400))
		require.NoError(t, err)
		o := runner(t, tool.Config{}, made{s, gives(string(output))}).Do(t.Context(), call("a"), s, quiet)
		require.Equal(t, tool.Succeeded, o.State)
		require.NotContains(t, string(o.Output), "ghp_")
	}
}

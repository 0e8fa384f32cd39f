package check_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/check"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/contractcopy"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
)

func oasdiff(t *testing.T) string {
	t.Helper()
	tool, err := gogen.Tool(context.Background(), contractcopy.Root(t), "oasdiff", "-modfile=openapi/tools.mod")
	require.NoError(t, err)
	return tool
}

func TestChangesThatBreakAreRefused(t *testing.T) {
	t.Parallel()
	tool := oasdiff(t)
	base := check.Base{Name: "the base", Documents: check.Documents(load(t, contractcopy.Root(t)).Bundles)}
	const (
		runtimeDoc = "gen/openapi/runtime.yaml"
		eventsDoc  = "gen/openapi/events.yaml"
		dsDoc      = "gen/openapi/ds.yaml"
	)
	for name, c := range map[string]struct {
		edits   edits
		path    string
		problem string // empty: nothing breaks
	}{
		"operation removed":         {edits{edit(api, "paths|/internal/v1/threads/{threadId}/state", "")}, runtimeDoc, "/internal/v1/threads/{threadId}/state"},
		"operation renamed":         {edits{edit(api, start+"|operationId", "beginRun")}, runtimeDoc, "startRun"},
		"request member required":   {edits{edit(api, shapes+"|AppendFrameRequest|required", "[frameId, type, payload, source]")}, runtimeDoc, "POST /internal/v1/runs/{runId}/frames"},
		"request member removed":    {edits{edit(api, shapes+"|StartRunRequest|properties|keepOpen", "")}, runtimeDoc, "keepOpen"},
		"request text shortened":    {edits{edit(api, shapes+"|CancelRunRequest|properties|reason|maxLength", "10")}, runtimeDoc, "maxLength was decreased"},
		"pattern changed":           {edits{edit(api, shapes+"|RunID|pattern", "'^[a-z]+$'")}, runtimeDoc, "pattern"},
		"response member removed":   {edits{edit(api, shapes+"|RunList|properties|nextPageToken", "")}, runtimeDoc, "nextPageToken"},
		"response member optional":  {edits{edit(api, shapes+"|RunList|required", "")}, runtimeDoc, "runs"},
		"response type changed":     {edits{edit(api, shapes+"|ThreadMessage|properties|text|type", "integer")}, runtimeDoc, "text"},
		"closed enum grows":         {edits{edit(api, shapes+"|Health|properties|status|enum", "[ok, poor]")}, runtimeDoc, "poor"},
		"closed enum opens":         {edits{edit(api, shapes+"|RunStatus|x-extensible-enum", "true")}, runtimeDoc, "status"},
		"default changed":           {edits{edit(api, shapes+"|StartRunRequest|properties|keepOpen|default", "true")}, runtimeDoc, "keepOpen"},
		"response header removed":   {edits{edit(api, start+"|responses|202|headers|idempotent-replay", "")}, runtimeDoc, "idempotent-replay"},
		"scope raised":              {edits{edit(api, start+"|x-required-scope", "operator")}, runtimeDoc, "the required scope went from service to operator"},
		"no more idempotent":        {edits{edit(api, start+"|x-idempotent", "false")}, runtimeDoc, "x-idempotent went from true to false"},
		"smaller bodies":            {edits{edit(api, start+"|x-max-body-bytes", "100")}, runtimeDoc, "x-max-body-bytes went from"},
		"status of a code":          {edits{edit(api, shapes+"|ErrorCode|x-status|run_not_found", "410")}, runtimeDoc, "the status of run_not_found went from 404 to 410"},
		"event member removed":      {edits{edit(events, shapes+"|MessageFinishedV1|properties|receipt_id", "")}, eventsDoc, "receipt_id"},
		"event member required":     {edits{edit(events, shapes+"|MessageFinishedV1|required", "[part_id, text, receipt_id]")}, eventsDoc, "MessageFinishedV1"},
		"event text shortened":      {edits{edit(events, shapes+"|MessageDeltaV1|properties|delta|maxLength", "10")}, eventsDoc, "maxLength was decreased"},
		"event text lengthened":     {edits{edit(events, shapes+"|MessageDeltaV1|properties|delta|maxLength", "99999999")}, eventsDoc, "maxLength was increased"},
		"event removed":             {edits{edit(events, shapes+"|RunWokenV1", "")}, eventsDoc, "RunWokenV1"},
		"record tightened":          {edits{edit(record, "$defs|Timing|properties|latency_ms|minimum", "5")}, dsDoc, "latency_ms"},
		"record loosened":           {edits{edit(record, "required", "[format, format_version, receipt_id]")}, dsDoc, "PredictReceiptV1"},
		"record pattern":            {edits{edit(record, "$defs|Digest|pattern", "'^sha512:'")}, dsDoc, "pattern"},
		"signature input":           {edits{edit(ask, "output_schema|properties|text|maxLength", "10")}, dsDoc, "RespondV1Output"},
		"extensible enum shrinks":   {edits{edit(record, "properties|status|enum", "[succeeded, failed, canceled]")}, dsDoc, "timed_out"},
		"reason code removed":       {edits{edit(reasons, "codes|3|code", "policy_denied.renamed")}, dsDoc, "the number of policy_denied.explicit_deny went from 100 to none"},
		"reason code renumbered":    {edits{edit(reasons, "codes|0|number", "2"), edit(reasons, "codes|1|number", "3"), edit(reasons, "codes|2|number", "4")}, dsDoc, "the number of policy_allowed.default went from 1 to 2"},
		"nothing":                   {nil, "", ""},
		"extensible enum grows":     {edits{edit(record, "properties|status|enum", "[succeeded, failed, canceled, timed_out, lost]"), edit(api, shapes+"|ReasonClass|enum", "[completed, cancel_requested, model_failed, context_window_exceeded, max_steps_exceeded, max_wall_clock_exceeded, max_tokens_exceeded, max_model_calls_exceeded, executor_recovery_exhausted, internal_error, tired]")}, "", ""},
		"optional members are new":  {edits{edit(api, shapes+"|StartRunRequest|properties|label", "{type: string, description: A label., maxLength: 10}"), edit(api, shapes+"|RunList|properties|total", "{type: integer, format: int64, description: All.}")}, "", ""},
		"a new event":               {edits{edit(events, shapes+"|RunPausedV1", "{type: object, x-event-type: run.paused, x-event-version: 1, description: Paused.}")}, "", ""},
		"descriptions and examples": {edits{edit(api, start+"|summary", "Begin"), edit(api, shapes+"|RunID|description", "An id.")}, "", ""},
		"scope lowered":             {edits{edit(api, start+"|x-required-scope", "read")}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := contractcopy.New(t, "openapi", "schemas")
			contractcopy.Apply(t, root, c.edits...)
			changes, found, err := check.Breaking(context.Background(), tool, base, check.Documents(load(t, root).Bundles))
			require.NoError(t, err)
			if c.problem == "" {
				require.Empty(t, check.Report(found))
				return
			}
			requireFinding(t, found, "breaking", c.path, c.problem, "make contract-accept")
			summary := check.Summary(base, changes)
			require.Contains(t, summary, "## Contract changes")
			require.Contains(t, summary, "**breaking:**")
		})
	}
}

func TestWithoutAnAcceptedContractTheCheckSaysWhatToDo(t *testing.T) {
	t.Parallel()
	docs := check.Documents(load(t, contractcopy.Root(t)).Bundles)
	_, found, err := check.Breaking(context.Background(), "unused", check.Base{}, docs)
	require.NoError(t, err)
	for _, name := range []string{"runtime.yaml", "events.yaml", "ds.yaml"} {
		requireFinding(t, found, "breaking", "openapi/baseline/"+name, "no accepted contract", "run `make contract-accept`")
	}
}

func TestTheSummaryGroupsChanges(t *testing.T) {
	t.Parallel()
	require.Equal(t, strings.TrimPrefix(`
## Contract changes

Compared with the base.

### API

**`+"`GET /a`"+`**

- one
- **breaking:** two

### DS schemas

**`+"`ThingV1`"+`**

- three
`, "\n"), check.Summary(check.Base{Name: "the base"}, []check.Change{
		{"ds.yaml", "ThingV1", "three", false}, {"runtime.yaml", "GET /a", "one", false}, {"runtime.yaml", "GET /a", "two", true},
	}))
	require.Contains(t, check.Summary(check.Base{Name: "x"}, nil), "None.")
}

// repository is a git repository with a contract on main, and a branch of it
// that is checked out.
func repository(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, root, map[string]string{
		"openapi/baseline/runtime.yaml": "accepted", "openapi/baseline/events.yaml": "accepted", "openapi/baseline/ds.yaml": "accepted",
		"gen/openapi/runtime.yaml": "on main", "gen/openapi/events.yaml": "on main", "gen/openapi/ds.yaml": "on main",
	})
	git(t, root, "init", "--quiet", "--initial-branch=main")
	commit(t, root)
	git(t, root, "checkout", "--quiet", "-b", "branch")
	return root
}

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
}

func git(t *testing.T, root string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func commit(t *testing.T, root string) {
	t.Helper()
	git(t, root, "add", "--all")
	git(t, root, "commit", "--quiet", "--no-verify", "--message", "change")
}

func TestTheBaseIsWhereTheBranchLeftMain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change   map[string]string // committed on the branch
		explicit string
		want     string // content of runtime.yaml
		title    string
	}{
		"on main itself":         {nil, "", "accepted", "the accepted contract"},
		"a branch":               {map[string]string{"gen/openapi/runtime.yaml": "on the branch"}, "", "on main", "the base branch"},
		"a branch that accepts":  {map[string]string{"openapi/baseline/ds.yaml": "moved"}, "", "accepted", "the accepted contract"},
		"an explicit base":       {map[string]string{"gen/openapi/runtime.yaml": "on the branch"}, "main", "on main", "the base branch"},
		"explicit, but the same": {map[string]string{"gen/openapi/runtime.yaml": "on the branch"}, "branch", "accepted", "the accepted contract"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := repository(t)
			if c.change != nil {
				write(t, root, c.change)
				commit(t, root)
			}
			base, err := check.FindBase(context.Background(), root, c.explicit)
			require.NoError(t, err)
			require.Contains(t, base.Name, c.title)
			require.Equal(t, c.want, string(base.Documents["runtime.yaml"]))
		})
	}
}

func TestAnUnknownBaseIsAnError(t *testing.T) {
	t.Parallel()
	_, err := check.FindBase(context.Background(), repository(t), "nowhere")
	require.ErrorContains(t, err, "CONTRACT_BASE=nowhere is no commit here: fetch it")
}

func TestOutsideGitTheAcceptedContractIsTheBase(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write(t, root, map[string]string{"openapi/baseline/runtime.yaml": "accepted"})
	base, err := check.FindBase(context.Background(), root, "")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"runtime.yaml": []byte("accepted")}, maps.Clone(base.Documents))
}

package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/policy"
)

func phpNumbers(t *testing.T, source string) map[string]int {
	t.Helper()
	values := map[string]string{}
	for _, m := range regexp.MustCompile(`case (\w+) = '([^']+)';`).FindAllStringSubmatch(source, -1) {
		values[m[1]] = m[2]
	}
	numbers := map[string]int{}
	for _, m := range regexp.MustCompile(`self::(\w+) => (\d+),`).FindAllStringSubmatch(source, -1) {
		n, err := strconv.Atoi(m[2])
		require.NoError(t, err)
		numbers[values[m[1]]] = n
	}
	return numbers
}

var catalog = []policy.Tool{
	{Name: "timeline.search", Groups: []string{"memory"}},
	{Name: "http.fetch", Provider: "http", Groups: []string{"web"}},
	{Name: "http.post", Provider: "http", Groups: []string{"net", "web"}, Writes: true},
	{Name: "github.comment", Provider: "github", Writes: true},
	{Name: "mcp.files.read", Provider: "mcp:files"},
	{Name: "pick_color", Client: true},
}

func visible(r *policy.Rules, run policy.Run) []string {
	var names []string
	for _, t := range r.Visible(run, catalog) {
		names = append(names, t.Name)
	}
	return names
}

func rules(t *testing.T, members string) *policy.Rules {
	t.Helper()
	r, err := policy.Parse([]byte(`{"format":"openagents.runtime.tool_policy","format_version":1` + members + `}`))
	require.NoError(t, err)
	return r
}

func TestWhatAModelIsShown(t *testing.T) {
	t.Parallel()
	all := []string{"timeline.search", "http.fetch", "http.post", "github.comment", "mcp.files.read", "pick_color"}
	def := []string{"timeline.search", "http.fetch", "pick_color"}
	for name, c := range map[string]struct {
		file string
		run  policy.Run
		want []string
	}{
		"default set":            {``, policy.Run{}, def},
		"no default set":         {`,"default_tools":[]`, policy.Run{}, nil},
		"all":                    {``, policy.Run{Allow: []string{"*"}}, all},
		"names":                  {``, policy.Run{Allow: []string{" HTTP.Fetch ", "github.*"}}, []string{"http.fetch", "github.comment"}},
		"deny wins":              {``, policy.Run{Allow: []string{"*"}, Deny: []string{"http.*"}}, []string{"timeline.search", "github.comment", "mcp.files.read", "pick_color"}},
		"deny from the default":  {``, policy.Run{Deny: []string{"http.fetch"}}, []string{"timeline.search", "pick_color"}},
		"group of the file":      {`,"groups":{"mine":["mcp.*","http.fetch"]}`, policy.Run{Allow: []string{"group:mine"}}, []string{"http.fetch", "mcp.files.read"}},
		"group of the tool":      {``, policy.Run{Allow: []string{"group:web"}}, []string{"http.fetch", "http.post"}},
		"second group":           {``, policy.Run{Allow: []string{"group:net"}}, []string{"http.post"}},
		"reads":                  {``, policy.Run{Allow: []string{"*"}, Deny: []string{"group:writes"}}, []string{"timeline.search", "http.fetch", "mcp.files.read", "pick_color"}},
		"profile":                {``, policy.Run{Profile: "read_only", Allow: []string{"*"}}, []string{"timeline.search", "http.fetch", "mcp.files.read", "pick_color"}},
		"profile none":           {``, policy.Run{Profile: "none", Allow: []string{"*"}}, nil},
		"a profile nobody knows": {``, policy.Run{Profile: "imagined", Allow: []string{"*"}}, nil},
		"provider":               {`,"providers":{"http":{"deny":["*"]}}`, policy.Run{Allow: []string{"*"}}, []string{"timeline.search", "github.comment", "mcp.files.read", "pick_color"}},
		"agent":                  {`,"agents":{"a1":{"allow":["mcp.*"]}}`, policy.Run{AgentID: "a1", Allow: []string{"*"}}, []string{"mcp.files.read"}},
		"another agent":          {`,"agents":{"a1":{"allow":["mcp.*"]}}`, policy.Run{AgentID: "a2"}, def},
		"guest mode":             {``, policy.Run{GuestMode: true, Allow: []string{"*"}}, []string{"timeline.search", "pick_color"}},
		"guest":                  {``, policy.Run{Guest: true}, []string{"timeline.search", "pick_color"}},
		"no guest list":          {`,"guest_tools":[]`, policy.Run{Guest: true, Allow: []string{"*"}}, nil},
		"only misspelt":          {``, policy.Run{Allow: []string{"htpp.fetch"}}, nil},
		"only look-alikes":       {``, policy.Run{Allow: []string{"httр.fetch", "*\u200b"}}, nil},
		"look-alikes deny":       {``, policy.Run{Deny: []string{"httр.fetch"}}, []string{"timeline.search", "pick_color"}},
		"alias":                  {`,"aliases":{"fetch":"http.fetch"}`, policy.Run{Allow: []string{"Fetch"}}, []string{"http.fetch"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, visible(rules(t, c.file), c.run))
		})
	}
}

// An alias is the tool: refusing one name refuses both.
func TestAToolCannotHideBehindItsAlias(t *testing.T) {
	t.Parallel()
	r := rules(t, `,"aliases":{"bash":"exec"}`)
	for _, deny := range []string{"exec", "bash"} {
		for _, tool := range []string{"exec", "bash"} {
			require.Empty(t, r.Visible(policy.Run{Allow: []string{"*"}, Deny: []string{deny}}, []policy.Tool{{Name: tool}}), "%s %s", deny, tool)
		}
	}
}

func TestWritesAskAPersonUnlessTheFileSaysOtherwise(t *testing.T) {
	t.Parallel()
	write, read := policy.Tool{Name: "http.post", Writes: true}, policy.Tool{Name: "http.fetch"}
	run := policy.Run{Allow: []string{"*"}}
	ask := func(r *policy.Rules, run policy.Run, tool policy.Tool) string {
		in := r.Input(run, tool, policy.Call{ArgsHash: args, At: time.Now()})
		return decide(t, in).Decision
	}
	require.Equal(t, policy.NeedsApproval, ask(policy.Default(), run, write))
	require.Equal(t, policy.Allowed, ask(policy.Default(), run, read))
	require.Equal(t, policy.Allowed, ask(rules(t, `,"require_approval":[]`), run, write))
	run.RequireApproval = []string{"http.*"}
	require.Equal(t, policy.NeedsApproval, ask(rules(t, `,"require_approval":[]`), run, read))
	read.NeedsApproval = true
	require.Equal(t, policy.NeedsApproval, ask(rules(t, `,"require_approval":[]`), policy.Run{}, read))
}

// A15: no spelling of a refused tool is another tool.
func TestNoSpellingPassesADenyList(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"HTTP.FETCH", " http.fetch ", "http.fetch\u200b", "ｈｔｔｐ.ｆｅｔｃｈ", "httр.fetch", "http․fetch", "hттp.fetch", "http.fеtch",
		"h\u00adttp.fetch", "http.fetch\u200d", "ℎttp.fetch", "http.fet\u0301ch", "𝐡𝐭𝐭𝐩.fetch", "http.fetch\u0000", "HTTP.ＦETCH", "http.ƒetch", "http.fetch\ufe0f", "http.feтch",
	} {
		folded, _ := policy.Name(name)
		require.Equal(t, "http.fetch", folded, "%q", name)
		require.Empty(t, policy.Default().Visible(policy.Run{Deny: []string{"http.fetch"}}, []policy.Tool{{Name: name}}), "%q", name)
	}
	// Nor does a look-alike pass a list that allows what it looks like.
	for _, name := range []string{"httр.fetch", "ｈttp.fetch", "http.fetch\u200d"} {
		require.Empty(t, policy.Default().Visible(policy.Run{Allow: []string{"*"}}, []policy.Tool{{Name: name}}), "%q", name)
	}
	for _, name := range []string{"*", "http.*", "group:reads", ""} {
		require.Empty(t, policy.Default().Visible(policy.Run{Allow: []string{"*"}}, []policy.Tool{{Name: name}}), "%q", name)
	}
}

func TestARefusalNamesItsList(t *testing.T) {
	t.Parallel()
	in := policy.Default().Input(policy.Run{Deny: []string{"http.fetch"}}, catalog[1], policy.Call{})
	require.Equal(t, "run", decide(t, in).Layer)
	in = policy.Default().Input(policy.Run{}, catalog[3], policy.Call{})
	require.Equal(t, "default", decide(t, in).Layer)
}

func TestMisspeltNamesAreTold(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{
		`tools: run allow names unknown entries ["group:nix" "htpp.fetch"]; they match nothing`,
		`tools: the profile "imagined" is unknown; it allows nothing`,
	}, policy.Default().RunWarnings(policy.Run{Profile: "imagined", Allow: []string{"htpp.fetch", "http.fetch", "group:web", "group:reads", "group:nix"}}, catalog))
	require.Empty(t, policy.Default().RunWarnings(policy.Run{Allow: []string{"http.fetch"}}, catalog))
	r, err := policy.Parse([]byte(`{"format":"openagents.runtime.tool_policy","format_version":1,
		"profiles":{"default":{"deny":["htpp.fetch"]}},"guest_tools":["timeline.serach"]}`))
	require.NoError(t, err)
	require.Equal(t, []string{
		`tools: guest tools names unknown entries ["timeline.serach"]; they match nothing`,
		`tools: profile (default) deny names unknown entries ["htpp.fetch"]; they match nothing`,
	}, r.Warnings(catalog))
	require.Empty(t, policy.Default().Warnings(nil), "what is built in is no mistake")
}

func TestAFileIsReadStrictly(t *testing.T) {
	t.Parallel()
	const head = `{"format":"openagents.runtime.tool_policy","format_version":1`
	for _, members := range []string{
		`,"surplus":1}`, `,"default_profile":"gone"}`, `,"groups":{"reads":["x"]}}`, `,"guest_tools":["hттp"]}`, `,"limits":{"parallel_tools_per_owner":-1}}`,
		`,"require_approval":null}`, `,"profiles":{"X":{}}}`, `,"format_version":1}`, ``,
	} {
		_, err := policy.Parse([]byte(head + members))
		require.Error(t, err, members)
	}
	path := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(path, []byte(head+`,"approval_lifetime_seconds":60}`), 0o600))
	r, err := policy.Load(path)
	require.NoError(t, err)
	require.Equal(t, time.Minute, r.ApprovalLifetime())
	require.NotEqual(t, policy.Default().ID(), r.ID())
	require.Equal(t, policy.Default().Limits(), r.Limits())
	_, err = policy.Load(path + ".gone")
	require.ErrorContains(t, err, "tool policy")
	def, err := policy.Load("")
	require.NoError(t, err)
	require.Equal(t, policy.Default().ID(), def.ID())
}

// What Decide writes satisfies the schema that it is stored under.
func TestDocumentsSatisfyTheirSchema(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile("../../schemas/ds/policy_evaluation.v1.json")
	require.NoError(t, err)
	rapid.Check(t, func(rt *rapid.T) {
		list := rapid.SliceOfN(entries, 0, 3)
		run := policy.Run{Allow: list.Draw(rt, "allow"), Deny: list.Draw(rt, "deny"), RequireApproval: list.Draw(rt, "require"), Guest: rapid.Bool().Draw(rt, "guest")}
		tool := rapid.SampledFrom(catalog).Draw(rt, "tool")
		e := decide(rt, policy.Default().Input(run, tool, policy.Call{ArgsHash: args, Domain: "example.com", At: now}))
		var doc any
		require.NoError(rt, json.Unmarshal(e.Document, &doc))
		require.NoError(rt, schema.Validate(doc))
	})
}

func BenchmarkVisible(b *testing.B) {
	var tools []policy.Tool
	for i := range 100 {
		tools = append(tools, policy.Tool{Name: fmt.Sprintf("mcp.server.tool_%d", i), Groups: []string{"mcp"}})
	}
	r, run := policy.Default(), policy.Run{Allow: []string{"mcp.*", "group:web", "http.fetch"}, Deny: []string{"mcp.server.tool_1"}}
	for b.Loop() {
		r.Visible(run, tools)
	}
}

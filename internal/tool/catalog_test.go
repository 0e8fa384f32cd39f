package tool_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

func view(t require.TestingT, names ...string) tool.View {
	tools := make([]tool.Tool, len(names))
	for i, name := range names {
		tools[i] = made{spec(name), gives("1")}
	}
	c, err := tool.NewCatalog(tools...)
	require.NoError(t, err)
	v, err := c.For(nil)
	require.NoError(t, err)
	return v
}

func TestAModelIsToldNamesThatProvidersTake(t *testing.T) {
	t.Parallel()
	require.Equal(t, "http_fetch", view(t, "http.fetch").ModelName("http.fetch"))
	both := view(t, "http.fetch", "http_fetch")
	require.Equal(t, "http_fetch", both.ModelName("http_fetch"), "a name that may stay stays")
	require.Regexp(t, `^http_fetch_[0-9a-f]{8}$`, both.ModelName("http.fetch"))
	name, ok := both.FromModel("http.fetch")
	require.True(t, ok)
	require.Equal(t, "http.fetch", name)
	_, ok = both.FromModel("http_post")
	require.False(t, ok)
}

func TestToldNamesAreUniqueAndComeBack(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab]([._-]|x{18}){0,6}`), 1, 12, rapid.ID[string]).Draw(t, "names")
		v, again := view(t, names...), view(t, names...)
		seen := map[string]bool{}
		for _, name := range names {
			told := v.ModelName(name)
			require.Regexp(t, form, told)
			require.False(t, seen[told], "%s", told)
			seen[told] = true
			back, ok := v.FromModel(told)
			require.True(t, ok)
			require.Equal(t, name, back)
			require.Equal(t, told, again.ModelName(name))
		}
	})
}

// doubling is a schema of n parts that looks 2^n times at one value.
func doubling(n int) string {
	var b strings.Builder
	b.WriteString(`{"type":"object","$ref":"#/$defs/d0","$defs":{`)
	for i := range n {
		fmt.Fprintf(&b, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"d%d":{}}}`, n)
	return b.String()
}

func TestSchemasThatAreNotTaken(t *testing.T) {
	t.Parallel()
	for name, schema := range map[string]string{
		"a remote reference":        `{"properties":{"a":{"$ref":"https://example.com/s.json"}}}`,
		"a file":                    `{"$ref":"file:///etc/passwd"}`,
		"another name for itself":   `{"properties":{"a":{"$id":"https://example.com/","$ref":"s.json"}}}`,
		"a reference to nothing":    `{"$ref":"#/$defs/none"}`,
		"a circle":                  `{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"allOf":[{"$ref":"#/$defs/a"}]}}}`,
		"exponential work":          doubling(40),
		"exponential work by depth": `{"allOf":[{"items":{"$ref":"#"}},{"additionalProperties":{"$ref":"#"},"items":{"$ref":"#"}}]}`,
		"a dynamic reference":       `{"$dynamicRef":"#a"}`,
		"too long":                  `{"description":"` + strings.Repeat("x", 70_000) + `"}`,
		"too deep":                  strings.Repeat(`{"not":`, 200) + `{}` + strings.Repeat(`}`, 200),
		"a pattern that is none":    `{"properties":{"a":{"pattern":"("}}}`,
		"no JSON":                   `{`,
		"no schema":                 `{"type":"thing"}`,
		"a member twice":            `{"type":"object","type":"object"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			require.Error(t, tool.Check(spec("a", func(s *tool.Spec) { s.Input = json.RawMessage(schema) })))
			require.Error(t, tool.Check(spec("a", func(s *tool.Spec) { s.Output = json.RawMessage(schema) })))
			require.Less(t, time.Since(began), 10*time.Second)
		})
	}
	for name, schema := range map[string]string{
		"a tree":           `{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}}}`,
		"a list of itself": `{"properties":{"all":{"type":"array","items":{"$ref":"#/$defs/one"}}},"$defs":{"one":{"anyOf":[{"type":"string"},{"$ref":"#"}]}}}`,
		"an older draft":   `{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"a":{"type":"string"}},"properties":{"a":{"$ref":"#/definitions/a"}}}`,
		"a few doublings":  doubling(8),
	} {
		require.NoError(t, tool.Check(spec("a", func(s *tool.Spec) { s.Input = json.RawMessage(schema) })), name)
	}
}

func TestWhatIsNoTool(t *testing.T) {
	t.Parallel()
	for _, change := range []func(*tool.Spec){
		func(s *tool.Spec) { s.Name = "1a" },
		func(s *tool.Spec) { s.Name = strings.Repeat("a", 129) },
		func(s *tool.Spec) { s.Kind = "magic" },
		func(s *tool.Spec) { s.Boundary = "" },
		func(s *tool.Spec) { s.Timeout = 0 },
		func(s *tool.Spec) { s.Provider = "" },
		func(s *tool.Spec) { s.Input = nil },
	} {
		require.Error(t, tool.Check(spec("a", change)))
	}
}

func TestAnInputIsCheckedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	c, err := tool.NewCatalog(made{spec("mail.send", func(s *tool.Spec) {
		s.Input = json.RawMessage(`{"type":"object","additionalProperties":false,"required":["to"],
			"properties":{"to":{"type":"string","pattern":"@"},"n":{"type":"integer","maximum":3}}}`)
	}), gives("1")})
	require.NoError(t, err)
	v, err := c.For(nil)
	require.NoError(t, err)
	require.Nil(t, v.CheckInput("mail.send", json.RawMessage(`{"to":"a@b","n":3}`)))
	for input, where := range map[string]string{
		`{}`:                          "the whole lacks to",
		`{"to":"hunter2"}`:            "/to must match @",
		`{"to":"a@b","hunter":"2"}`:   "members that are not known: hunter",
		`{"to":"a@b","n":4}`:          "/n must be at most 3",
		`{"to":"a@b","n":"hunter2"}`:  "/n must be integer, not string",
		`[]`:                          "must be an object",
		`null`:                        "must be an object",
		``:                            "canonical JSON",
		`{"to":"a@b","to":"hunter2"}`: "comes twice",
		`{"to":"` + strings.Repeat("@", 300_000) + `"}`: "256 KiB",
	} {
		wrong := v.CheckInput("mail.send", json.RawMessage(input))
		require.NotNil(t, wrong, "%.60s", input)
		require.Equal(t, tool.ClassInput, wrong.Class)
		require.Contains(t, wrong.Message, where)
		require.NotContains(t, wrong.Message, "hunter2")
	}
	require.Equal(t, tool.ClassNotFound, v.CheckInput("mail.read", json.RawMessage(`{}`)).Class)
}

func TestASourceIsReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	c, err := tool.NewCatalog(made{spec("own"), gives("1")})
	require.NoError(t, err)
	names := func() (all []string) {
		v, err := c.For(nil)
		require.NoError(t, err)
		for _, s := range v.Specs() {
			all = append(all, s.Name)
		}
		return all
	}
	require.NoError(t, c.Set("mcp:x", []tool.Tool{made{spec("x.b"), gives("1")}, made{spec("x.a"), gives("1")}}))
	require.Equal(t, []string{"own", "x.a", "x.b"}, names())
	require.Error(t, c.Set("mcp:x", []tool.Tool{made{spec("own"), gives("1")}}))
	require.Error(t, c.Set("mcp:y", []tool.Tool{made{spec("x.a"), gives("1")}}))
	require.Error(t, c.Set("mcp:x", []tool.Tool{made{spec("x.c"), gives("1")}, made{spec("x.c"), gives("1")}}))
	require.Equal(t, []string{"own", "x.a", "x.b"}, names(), "what is refused changes nothing")
	before, err := c.For(nil)
	require.NoError(t, err)
	require.NoError(t, c.Set("mcp:x", nil))
	require.Equal(t, []string{"own"}, names())
	_, still := before.Spec("x.a")
	require.True(t, still, "a view stays as it was")
}

func TestClientToolsAreTheRunsOwn(t *testing.T) {
	t.Parallel()
	c, err := tool.NewCatalog(made{spec("http.fetch"), gives("1")})
	require.NoError(t, err)
	declared := json.RawMessage(`[{"name":"pick_color","description":"Asks.","inputSchema":{"type":"object","required":["why"]},
		"outputSchema":{"type":"string"},"requiresApproval":true,"timeoutMs":2000}]`)
	require.NoError(t, c.CheckClientTools(declared))
	v, err := c.For(declared)
	require.NoError(t, err)
	s, ok := v.Spec("pick_color")
	require.True(t, ok)
	require.Equal(t, tool.Client, s.Kind)
	require.True(t, s.NeedsApproval)
	require.Equal(t, 2*time.Second, s.Timeout)
	require.NotNil(t, v.CheckInput("pick_color", json.RawMessage(`{}`)))
	require.NotNil(t, v.CheckOutput("pick_color", json.RawMessage(`1`)))
	require.Nil(t, v.CheckOutput("pick_color", json.RawMessage(`"red"`)))
	plain, err := c.For(nil)
	require.NoError(t, err)
	_, ok = plain.Spec("pick_color")
	require.False(t, ok)

	for _, bad := range []string{
		`[{"name":"http.fetch","description":"x","inputSchema":{}}]`,
		`[{"name":"a","description":"x","inputSchema":{}},{"name":"a","description":"x","inputSchema":{}}]`,
		`[{"name":"a","description":"x","inputSchema":{"$ref":"http://example.com"}}]`,
		`[{"name":"a b","description":"x","inputSchema":{}}]`,
		`{`,
	} {
		require.Error(t, c.CheckClientTools(json.RawMessage(bad)), bad)
	}
	require.NoError(t, c.Set("mcp:x", []tool.Tool{made{spec("pick_color"), gives("1")}}))
	v, err = c.For(declared)
	require.NoError(t, err, "a run that has begun goes on")
	s, _ = v.Spec("pick_color")
	require.Equal(t, tool.Client, s.Kind)
}

package builtin_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

func TestASchemaIsFilledFromTheText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ schema, text, want string }{
		{`{"type":"object","properties":{"a":{"type":"integer","minimum":10,"maximum":20}},"required":["a"]}`, "a is 300", `{"a":20}`},
		{`{"type":"object","properties":{"a":{"type":"integer","multipleOf":5,"exclusiveMinimum":10}},"required":["a"]}`, "nothing", `{"a":15}`},
		{`{"type":"object","properties":{"price":{"type":"number"}},"required":["price"]}`, "It costs 1,299.50 today", `{"price":1299.5}`},
		{`{"type":"object","properties":{"width":{"type":"integer"},"height":{"type":"integer"}},"required":["width","height"]}`, "height 4, width 7", `{"height":4,"width":7}`},
		{`{"type":"object","properties":{"code":{"type":"string","pattern":"^[A-Z]{2}-[0-9]{3}$"}},"required":["code"]}`, "please look at XK-123 today", `{"code":"XK-123"}`},
		{`{"type":"object","properties":{"code":{"type":"string","pattern":"^[a-z]{2}[0-9]{3,}$","minLength":7}},"required":["code"]}`, "none", `{"code":"aa00000"}`},
		{`{"type":"object","properties":{"d":{"type":"string","format":"date"}},"required":["d"]}`, "We meet on March 3rd, 2027.", `{"d":"2027-03-03"}`},
		{`{"type":"object","properties":{"site":{"type":"string","format":"uri"},"id":{"type":"string","format":"uuid"}}}`, "see https://a.example/x?y=1, id 123e4567-e89b-12d3-a456-426614174000", `{"id":"123e4567-e89b-12d3-a456-426614174000","site":"https://a.example/x?y=1"}`},
		{`{"type":"object","properties":{"urgent":{"type":"boolean"},"paid":{"type":"boolean"}},"required":["urgent","paid"]}`, "This is not urgent and it is paid", `{"paid":true,"urgent":false}`},
		{`{"type":"object","properties":{"v":{"const":"v1"},"n":{"type":["string","null"],"format":"email"}},"required":["v","n"]}`, "x", `{"n":null,"v":"v1"}`},
		{`{"type":"object","properties":{"tags":{"type":"array","items":{"enum":["red","green","blue"]},"uniqueItems":true}},"required":["tags"]}`, "paint it blue or red", `{"tags":["red","blue"]}`},
		{`{"type":"object","properties":{"p":{"$ref":"#/$defs/person"}},"required":["p"],"$defs":{"person":{"type":"object","properties":{"name":{"type":"string"}},"required":["name"]}}}`, "My name is Ida Rask.", `{"p":{"name":"Ida Rask"}}`},
		{`{"anyOf":[{"type":"object","properties":{"email":{"type":"string","format":"email"}},"required":["email"]},{"type":"object","properties":{"url":{"type":"string","format":"uri"}},"required":["url"]}]}`, "go to https://b.example", `{"url":"https://b.example"}`},
		{`{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"string","maxLength":3}},"required":["b"]}]}`, `5 "abcdef"`, `{"a":5,"b":"abc"}`},
		{`{"type":"object","properties":{"answer":{"type":"string"}},"required":["answer"]}`, "What is 6 * 7?", `{"answer":"6 * 7 = 42"}`},
		// What an incomplete object gives up is there for the next.
		{`{"type":"object","properties":{"a":{"type":"object","properties":{"m":{"type":"string","format":"email"},"n":{"type":"integer"}},"required":["m","n"]},"b":{"type":"object","properties":{"m":{"type":"string","format":"email"}},"required":["m"]}}}`, "write to c@d.example", `{"b":{"m":"c@d.example"}}`},
		{`{"type":"array","items":{"type":"integer"},"maxItems":2}`, "1 and 2 and 3", `[1,2]`},
		{`{"type":"string"}`, "just this", `"just this"`},
		{`true`, "anything", `"anything"`},
	} {
		_, res := ask(t, model.Request{Messages: user(c.text), Schema: json.RawMessage(c.schema)})
		require.JSONEq(t, c.want, res.Text, "%s\n%s", c.schema, c.text)
		require.NoError(t, validate(json.RawMessage(c.schema), res.Text))
	}
}

// Whatever the schema of the supported kind and whatever the text, the output
// validates.
func TestTheOutputAlwaysValidates(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		schema := drawSchema(rt, 3)
		raw, err := json.Marshal(schema)
		if err != nil {
			rt.Fatal(err)
		}
		text := rapid.SampledFrom([]string{
			"", "hello", "Ann Berg, 41, ann@berg.example, tags: a, b and c; 2026-01-02 https://x.example 3.75 -12 1e5",
			"not urgent; alpha 7; beta 900000000000000000000\ngamma", "“” '' \" \\ \x00 é 漢字 #12 AB-9",
		}).Draw(rt, "text")
		_, res := ask(t, model.Request{Messages: user(text + " "), Schema: raw})
		if err := validate(raw, res.Text); err != nil {
			rt.Fatalf("%s\n%s\n%s", raw, res.Text, err)
		}
	})
}

func drawSchema(rt *rapid.T, depth int) map[string]any {
	kinds := []string{"string", "integer", "number", "boolean", "enum", "const", "format", "pattern"}
	if depth > 0 {
		kinds = append(kinds, "object", "array", "anyOf", "object")
	}
	switch k := rapid.SampledFrom(kinds).Draw(rt, "kind"); k {
	case "string":
		s := map[string]any{"type": "string"}
		low := rapid.IntRange(0, 12).Draw(rt, "minLength")
		if rapid.Bool().Draw(rt, "bounded") {
			s["minLength"], s["maxLength"] = low, low+rapid.IntRange(0, 8).Draw(rt, "more")
		}
		return s
	case "integer", "number":
		s := map[string]any{"type": k}
		low := rapid.IntRange(-50, 50).Draw(rt, "low")
		switch rapid.IntRange(0, 4).Draw(rt, "bounds") {
		case 1:
			s["minimum"], s["maximum"] = low, low+rapid.IntRange(0, 9).Draw(rt, "more")
		case 2:
			s["exclusiveMinimum"] = low
		case 3:
			s["exclusiveMinimum"], s["exclusiveMaximum"] = low, low+rapid.IntRange(2, 9).Draw(rt, "more")
		case 4:
			s["minimum"], s["multipleOf"] = low, rapid.IntRange(1, 9).Draw(rt, "step")
		}
		return s
	case "enum":
		return map[string]any{"enum": rapid.SliceOfNDistinct(rapid.SampledFrom([]any{"alpha", "beta", 7, nil, "two words", true}), 1, 4, rapid.ID).Draw(rt, "enum")}
	case "const":
		return map[string]any{"const": rapid.SampledFrom([]any{1, "x", nil, false}).Draw(rt, "const")}
	case "format":
		return map[string]any{"type": "string", "format": rapid.SampledFrom([]string{"email", "uri", "date", "date-time", "uuid", "time", "ipv4", "hostname"}).Draw(rt, "format")}
	case "pattern":
		return map[string]any{"type": "string", "pattern": rapid.SampledFrom([]string{"^a+$", "^[0-9]{3}-[0-9]{4}$", "^(x|y)z?$", "^@[a-z0-9-]+/[A-Za-z]+\\.v[1-9]$", "\\d"}).Draw(rt, "pattern")}
	case "object":
		props, required := map[string]any{}, []string{}
		for i := range rapid.IntRange(0, 4).Draw(rt, "properties") {
			name := fmt.Sprintf("%s%d", rapid.SampledFrom([]string{"name", "age", "tags", "query", "city", "email", "x"}).Draw(rt, "name"), i)
			props[name] = drawSchema(rt, depth-1)
			if rapid.Bool().Draw(rt, "required") {
				required = append(required, name)
			}
		}
		return map[string]any{"type": "object", "properties": props, "required": required, "additionalProperties": false}
	case "array":
		item := drawSchema(rt, depth-1)
		s := map[string]any{"type": "array", "items": item}
		if rapid.Bool().Draw(rt, "bounded") {
			low := rapid.IntRange(0, 3).Draw(rt, "minItems")
			s["minItems"], s["maxItems"] = low, low+rapid.IntRange(0, 2).Draw(rt, "more")
		}
		return s
	default:
		options := []any{drawSchema(rt, depth-1), drawSchema(rt, depth-1)}
		if rapid.Bool().Draw(rt, "nullable") {
			options = slices.Insert(options, 0, any(map[string]any{"type": "null"}))
		}
		return map[string]any{"anyOf": options}
	}
}

// FuzzAnswer looks for panics, and for deltas that do not add up.
func FuzzAnswer(f *testing.F) {
	f.Add("What is 2+2?", `{"type":"object","properties":{"a":{"type":"string","pattern":"^a{2,3}$"}},"required":["a"]}`, "My name is Ann.")
	f.Add("Reverse the word “x”", `{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#"},{"type":"null"}]}}}`, "")
	f.Add("how many r's in strawberry", `{"allOf":[{"minItems":3,"uniqueItems":true}],"items":{"enum":[1]}}`, "12,345.6.7 % of -- ((")
	f.Fuzz(func(t *testing.T, say, schema, before string) {
		messages := user(before, say)
		messages = append(messages[:1:1], append([]model.Message{{Role: model.RoleAssistant, Content: say}}, messages[1:]...)...)
		for _, req := range []model.Request{
			{Messages: messages},
			{Messages: messages, Schema: json.RawMessage(schema)},
			{Messages: messages, Tools: []model.Tool{{Name: "do_it", Description: before, Parameters: json.RawMessage(schema)}}},
			{Messages: append(messages, model.Message{Role: model.RoleTool, Content: schema})},
		} {
			fuzzOne(t, req)
		}
	})
}

package builtin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/model"
	"github.com/openagentsinc/openagents-runtime/internal/model/builtin"
)

type prompt struct {
	System   string
	Say      []string
	Tools    bool
	Schema   string
	Contains []string
	Not      []string
	Equals   string
	Tool     string
	Args     map[string]any
	Output   map[string]any
	// Miss says why the rules are known not to manage this one.
	Miss string
}

// floor is the hit rate that is reached; it may only be raised.
const floor = 61

// TestPrompts plays each conversation turn by turn, with the model's own
// answers in between, and judges the last answer.
func TestPrompts(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/prompts.json")
	require.NoError(t, err)
	var table struct {
		Tools   []model.Tool
		Schemas map[string]json.RawMessage
		Prompts []prompt
	}
	require.NoError(t, json.Unmarshal(raw, &table))
	require.GreaterOrEqual(t, len(table.Prompts), 40)
	hits := 0
	for _, p := range table.Prompts {
		name := p.Say[len(p.Say)-1]
		res, schema := play(t, p, table.Tools, table.Schemas[p.Schema])
		wrong := p.judge(res, schema)
		if wrong == "" {
			hits++
		}
		switch {
		case p.Miss == "" && wrong != "":
			t.Errorf("%q: %s", name, wrong)
		case p.Miss != "" && wrong == "":
			t.Errorf("%q is marked as a miss (%s), but is answered: %s", name, p.Miss, res.Text)
		}
	}
	fmt.Printf("builtin model: hit rate %d/%d\n", hits, len(table.Prompts))
	require.GreaterOrEqual(t, hits, floor)
}

func play(t *testing.T, p prompt, tools []model.Tool, schema json.RawMessage) (model.Result, json.RawMessage) {
	t.Helper()
	m := builtin.New(builtin.Config{})
	req := model.Request{Schema: schema}
	if p.Tools {
		req.Tools = tools
	}
	if p.System != "" {
		req.Messages = append(req.Messages, model.Message{Role: model.RoleSystem, Content: p.System})
	}
	var res model.Result
	for _, s := range p.Say {
		req.Messages = append(req.Messages, model.Message{Role: model.RoleUser, Content: s})
		var err error
		res, err = m.Stream(t.Context(), req, func(model.Event) error { return nil })
		require.NoError(t, err)
		req.Messages = append(req.Messages, model.Message{Role: model.RoleAssistant, Content: res.Text, ToolCalls: res.ToolCalls})
	}
	return res, schema
}

// judge says what is wrong with an answer, "" when nothing is.
func (p prompt) judge(res model.Result, schema json.RawMessage) string {
	for _, c := range p.Contains {
		if !strings.Contains(strings.ToLower(res.Text), strings.ToLower(c)) {
			return fmt.Sprintf("%q is not in %q %s", c, res.Text, calls(res))
		}
	}
	for _, c := range p.Not {
		if strings.Contains(strings.ToLower(res.Text), strings.ToLower(c)) {
			return fmt.Sprintf("%q is in %q", c, res.Text)
		}
	}
	if p.Equals != "" && res.Text != p.Equals {
		return fmt.Sprintf("%q is not %q", res.Text, p.Equals)
	}
	if p.Tool == "" && len(res.ToolCalls) > 0 {
		return "no tool was wanted: " + calls(res)
	}
	if p.Tool != "" {
		if len(res.ToolCalls) != 1 || res.ToolCalls[0].Name != p.Tool {
			return fmt.Sprintf("not a call of %s: %q %s", p.Tool, res.Text, calls(res))
		}
		if wrong := lacks(res.ToolCalls[0].Arguments, p.Args); wrong != "" {
			return wrong
		}
	}
	if p.Schema != "" {
		if err := validate(schema, res.Text); err != nil {
			return fmt.Sprintf("%s is not valid: %s", res.Text, err)
		}
		return lacks([]byte(res.Text), p.Output)
	}
	return ""
}

func calls(res model.Result) string {
	var out []string
	for _, c := range res.ToolCalls {
		out = append(out, c.Name+string(c.Arguments))
	}
	return strings.Join(out, " ")
}

func lacks(got []byte, want map[string]any) string {
	var have map[string]any
	if err := json.Unmarshal(got, &have); err != nil {
		return err.Error()
	}
	for k, v := range want {
		a, _ := json.Marshal(have[k])
		b, _ := json.Marshal(v)
		if !bytes.Equal(a, b) {
			return fmt.Sprintf("%s is %s and not %s in %s", k, a, b, got)
		}
	}
	return ""
}

func validate(schema json.RawMessage, text string) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("mem:///s.json", doc); err != nil {
		return err
	}
	s, err := c.Compile("mem:///s.json")
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

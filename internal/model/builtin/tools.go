package builtin

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

var refusesTools = regexp.MustCompile(`(?i)\b(?:without|don't|do not|never) (?:use |using |call |calling )?(?:any |a |the )?tools?\b`)

// asksFor is a request in the form of a question.
var asksFor = regexp.MustCompile(`(?i)\b(?:can|could|would|will) you\b|\bplease\b`)

// anyVerb are verbs in names of tools that do not tell what a tool is about.
var anyVerb = setOf(stems("get fetch do make run create list send set put call read use new"))

// fitness says how well a tool fits what was asked.
type fitness struct {
	tool  model.Tool
	score float64
	// strong: the tool's whole name, or two words of it, were said.
	strong bool
	args   map[string]any
	// missing are required arguments that the text does not tell.
	missing []string
}

// pick chooses the tool whose name, description and parameters share the most
// with what was asked, and fills its arguments. When the best tool lacks an
// argument, missing asks for it.
func (t thread) pick(tools []model.Tool) (call *model.ToolCall, missing string, err error) {
	if len(tools) == 0 || refusesTools.MatchString(t.ask) {
		return nil, "", nil
	}
	var best *fitness
	for _, tool := range tools {
		f, err := t.fitness(tool)
		if err != nil {
			return nil, "", fmt.Errorf("the parameters of tool %q cannot be read: %w", tool.Name, err)
		}
		if f != nil && (best == nil || f.score > best.score) {
			best = f
		}
	}
	switch {
	case best == nil:
		return nil, "", nil
	case len(best.missing) > 0 && (!best.strong || isQuestion.MatchString(t.ask) && !asksFor.MatchString(t.ask)):
		return nil, "", nil
	case len(best.missing) > 0:
		return nil, fmt.Sprintf("I would use the tool %s, but you have not told me: %s.", best.tool.Name, strings.Join(best.missing, ", ")), nil
	}
	args, err := encode(best.args)
	if err != nil {
		return nil, "", err
	}
	return &model.ToolCall{ID: t.callID(best.tool.Name, args), Name: best.tool.Name, Arguments: json.RawMessage(args)}, "", nil
}

// callID is the same for the same request and another for the next turn.
func (t thread) callID(name, args string) string {
	h := sha256.New()
	for _, m := range t.messages {
		fmt.Fprintf(h, "%s\x00%s\x00%s\x00", m.Role, m.ToolCallID, m.Content)
	}
	fmt.Fprintf(h, "%s\x00%s", name, args)
	return "call_" + hex.EncodeToString(h.Sum(nil)[:8])
}

// fitness is nil when the tool has too little to do with the question.
func (t thread) fitness(tool model.Tool) (*fitness, error) {
	raw := tool.Parameters
	if len(raw) == 0 {
		raw = json.RawMessage(`{"type":"object"}`)
	}
	params, err := parseSchema(raw)
	if err != nil {
		return nil, err
	}
	asked := setOf(stems(t.ask))
	name := stems(strings.Join(nameWords(tool.Name), " "))
	score, nameHits := 0.0, 0
	seen := map[string]bool{}
	count := func(list []string, weight float64) {
		for _, w := range list {
			if asked[w] && !seen[w] {
				seen[w] = true
				score += weight
			}
		}
	}
	telling := 0
	for _, w := range name {
		switch {
		case anyVerb[w]:
		case asked[w]:
			nameHits++
			telling++
		default:
			telling++
		}
	}
	count(name, 3)
	count(stems(tool.Description), 1.5)
	keys := make([]string, 0, len(params.Properties))
	for k := range params.Properties {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		p := params.Properties[k]
		count(stems(strings.Join(nameWords(k), " ")+" "+p.Description), 1)
		for _, e := range p.Enum {
			count(stems(strings.Trim(string(e), `"`)), 1)
		}
	}
	whole := telling > 0 && nameHits == telling
	if !whole && len(seen) == 0 {
		return nil, nil
	}
	f := newFiller(params, t, t.ask)
	v, _, err := f.value(params, "", false, 0)
	if err != nil {
		return nil, err
	}
	args, ok := v.(map[string]any)
	if !ok {
		args = map[string]any{}
	}
	// An address or a code of the very form that the tool needs speaks for it as
	// much as a word does.
	typed := 0
	for _, r := range params.Required {
		if p := params.Properties[r]; p != nil && args[r] != nil && (p.Format != "" || p.Pattern != "") {
			typed++
			score++
		}
	}
	if !whole && len(seen)+min(typed, 1) < 2 {
		return nil, nil
	}
	out := &fitness{tool: tool, score: score, strong: whole || nameHits >= 2, args: args}
	for _, r := range params.Required {
		if _, ok := args[r]; ok {
			continue
		}
		p := params.Properties[r]
		switch {
		case p != nil && len(p.Const) > 0:
			args[r] = p.Const
		case p != nil && len(p.Default) > 0:
			args[r] = p.Default
		case p != nil && p.typ() == "string" && p.Format == "" && p.Pattern == "" && len(p.Enum) == 0 && len(params.Required) == 1:
			// The only argument of a tool takes what was asked, less the asking.
			args[r] = subject(t.ask)
		default:
			out.missing = append(out.missing, r)
		}
	}
	out.score -= float64(len(out.missing))
	return out, nil
}

// subject is what a request is about.
func subject(s string) string {
	if m := searchFor.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return s
}

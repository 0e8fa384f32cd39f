package model

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/openai/openai-go/v3"
)

// callParts joins tool calls that arrive in fragments.
type callParts struct {
	order   []*callPart
	byIndex map[int64]*callPart
}

type callPart struct {
	id, name string
	args     strings.Builder
}

// add takes a fragment. A fragment belongs to the open call of its index,
// unless it carries another id: some endpoints give every call index 0.
func (c *callParts) add(d openai.ChatCompletionChunkChoiceDeltaToolCall) {
	if c.byIndex == nil {
		c.byIndex = map[int64]*callPart{}
	}
	p := c.byIndex[d.Index]
	if p == nil || d.ID != "" && p.id != "" && d.ID != p.id {
		p = &callPart{}
		c.byIndex[d.Index] = p
		c.order = append(c.order, p)
	}
	if d.ID != "" {
		p.id = d.ID
	}
	if p.name == "" {
		p.name = d.Function.Name
	}
	p.args.WriteString(d.Function.Arguments)
}

// complete gives the calls in the order they began. With whole set, a call
// whose arguments are not a JSON object is an error; otherwise it is left out,
// since the answer was cut in the middle of it.
func (c *callParts) complete(whole bool) ([]ToolCall, *Error) {
	var calls []ToolCall
	for i, p := range c.order {
		args := strings.TrimSpace(p.args.String())
		if args == "" {
			args = "{}"
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(args), &object); err != nil || object == nil || p.name == "" {
			if !whole {
				continue
			}
			return nil, &Error{Class: Protocol, Retryable: true, MaybeBilled: true,
				Message: fmt.Sprintf("tool call %d of the answer has no name or its arguments are not a JSON object", i+1)}
		}
		id := p.id
		if id == "" {
			id = fmt.Sprintf("call_%d", i+1)
		}
		calls = append(calls, ToolCall{ID: id, Name: p.name, Arguments: json.RawMessage(args)})
	}
	return calls, nil
}

package mcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/internal/redact"
	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

const (
	maxQuestions = 10       // of an attempt at a call
	maxForm      = 16 << 10 // bytes of a form
	maxFields    = 32       // of a form
)

// The answers to a server's question.
const (
	accept  = "accept"
	decline = "decline"
	cancel  = "cancel"
)

// put has a person answer what a server wants to know for a call. told is what it
// wanted, when nobody answered.
func (f *flight) put(p *mcp.ElicitParams) (res *mcp.ElicitResult, told string) {
	message := clean(p.Message, 1000, true)
	if message == "" {
		message = "It does not say what."
	}
	nobody := func(why string) (*mcp.ElicitResult, string) {
		if why != "" {
			message += " (" + why + ")"
		}
		return &mcp.ElicitResult{Action: cancel}, message
	}
	if f.ask == nil {
		return nobody("")
	}
	if p.Mode == "url" || p.URL != "" {
		return nobody("at " + clean(p.URL, 500, false) + ", which nobody is sent to")
	}
	schema, defaults, err := form(p.RequestedSchema)
	if err != nil {
		return nobody("in a form that cannot be shown: " + err.Error())
	}
	if f.questions.Add(1) > maxQuestions {
		return nobody("after too many questions")
	}
	a, err := f.ask(tool.Question{Message: message, Schema: schema})
	switch {
	case err != nil:
		return nobody("and nobody could be asked")
	case !a.Decided:
		return nobody("and nobody answered in time")
	case !a.Approved:
		return &mcp.ElicitResult{Action: decline}, ""
	}
	content := maps.Clone(defaults)
	if len(a.Content) > 0 {
		if err := json.Unmarshal(a.Content, &content); err != nil {
			return nobody("and the answer cannot be read")
		}
	}
	return &mcp.ElicitResult{Action: accept, Content: content}, ""
}

// elicited answers a server that wants to know something in the middle of a call.
// Which call it is about the protocol's elder versions do not say: with one open it
// is that one. Otherwise nobody is asked, for the wrong person might be, and each
// that then fails is told as one that needs input.
func (sess *session) elicited(_ context.Context, req *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
	open := sess.inTheAir()
	if len(open) == 1 {
		res, told := open[0].put(req.Params)
		sess.note(told, open...)
		return res, nil
	}
	res, told := new(flight).put(req.Params) // nobody is there
	sess.note(told, open...)
	return res, nil
}

func (sess *session) inTheAir() []*flight {
	sess.mu.Lock()
	defer sess.mu.Unlock()
	return slices.Collect(maps.Values(sess.flights))
}

// note remembers of calls what a server wanted to know in vain.
func (sess *session) note(told string, calls ...*flight) {
	sess.mu.Lock()
	defer sess.mu.Unlock()
	for _, f := range calls {
		if told != "" {
			f.asked = told
		}
	}
}

// inVain says whether a call wanted to know something that nobody answered.
func (sess *session) inVain(f *flight) bool {
	sess.mu.Lock()
	defer sess.mu.Unlock()
	return f.asked != ""
}

// answers has a person answer what a server wants to know before it goes on with a
// call. ok is false when it wants what nobody is asked for.
func (sess *session) answers(f *flight, requests mcp.InputRequestMap) (responses mcp.InputResponseMap, ok bool) {
	if f.ask == nil || len(requests) == 0 {
		return nil, false
	}
	for _, q := range requests {
		if _, form := q.(*mcp.ElicitParams); !form {
			return nil, false
		}
	}
	responses = mcp.InputResponseMap{}
	for _, id := range slices.Sorted(maps.Keys(requests)) {
		res, told := f.put(requests[id].(*mcp.ElicitParams))
		sess.note(told, f)
		responses[id] = res
	}
	return responses, true
}

// fields are the members of a form's field that are kept; what else a server says of
// it, it checks itself.
var fields = []string{
	"type", "title", "description", "enum", "enumNames", "oneOf", "anyOf", "const", "items", "minItems", "maxItems", "default",
	"format", "minLength", "maxLength", "minimum", "maximum",
}

// form is the schema of what a person fills in, and what stands there already: flat,
// clean and without references. Nil asks for a yes or no.
func form(v any) (schema json.RawMessage, defaults map[string]any, err error) {
	if v == nil {
		return nil, nil, nil
	}
	var doc map[string]any
	if err := json.Unmarshal(marshal(v), &doc); err != nil {
		return nil, nil, errors.New("it is no object")
	}
	if kind, given := doc["type"]; given && kind != "object" {
		return nil, nil, errors.New("it is not one of an object")
	}
	properties, ok := doc["properties"].(map[string]any)
	if !ok && doc["properties"] != nil || len(properties) > maxFields {
		return nil, nil, fmt.Errorf("it has no fields, or more than %d", maxFields)
	}
	if len(properties) == 0 {
		return nil, nil, nil
	}
	kept := map[string]any{}
	defaults = map[string]any{}
	for name, p := range properties {
		field, ok := p.(map[string]any)
		if !ok {
			return nil, nil, fmt.Errorf("%s is no field", clean(name, 100, false))
		}
		kept[name] = trimmed(field)
		if d, given := field["default"]; given {
			defaults[name] = d
		}
	}
	out := map[string]any{"type": "object", "properties": told(kept, 0), "additionalProperties": false}
	if required, given := doc["required"]; given {
		out["required"] = required
	}
	schema = marshal(out)
	switch {
	case len(schema) > maxForm:
		return nil, nil, fmt.Errorf("it has more than %d bytes", maxForm)
	case !bytes.Equal(redact.JSON(bytes.Clone(schema)), schema):
		return nil, nil, errors.New("it asks for a secret")
	}
	return schema, defaults, compiles(schema)
}

// trimmed is of a field what a form shows.
func trimmed(field map[string]any) map[string]any {
	kept := map[string]any{}
	for name, v := range field {
		if !slices.Contains(fields, name) {
			continue
		}
		switch name {
		case "items":
			if inner, ok := v.(map[string]any); ok {
				v = trimmed(inner)
			}
		case "oneOf", "anyOf":
			if list, ok := v.([]any); ok {
				v = choices(list)
			}
		}
		kept[name] = v
	}
	return kept
}

// choices are the values of a field, with their names for people.
func choices(list []any) []any {
	out := make([]any, 0, len(list))
	for _, each := range list {
		choice := map[string]any{}
		if given, ok := each.(map[string]any); ok {
			for _, name := range []string{"const", "title"} {
				if v, there := given[name]; there {
					choice[name] = v
				}
			}
		}
		out = append(out, choice)
	}
	return out
}

func compiles(schema json.RawMessage) error {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return err
	}
	const at = "form:schema"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(at, doc); err != nil {
		return err
	}
	if _, err := c.Compile(at); err != nil {
		return errors.New("it is no schema")
	}
	return nil
}

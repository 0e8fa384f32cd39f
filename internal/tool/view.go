package tool

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// View is what a run can call, as it was when it was asked for.
type View struct {
	entries map[string]*entry
	names   []string          // sorted
	told    map[string]string // by name, as a model is told it
	meant   map[string]string // the other way round
}

// maxToldName is the longest name of a function that providers take.
const maxToldName = 64

func newView(entries map[string]*entry) View {
	v := View{entries: entries, names: slices.Sorted(maps.Keys(entries)),
		told: make(map[string]string, len(entries)), meant: make(map[string]string, len(entries))}
	// A name that may be told as it is is nobody else's.
	for _, name := range v.names {
		if told, same := toldAs(name); same {
			v.told[name], v.meant[told] = told, name
		}
	}
	for _, name := range v.names {
		told, same := toldAs(name)
		if same {
			continue
		}
		plain, digest := told, short(canon.Hash([]byte(name)))
		for n := 8; len(told) > maxToldName || v.meant[told] != ""; n += 8 {
			mark := "_" + digest[:n]
			told = plain[:min(len(plain), maxToldName-len(mark))] + mark
		}
		v.told[name], v.meant[told] = told, name
	}
	return v
}

// toldAs makes a name of letters, digits, _ and - alone: http.fetch is http_fetch.
func toldAs(name string) (told string, same bool) {
	told = strings.ReplaceAll(name, ".", "_")
	return told, told == name && len(told) <= maxToldName
}

// Specs are the tools, by name.
func (v View) Specs() []Spec {
	specs := make([]Spec, len(v.names))
	for i, name := range v.names {
		specs[i] = v.entries[name].spec
	}
	return specs
}

// Spec finds a tool.
func (v View) Spec(name string) (Spec, bool) {
	e := v.entries[name]
	if e == nil {
		return Spec{}, false
	}
	return e.spec, true
}

// ModelName is what a model is told a tool's name is: 1 to 64 letters, digits, _
// and -. No two tools of a view have the same.
func (v View) ModelName(name string) string { return v.told[name] }

// FromModel finds the tool that a model means. It takes the tool's own name too.
func (v View) FromModel(said string) (name string, ok bool) {
	if name, ok = v.meant[said]; ok {
		return name, true
	}
	_, ok = v.entries[said]
	return said, ok
}

// CheckInput says where an input does not fit its tool: tool_input_invalid, or
// tool_not_found.
func (v View) CheckInput(name string, input json.RawMessage) *Error {
	e := v.entries[name]
	if e == nil {
		return notFound(name)
	}
	return e.checkInput(input)
}

func (e *entry) checkInput(input json.RawMessage) *Error {
	invalid := func(where string) *Error {
		return &Error{Class: ClassInput, Message: "The input of " + e.spec.Name + " is not valid: " + where + "."}
	}
	if len(input) > maxInput {
		return invalid("it has more than 256 KiB")
	}
	whole, err := canon.JSON(input)
	if err != nil {
		return invalid(err.Error())
	}
	if whole[0] != '{' {
		return invalid("it must be an object")
	}
	if where := check(e.input, whole); where != "" {
		return invalid(where)
	}
	return nil
}

// CheckOutput says where an output is not what its tool promises: output_invalid,
// or tool_not_found. A tool without an output schema promises nothing.
func (v View) CheckOutput(name string, output json.RawMessage) *Error {
	e := v.entries[name]
	if e == nil {
		return notFound(name)
	}
	whole, err := canonical(output)
	if err != nil {
		return &Error{Class: ClassOutput, Message: "The answer of " + name + " is no JSON value."}
	}
	return e.checkOutput(whole)
}

func (e *entry) checkOutput(whole json.RawMessage) *Error {
	if e.output == nil {
		return nil
	}
	if where := check(e.output, whole); where != "" {
		return &Error{Class: ClassOutput, Message: "The answer of " + e.spec.Name + " is not what it promises: " + where + "."}
	}
	return nil
}

func notFound(name string) *Error {
	return &Error{Class: ClassNotFound, Message: "There is no tool " + clip(strings.ToValidUTF8(name, "\uFFFD"), maxName) + "."}
}

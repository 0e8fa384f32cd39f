package tool

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

const maxSchema = 64 << 10 // bytes of one schema

var errRemote = errors.New("a schema refers to nothing outside of itself")

// noLoader refuses to fetch: a schema says everything itself.
type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errRemote }

// compile makes a validator of a JSON Schema that is bounded in size, in depth
// and in the work that it can make of a value.
func compile(raw json.RawMessage) (*jsonschema.Schema, error) {
	if len(raw) > maxSchema {
		return nil, fmt.Errorf("the schema has more than %d bytes", maxSchema)
	}
	if _, err := canon.JSON(raw); err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if err := affordable(doc); err != nil {
		return nil, err
	}
	const at = "tool:schema"
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	if err := c.AddResource(at, doc); err != nil {
		return nil, err
	}
	s, err := c.Compile(at)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// check says where a value does not fit; "" when it does. It quotes names and
// what the schema wants, never a value.
func check(s *jsonschema.Schema, raw json.RawMessage) string {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return "is no JSON value"
	}
	err = s.Validate(v)
	if err == nil {
		return ""
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return "does not satisfy the schema"
	}
	var places []string
	var gather func(*jsonschema.ValidationError)
	gather = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			places = append(places, misfit(e))
		}
		for _, cause := range e.Causes {
			gather(cause)
		}
	}
	gather(invalid)
	slices.Sort(places)
	const told = 3
	places = slices.Compact(places)
	return clip(strings.Join(places[:min(told, len(places))], "; "), 600)
}

func misfit(e *jsonschema.ValidationError) string {
	var what string
	switch k := e.ErrorKind.(type) {
	case *kind.Type:
		what = "must be " + strings.Join(k.Want, " or ") + ", not " + k.Got
	case *kind.Required:
		what = "lacks " + strings.Join(slices.Sorted(slices.Values(k.Missing)), ", ")
	case *kind.AdditionalProperties:
		what = "has members that are not known: " + strings.Join(slices.Sorted(slices.Values(k.Properties)), ", ")
	case *kind.Enum:
		what = "must be one of " + listed(k.Want...)
	case *kind.Const:
		what = "must be " + listed(k.Want)
	case *kind.Pattern:
		what = "must match " + k.Want
	case *kind.MinLength:
		what = fmt.Sprintf("must have %d characters or more", k.Want)
	case *kind.MaxLength:
		what = fmt.Sprintf("must have at most %d characters", k.Want)
	case *kind.Minimum:
		what = "must be at least " + k.Want.RatString()
	case *kind.Maximum:
		what = "must be at most " + k.Want.RatString()
	default:
		what = "does not satisfy " + strings.Join(e.ErrorKind.KeywordPath(), "/")
	}
	where := ""
	for _, step := range e.InstanceLocation {
		where += "/" + clip(step, 64)
	}
	return cmp.Or(where, "the whole") + " " + what
}

func listed(values ...any) string {
	raw, err := json.Marshal(values)
	if err != nil {
		return "what the schema lists"
	}
	return clip(strings.Trim(string(raw), "[]"), 300)
}

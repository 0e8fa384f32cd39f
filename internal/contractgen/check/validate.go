package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// validator compiles schemas out of one bundle.
type validator struct {
	compiler *jsonschema.Compiler
	doc      *yaml.Node
	compiled map[string]*jsonschema.Schema
}

const bundleURL = "bundle.json"

func newValidator(doc []byte) (*validator, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	value, err := plainJSON(bundle.Value(&root))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource(bundleURL, value); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return &validator{c, root.Content[0], map[string]*jsonschema.Schema{}}, nil
}

// plainJSON makes a value of the kinds that the validator expects.
func plainJSON(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	out, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return out, nil
}

// validate checks a value against the schema at a JSON pointer of the bundle.
// Empty means that it fits; otherwise the answer says where it does not.
func (v *validator) validate(pointer string, value any) (string, error) {
	schema, ok := v.compiled[pointer]
	if !ok {
		var err error
		if schema, err = v.compiler.Compile(bundleURL + "#" + pointer); err != nil {
			return "", fmt.Errorf("compile the schema at %s: %w", pointer, err)
		}
		v.compiled[pointer] = schema
	}
	err := schema.Validate(value)
	if err == nil {
		return "", nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return "", err
	}
	places := map[string]bool{}
	collect(invalid, places)
	list := make([]string, 0, len(places))
	for p := range places {
		list = append(list, p)
	}
	sort.Strings(list)
	return strings.Join(list, "; "), nil
}

func collect(e *jsonschema.ValidationError, into map[string]bool) {
	if len(e.Causes) == 0 {
		into["/"+strings.Join(e.InstanceLocation, "/")+" breaks "+strings.Join(e.ErrorKind.KeywordPath(), "/")] = true
		return
	}
	for _, c := range e.Causes {
		collect(c, into)
	}
}

// token escapes one step of a JSON pointer in a URL fragment.
func token(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
	return strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D", " ", "%20", "+", "%2B").Replace(s)
}

package bundle

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

const componentPrefix = "#/components/schemas/"

// SelfContained answers one schema of a bundle as a JSON Schema that needs no
// other document: what it refers to is in its $defs. Members for code
// generators (x-go-…) are left out.
func SelfContained(doc []byte, name string) (map[string]any, error) {
	var root struct {
		Components struct {
			Schemas map[string]yaml.Node `yaml:"schemas"`
		} `yaml:"components"`
	}
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	defs := map[string]any{}
	var take func(name string) (any, error)
	var localize func(v any) (any, error)
	localize = func(v any) (any, error) {
		switch v := v.(type) {
		case map[string]any:
			for k, child := range v {
				if strings.HasPrefix(k, "x-go-") {
					delete(v, k)
					continue
				}
				if ref, ok := child.(string); ok && k == "$ref" {
					target := strings.TrimPrefix(ref, componentPrefix)
					if _, known := defs[target]; !known {
						defs[target] = nil // breaks the circle of a recursive schema
						schema, err := take(target)
						if err != nil {
							return nil, err
						}
						defs[target] = schema
					}
					v[k] = "#/$defs/" + target
					continue
				}
				local, err := localize(child)
				if err != nil {
					return nil, err
				}
				v[k] = local
			}
		case []any:
			for i, child := range v {
				local, err := localize(child)
				if err != nil {
					return nil, err
				}
				v[i] = local
			}
		}
		return v, nil
	}
	take = func(name string) (any, error) {
		node, ok := root.Components.Schemas[name]
		if !ok {
			return nil, fmt.Errorf("the bundle has no schema %s", name)
		}
		return localize(Value(&node))
	}
	schema, err := take(name)
	if err != nil {
		return nil, err
	}
	out, ok := schema.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("schema %s is not an object", name)
	}
	out["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	if len(defs) > 0 {
		out["$defs"] = defs
	}
	return out, nil
}

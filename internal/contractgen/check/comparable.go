package check

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// comparable makes a bundle into the document that oasdiff is given.
//
// oasdiff compares only what an operation reaches, so a document of schemas
// alone gets one POST per schema whose request and response it is: a schema
// that is stored must neither refuse what it took nor hold what readers do not
// know. An enum that may grow (x-extensible-enum: true) is told in oasdiff's
// own form, a list of values beside no enum.
func comparable(doc []byte, schemasAlone bool) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if len(root.Content) == 0 {
		return nil, fmt.Errorf("read bundle: the document is empty")
	}
	value, ok := extensible(bundle.Value(&root)).(map[string]any)
	if !ok {
		return nil, fmt.Errorf("read bundle: not an object")
	}
	if schemasAlone {
		paths := map[string]any{}
		each(bundle.Get(bundle.Get(root.Content[0], "components"), "schemas"), func(name, _ *yaml.Node) {
			media := map[string]any{"content": map[string]any{"application/json": map[string]any{
				"schema": map[string]any{"$ref": "#/components/schemas/" + name.Value},
			}}}
			paths["/"+name.Value] = map[string]any{"post": map[string]any{
				"operationId": name.Value,
				"requestBody": media,
				"responses":   map[string]any{"200": with(media, "description", "The same.")},
			}}
		})
		value["paths"] = paths
	}
	out, err := yaml.Marshal(plainNumbers(value))
	if err != nil {
		return nil, fmt.Errorf("write comparable document: %w", err)
	}
	return out, nil
}

func with(m map[string]any, key string, v any) map[string]any {
	out := map[string]any{key: v}
	for k, old := range m {
		out[k] = old
	}
	return out
}

func extensible(v any) any {
	switch v := v.(type) {
	case map[string]any:
		grows, marked := v["x-extensible-enum"].(bool)
		for k, child := range v {
			if strings.HasPrefix(k, "x-go-") {
				delete(v, k)
				continue
			}
			v[k] = extensible(child)
		}
		if marked {
			delete(v, "x-extensible-enum")
			if values, ok := v["enum"]; ok && grows {
				v["x-extensible-enum"] = values
				delete(v, "enum")
			}
		}
	case []any:
		for i, child := range v {
			v[i] = extensible(child)
		}
	}
	return v
}

// plainNumbers turns json.Number into YAML numbers.
func plainNumbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, child := range v {
			v[k] = plainNumbers(child)
		}
	case []any:
		for i, child := range v {
			v[i] = plainNumbers(child)
		}
	case fmt.Stringer:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: v.String()}
	}
	return v
}

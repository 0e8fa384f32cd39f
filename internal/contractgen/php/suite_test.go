package php_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// TestThePackageBehaves runs testdata/suite on a freshly written package.
func TestThePackageBehaves(t *testing.T) {
	t.Parallel()
	tool(t, "php")
	bin, dir := tool(t, "phpunit"), generate(t)
	root, err := filepath.Abs(repository)
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), bin,
		"--bootstrap", "bootstrap.php", "--do-not-cache-result", "--colors=never",
		"--fail-on-risky", "--fail-on-warning", "--fail-on-skipped", "--fail-on-incomplete", ".")
	cmd.Dir = "testdata/suite"
	cmd.Env = append(os.Environ(), "GENERATED="+dir, "REPOSITORY="+root, "EXAMPLES="+examples(t))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	t.Log(string(out))
}

type example struct {
	Name  string `json:"name"`
	Class string `json:"class"`
	JSON  string `json:"json"`
}

// examples writes every example of the contract, and every event fixture, with
// the class that must carry it.
func examples(t *testing.T) string {
	t.Helper()
	var doc map[string]any
	require.NoError(t, yaml.Unmarshal(input(t).Runtime, &doc))
	var all []example
	collect(t, doc, "", &all)
	require.Greater(t, len(all), 20)
	all = append(all, eventFixtures(t)...)
	all = append(all, samples(t)...)
	raw, err := json.Marshal(all)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "examples.json")
	require.NoError(t, os.WriteFile(path, raw, 0o600))
	return path
}

func collect(t *testing.T, n any, at string, all *[]example) {
	t.Helper()
	switch n := n.(type) {
	case map[string]any:
		if media, ok := n["application/json"].(map[string]any); ok {
			ref := media["schema"].(map[string]any)["$ref"].(string)
			class := `OpenAgents\Runtime\Model\` + ref[strings.LastIndex(ref, "/")+1:]
			for name, e := range media["examples"].(map[string]any) {
				raw, err := json.Marshal(e.(map[string]any)["value"])
				require.NoError(t, err)
				*all = append(*all, example{Name: at + " " + name, Class: class, JSON: string(raw)})
			}
		}
		for k, v := range n {
			collect(t, v, at+"/"+k, all)
		}
	case []any:
		for _, v := range n {
			collect(t, v, at, all)
		}
	}
}

// eventFixtures are the stored payloads, one file per type and version.
func eventFixtures(t *testing.T) []example {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repository, "openapi/fixtures/events/*.v*.json"))
	require.NoError(t, err)
	var all []example
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		class := ""
		for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r == '.' || r == '_' }) {
			class += strings.ToUpper(word[:1]) + word[1:]
		}
		all = append(all, example{Name: name, Class: `OpenAgents\Runtime\Event\` + class, JSON: string(raw)})
	}
	return all
}

// samples are two values of every object component, made from its schema: one
// with everything, one with what is required.
func samples(t *testing.T) []example {
	t.Helper()
	in := input(t)
	var all []example
	for home, raw := range map[string][]byte{"Model": in.Runtime, "Event": in.Events, "DS": in.DS} {
		var doc map[string]any
		require.NoError(t, yaml.Unmarshal(raw, &doc))
		schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
		for name, s := range schemas {
			schema := s.(map[string]any)
			if _, elsewhere := schema["x-go-type"]; elsewhere || schema["type"] != "object" {
				continue
			}
			for _, whole := range []bool{true, false} {
				value, err := json.Marshal(sample(schemas, schema, whole))
				require.NoError(t, err)
				all = append(all, example{
					Name: fmt.Sprintf("%s whole=%t", name, whole), Class: `OpenAgents\Runtime\` + home + `\` + name, JSON: string(value),
				})
			}
		}
	}
	return all
}

func sample(schemas, s map[string]any, whole bool) any {
	if ref, ok := s["$ref"].(string); ok {
		s = schemas[ref[strings.LastIndex(ref, "/")+1:]].(map[string]any)
	}
	if v, ok := s["const"]; ok {
		return v
	}
	if v, ok := s["enum"].([]any); ok {
		return v[len(v)-1]
	}
	switch s["type"] {
	case "string":
		return "ü😀 / text"
	case "integer":
		return 9007199254740991
	case "number":
		return 0.1
	case "boolean":
		return false
	case "array":
		if !whole {
			return []any{}
		}
		item := s["items"].(map[string]any)
		return []any{sample(schemas, item, true), sample(schemas, item, false)}
	}
	out := map[string]any{}
	properties, _ := s["properties"].(map[string]any)
	if properties == nil && whole {
		return map[string]any{"a": map[string]any{}, "b": []any{}, "10": 1.5, "n": nil}
	}
	required, _ := s["required"].([]any)
	for name, p := range properties {
		if whole || slices.Contains(required, any(name)) {
			out[name] = sample(schemas, p.(map[string]any), whole)
		}
	}
	return out
}

package bundle_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

const module = "example.com/m/gen"

// sources is a small contract that uses each kind of reference.
func sources() map[string]string {
	return map[string]string{
		"openapi/openapi.yaml": `openapi: 3.1.0
info: {title: T, version: '1'}
paths:
  /things:
    get:
      parameters: &page
        - $ref: '#/components/parameters/Limit'
      responses:
        '200':
          description: ok
          content:
            application/json:
              schema: {$ref: '../schemas/ds/thing.v1.json'}
              examples:
                one: {value: {$ref: is a word here}}
        '404': {$ref: '#/components/responses/NotFound'}
  /more:
    get: {parameters: *page, responses: {}}
components:
  parameters:
    Limit: {name: limit, in: query, schema: {type: integer}}
  responses:
    NotFound: {description: no}
  schemas:
    Zebra: {type: object, properties: {happened: {$ref: 'events.yaml#/components/schemas/ThingMadeV1'}}}
    Ant: {type: string}
`,
		"openapi/events.yaml": `openapi: 3.1.0
info: {title: E, version: '1'}
paths: {}
components:
  schemas:
    ThingMadeV1:
      type: object
      x-event-type: thing.made
      x-event-version: 1
      properties: {id: {$ref: '../schemas/ds/common.v1.json#/$defs/Id'}}
`,
		"schemas/ds/common.v1.json": `{"$schema": "x", "$id": "y", "description": "Shared.", "$defs": {"Id": {"type": "string", "const": "07"}}}`,
		"schemas/ds/thing.v1.json": `{"$schema": "x", "$id": "y", "$comment": "c", "type": "object",
			"properties": {"id": {"$ref": "common.v1.json#/$defs/Id"}, "child": {"$ref": "thing.v1.json"},
				"kind": {"$ref": "thing.v1.json#/$defs/Kind"}, "list": {"type": "array", "items": {"type": "object", "properties": {"url": {"type": "string"}}}}},
			"$defs": {"Kind": {"oneOf": [{"$ref": "thing.v1.json#/$defs/A"}], "discriminator": {"propertyName": "k", "mapping": {"a": "thing.v1.json#/$defs/A"}}},
				"A": {"type": "object"}}}`,
		"schemas/ds/signatures/Ask.v1.json": `{"name": "Ask", "version": 1, "signature_id": "@n/Ask.v1",
			"input_schema": {"type": "object", "properties": {"thing": {"$ref": "../thing.v1.json"}}},
			"output_schema": {"type": "string"},
			"prompt_ir": {"version": 1, "blocks": []}, "defaults": {"strategy_id": "direct.v1"}}`,
	}
}

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

func bundles(t *testing.T, files map[string]string) *bundle.Bundles {
	t.Helper()
	c, err := bundle.Load(write(t, files))
	require.NoError(t, err)
	b, err := c.Bundle(module)
	require.NoError(t, err)
	return b
}

func at(t *testing.T, doc []byte, path ...string) any {
	t.Helper()
	var root yaml.Node
	require.NoError(t, yaml.Unmarshal(doc, &root))
	v := bundle.Value(&root)
	for _, p := range path {
		v = v.(map[string]any)[p]
	}
	return v
}

func keys(t *testing.T, doc []byte, path ...string) []string {
	t.Helper()
	var root yaml.Node
	require.NoError(t, yaml.Unmarshal(doc, &root))
	n := root.Content[0]
	for _, p := range path {
		n = bundle.Get(n, p)
	}
	var names []string
	for i := 0; i < len(n.Content); i += 2 {
		names = append(names, n.Content[i].Value)
	}
	return names
}

func TestABundleHasLocalReferencesOnly(t *testing.T) {
	t.Parallel()
	b := bundles(t, sources())
	for name, doc := range map[string][]byte{"runtime": b.Runtime, "events": b.Events, "ds": b.DS} {
		for _, line := range strings.Split(string(doc), "\n") {
			if strings.Contains(line, "$ref:") && !strings.Contains(line, "is a word here") {
				require.Contains(t, line, "'#/components/", name)
			}
		}
		require.NotContains(t, string(doc), "$defs", name)
		require.NotContains(t, string(doc), "$id", name)
	}
	require.Equal(t, map[string]any{"a": "#/components/schemas/ThingV1A"},
		at(t, b.DS, "components", "schemas", "ThingV1Kind", "discriminator", "mapping"))
	require.Equal(t, "is a word here",
		at(t, b.Runtime, "paths", "/things", "get", "responses", "200", "content", "application/json", "examples", "one", "value", "$ref"))
}

func TestOwnOrderIsKeptAndImportsFollowByName(t *testing.T) {
	t.Parallel()
	b := bundles(t, sources())
	require.Equal(t, []string{"Zebra", "Ant", "CommonV1Id", "ThingMadeV1", "ThingV1", "ThingV1A", "ThingV1Kind"},
		keys(t, b.Runtime, "components", "schemas"))
	require.Equal(t, []string{"AskV1Input", "AskV1Output", "CommonV1Id", "ThingV1", "ThingV1A", "ThingV1Kind"},
		keys(t, b.DS, "components", "schemas"))
}

func TestImportedComponentsNameTheGoTypeThatExists(t *testing.T) {
	t.Parallel()
	b := bundles(t, sources())
	require.Equal(t, "ds.CommonV1Id", at(t, b.Runtime, "components", "schemas", "CommonV1Id", "x-go-type"))
	require.Equal(t, "event.ThingMadeV1", at(t, b.Runtime, "components", "schemas", "ThingMadeV1", "x-go-type"))
	require.Equal(t, map[string]any{"path": module + "/ds", "name": "ds"},
		at(t, b.Events, "components", "schemas", "CommonV1Id", "x-go-type-import"))
	require.Equal(t, "ThingV1ListItem", at(t, b.DS, "components", "schemas", "ThingV1", "properties", "list", "items", "x-go-type-name"))
	require.Equal(t, "07", at(t, b.DS, "components", "schemas", "CommonV1Id", "const"), "text that looks like a number stays text")
}

func TestBundlingTwiceGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	first := bundles(t, sources())
	for range 5 {
		require.Equal(t, first, bundles(t, sources()))
	}
}

// TestBrokenSourcesAreRefusedWithTheirPlace wants file and line, and what to do.
func TestBrokenSourcesAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	thing := "schemas/ds/thing.v1.json"
	for name, c := range map[string]struct{ file, old, new, want string }{
		"self reference by #":      {thing, `{"$ref": "thing.v1.json"}`, `{"$ref": "#"}`, thing + `:2: reference "#" is not allowed here; write <name>.v<N>.json`},
		"missing file":             {thing, `"thing.v1.json"`, `"gone.v1.json"`, `there is no contract file schemas/ds/gone.v1.json`},
		"missing definition":       {thing, `common.v1.json#/$defs/Id`, `common.v1.json#/$defs/No`, `schemas/ds/common.v1.json has no such definition`},
		"file without a type":      {thing, `common.v1.json#/$defs/Id`, `common.v1.json`, `has no such definition`},
		"record to the API":        {thing, `common.v1.json#/$defs/Id`, `../../openapi/openapi.yaml#/components/schemas/Ant`, `is not allowed here`},
		"deep pointer":             {thing, `#/$defs/Kind"}`, `#/properties/id"}`, `has no such definition`},
		"anchor":                   {thing, `"type": "array"`, `"$anchor": "a", "type": "array"`, `$anchor is not allowed here`},
		"inner $id":                {thing, `"type": "array"`, `"$id": "a", "type": "array"`, `$id is not allowed here: only the root`},
		"discriminator, no map":    {thing, `, "mapping": {"a": "thing.v1.json#/$defs/A"}`, ``, `a discriminator needs a mapping`},
		"same key twice":           {thing, `"$comment": "c"`, `"$id": "z"`, thing + `:1: key "$id" appears twice`},
		"unknown component":        {"openapi/openapi.yaml", `parameters/Limit'`, `parameters/Limits'`, `openapi/openapi.yaml:7: reference`},
		"not JSON":                 {thing, `"type": "object",`, `"type": [`, thing},
		"name taken by two":        {"openapi/openapi.yaml", `    Ant:`, `    ThingV1:`, `the name ThingV1 is also made from openapi/openapi.yaml:26`},
		"an events parameter":      {"openapi/events.yaml", `'../schemas/ds/common.v1.json#/$defs/Id'`, `'openapi.yaml#/components/schemas/Ant'`, `openapi/events.yaml:10: reference`},
		"merge keys":               {"openapi/openapi.yaml", `get: {parameters`, `get: {<<: {}, parameters`, `<< is not used`},
		"a file of another name":   {"schemas/ds/extra.json", ``, `{"type": "string"}`, `schemas/ds/extra.json:1: name the file <name>.v<N>.json`},
		"signature beside a clash": {"schemas/ds/ask.v1.json", ``, `{"type": "object", "$defs": {"Input": {"type": "string"}}}`, `the name AskV1Input is also made from`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := maps.Clone(sources())
			if c.old != "" || files[c.file] != "" {
				require.Contains(t, files[c.file], c.old)
				files[c.file] = strings.Replace(files[c.file], c.old, c.new, 1)
			} else {
				files[c.file] = c.new
			}
			contract, err := bundle.Load(write(t, files))
			if err == nil {
				_, err = contract.Bundle(module)
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestASelfContainedSchemaCarriesWhatItRefersTo(t *testing.T) {
	t.Parallel()
	b := bundles(t, sources())
	schema, err := bundle.SelfContained(b.DS, "AskV1Input")
	require.NoError(t, err)
	defs := schema["$defs"].(map[string]any)
	require.Len(t, defs, 4)
	require.Equal(t, "#/$defs/ThingV1", defs["ThingV1"].(map[string]any)["properties"].(map[string]any)["child"].(map[string]any)["$ref"])
	require.NotContains(t, defs["ThingV1"].(map[string]any)["properties"].(map[string]any)["list"].(map[string]any)["items"], "x-go-type-name")
}

func TestGoNamesFollowTheGenerator(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"CommonV1Id": "CommonV1Id", "thing_id": "ThingID", "run_not_found": "RunNotFound", "invalid_json": "InvalidJSON",
		"RunID": "RunID", "blob_url": "BlobURL", "PredictReceiptV1": "PredictReceiptV1",
	} {
		require.Equal(t, want, bundle.GoName(in), in)
	}
}

package gogen_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
)

const moduleRoot = "../../.."

func small() map[string]string {
	return map[string]string{
		"openapi/openapi.yaml": `openapi: 3.1.0
info: {title: T, version: '1'}
paths:
  /things/{thingId}:
    parameters: [{name: thingId, in: path, required: true, schema: {$ref: '#/components/schemas/ThingID'}}]
    post:
      operationId: putThing
      tags: [things]
      x-required-scope: service
      x-idempotent: true
      x-max-body-bytes: 100
      requestBody: {required: true, content: {application/json: {schema: {$ref: '../schemas/ds/thing.v1.json'}}}}
      responses:
        '200': {description: ok, content: {text/event-stream: {schema: {type: string}}}}
        '404': {$ref: '#/components/responses/NoThingResponse'}
components:
  responses:
    NoThingResponse: {description: no, content: {application/json: {schema: {$ref: '#/components/schemas/Envelope'}}}}
  schemas:
    ThingID: {type: string}
    Envelope: {type: object, required: [code], properties: {code: {$ref: '#/components/schemas/ErrorCode'}}}
    ErrorCode: {type: string, enum: [thing_not_found, invalid_json], x-status: {thing_not_found: 404, invalid_json: 400}}
`,
		"openapi/events.yaml": `openapi: 3.1.0
info: {title: E, version: '1'}
paths: {}
components:
  schemas:
    ThingMadeV1: {type: object, x-event-type: thing.made, x-event-version: 1, properties: {id: {$ref: '../schemas/ds/common.v1.json#/$defs/BlobUrl'}}}
    ThingMadeV2: {type: object, x-event-type: thing.made, x-event-version: 2, properties: {n: {type: integer, format: int64}}}
`,
		"schemas/ds/common.v1.json": `{"$defs": {"BlobUrl": {"type": "string"}, "JsonId": {"type": "string"}}}`,
		"schemas/ds/thing.v1.json":  `{"type": "object", "properties": {"parts": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "number"}}}}}}`,
		"schemas/ds/signatures/Ask.v1.json": `{"name": "Ask", "version": 1, "signature_id": "@n/Ask.v1", "description": "Asks.",
			"input_schema": {"type": "object", "properties": {"thing": {"$ref": "../thing.v1.json"}}},
			"output_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
			"prompt_ir": {"version": 1, "blocks": []}, "defaults": {"strategy_id": "direct.v1"}}`,
		"migrations/1.sql":     "-- +goose Up\nCREATE TABLE runtime.things (thing_id text PRIMARY KEY, note text);\n-- +goose Down\nDROP TABLE runtime.things;\n",
		"queries/things.sql":   "-- name: ThingGet :one\n-- Finds it.\nSELECT * FROM things WHERE thing_id = @thing_id;\n",
		"queries/sqlc.yaml":    "",
		"openapi/codegen.yaml": "", "openapi/events.codegen.yaml": "", "schemas/ds/codegen.yaml": "",
	}
}

// lay writes a contract; files without content are those of this repository.
func lay(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		if content == "" {
			real, err := os.ReadFile(filepath.Join(moduleRoot, filepath.FromSlash(name)))
			require.NoError(t, err)
			content = string(real)
		}
		path := filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	return root
}

func generate(t *testing.T, files map[string]string) (gen string, err error) {
	t.Helper()
	c, err := bundle.Load(lay(t, files))
	require.NoError(t, err)
	b, err := c.Bundle(gogen.Module)
	require.NoError(t, err)
	module, err := filepath.Abs(moduleRoot)
	require.NoError(t, err)
	work := t.TempDir()
	err = gogen.Generate(context.Background(), gogen.Input{Contract: c, Bundles: b, Module: module, Work: work})
	return filepath.Join(work, "gen"), err
}

// names lists what a generated package declares at its top.
func names(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	found := map[string]bool{}
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				found[d.Name.Name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						found[s.Name.Name] = true
					case *ast.ValueSpec:
						found[s.Names[0].Name] = true
					}
				}
			}
		}
	}
	return found
}

func text(t *testing.T, parts ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(parts...))
	require.NoError(t, err)
	return strings.Join(strings.Fields(string(raw)), " ")
}

func TestASmallContractBecomesGo(t *testing.T) {
	t.Parallel()
	gen, err := generate(t, small())
	require.NoError(t, err)

	ds := names(t, filepath.Join(gen, "ds"))
	for _, component := range []string{"CommonV1BlobUrl", "CommonV1JsonId", "ThingV1", "AskV1Input", "AskV1Output"} {
		require.True(t, ds[bundle.GoName(component)], "gen/ds names %s as the references to it do", component)
	}
	require.True(t, ds["AskV1"] && ds["ThingV1PartsItem"])
	require.Contains(t, text(t, gen, "ds", "signatures.gen.go"), `AskV1 = Signature[AskV1Input, AskV1Output]{Contract{ ID: "@n/Ask.v1"`)

	event := text(t, gen, "event", "registry.gen.go")
	require.Contains(t, event, `TypeThingMade = "thing.made"`)
	require.Contains(t, event, "case TypeThingMade: return 2")
	require.Contains(t, event, "case key{TypeThingMade, 1}: return decode[ThingMadeV1](payload)")

	api := text(t, gen, "api", "contract.gen.go")
	require.Contains(t, api, `ID: "putThing", Method: "POST", Path: "/things/{thingId}", Tag: "things", Scope: ScopeService, Idempotent: true, BodyRequired: true, MaxBodyBytes: 100, Streams: true, Deprecated: false, Errors: []ErrorCode{ThingNotFound}`)
	require.Contains(t, text(t, gen, "api", "api.gen.go"), "ThingV1 = ds.ThingV1", "records are not declared twice")

	require.Contains(t, text(t, gen, "db", "models.gen.go"), "type Thing struct { ThingID string Note *string }")
}

func TestGeneratingTwiceGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	first, err := generate(t, small())
	require.NoError(t, err)
	second, err := generate(t, small())
	require.NoError(t, err)
	require.NoError(t, filepath.WalkDir(first, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(first, path)
		require.NoError(t, err)
		require.Equal(t, text(t, path), text(t, second, rel), rel)
		return nil
	}))
}

func TestWhatDoesNotFitTogetherIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, old, new, want string }{
		"event named otherwise":   {"openapi/events.yaml", "ThingMadeV2", "ThingMade2", "event thing.made: name the schema ThingMadeV2"},
		"code without status":     {"openapi/openapi.yaml", ", invalid_json: 400", "", "error code invalid_json: give x-status an HTTP status"},
		"status of no code":       {"openapi/openapi.yaml", ", invalid_json]", "]", "x-status names invalid_json"},
		"code and schema clash":   {"openapi/openapi.yaml", "    ThingID: {type", "    InvalidJSON: {type: string}\n    ThingID: {type", "error code invalid_json and components/schemas/InvalidJSON get the same Go name"},
		"code and response clash": {"openapi/openapi.yaml", "    NoThingResponse:", "    ThingNotFound: {description: no}\n    NoThingResponse:", "error code thing_not_found and components/responses/ThingNotFound get the same Go name"},
		"operation without scope": {"openapi/openapi.yaml", "      x-required-scope: service\n", "", "an operation needs operationId and x-required-scope"},
		"signature misnamed":      {"schemas/ds/signatures/Ask.v1.json", `"name": "Ask"`, `"name": "Asks"`, "name and version say Asks.v1.json"},
		"signature id of another": {"schemas/ds/signatures/Ask.v1.json", `@n/Ask.v1`, `@n/Ask.v2`, "must end in /Ask.v1"},
		"signature, no prompt":    {"schemas/ds/signatures/Ask.v1.json", `"prompt_ir"`, `"prompt"`, "prompt_ir and defaults.strategy_id are required"},
		"query on no table":       {"queries/things.sql", "FROM things", "FROM thongs", `relation "thongs" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := small()
			require.Contains(t, files[c.file], c.old)
			files[c.file] = strings.Replace(files[c.file], c.old, c.new, 1)
			_, err := generate(t, files)
			require.ErrorContains(t, err, c.want)
		})
	}
}

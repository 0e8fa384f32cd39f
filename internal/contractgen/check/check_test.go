package check_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/check"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/contractcopy"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
)

func load(t *testing.T, root string) check.Contract {
	t.Helper()
	c, err := bundle.Load(root)
	require.NoError(t, err)
	b, err := c.Bundle(gogen.Module)
	require.NoError(t, err)
	return check.Contract{Contract: c, Bundles: b}
}

// findings runs one of the checks that read documents alone.
func findings(t *testing.T, root, kind string) []check.Finding {
	t.Helper()
	c := load(t, root)
	var (
		all []check.Finding
		err error
	)
	switch kind {
	case "lint":
		all = check.Lint(context.Background(), c)
	case "examples":
		all, err = check.Examples(c)
	case "fixtures":
		all, err = check.Fixtures(c)
	}
	require.NoError(t, err)
	return all
}

// requireFinding wants one finding of a check that says what is wrong, where, and what to do.
func requireFinding(t *testing.T, all []check.Finding, kind, path, problem, remedy string) {
	t.Helper()
	for _, f := range all {
		if f.Check == kind && f.Path == path && strings.Contains(f.Problem, problem) && strings.Contains(f.Remedy, remedy) {
			return
		}
	}
	t.Fatalf("no finding of %s in %s says %q and advises %q; found:\n%s", kind, path, problem, remedy, check.Report(all))
}

func TestTheContractIsWhole(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"lint", "examples", "fixtures"} {
		require.Empty(t, check.Report(findings(t, contractcopy.Root(t), kind)))
	}
}

const (
	api     = "openapi/openapi.yaml"
	events  = "openapi/events.yaml"
	reasons = bundle.TaxonomyPath
	record  = "schemas/ds/predict_receipt.v1.json"
	ask     = "schemas/ds/signatures/Respond.v1.json"
	start   = "paths|/internal/v1/runs|post"
	list    = "paths|/internal/v1/runs|get"
	shapes  = "components|schemas"
)

type edits = []contractcopy.Edit

// edit changes one member of a document; without a value the member goes.
func edit(file, path, value string) contractcopy.Edit {
	return contractcopy.Edit{File: file, Path: path, Value: value}
}

// TestABrokenDocumentIsRefused breaks one rule at a time.
func TestABrokenDocumentIsRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edits                        edits
		check, path, problem, remedy string
	}{
		"not OpenAPI":             {edits{edit(api, "info|title", "")}, "lint", api, "not a valid OpenAPI document", "as OpenAPI 3.1 asks"},
		"operationId, form":       {edits{edit(api, start+"|operationId", "Start-Run")}, "lint", api, `operationId "Start-Run" is not camelCase`, "such as startRun"},
		"operationId, twice":      {edits{edit(api, start+"|operationId", "listRuns")}, "lint", api, "listRuns is used twice", "its own operationId"},
		"summary":                 {edits{edit(api, start+"|summary", "")}, "lint", api, "operation startRun has no summary", "write it for the caller"},
		"description":             {edits{edit(api, start+"|description", "")}, "lint", api, "operation startRun has no description", "write it for the caller"},
		"no tag":                  {edits{edit(api, start+"|tags", "")}, "lint", api, "operation startRun has no tag", "give it one"},
		"unknown tag":             {edits{edit(api, start+"|tags", "[extras]")}, "lint", api, "tag extras is not declared", "declare the tag"},
		"security":                {edits{edit(api, "security", "")}, "lint", api, "has no security", "name a security scheme"},
		"scope":                   {edits{edit(api, start+"|x-required-scope", "admin")}, "lint", api, `x-required-scope is "admin"`, "service, operator, read"},
		"idempotency":             {edits{edit(api, start+"|x-idempotent", "")}, "lint", api, "startRun does not say x-idempotent", "clients retry by it"},
		"body size":               {edits{edit(api, start+"|x-max-body-bytes", "")}, "lint", api, "does not say x-max-body-bytes", "the largest body"},
		"parameter, description":  {edits{edit(api, "components|parameters|RunID|description", "")}, "lint", api, "parameter runId has no description", "one sentence"},
		"path parameter":          {edits{edit(api, "paths|/internal/v1/runs/{runId}/cancel|post|parameters", "[]")}, "lint", api, "path parameter {runId} is not declared", "in: path"},
		"property, description":   {edits{edit(api, shapes+"|RunList|properties|runs|description", "")}, "lint", api, "RunList.runs has no description", "one sentence"},
		"enum":                    {edits{edit(api, shapes+"|RunStatus|x-extensible-enum", "")}, "lint", api, "enum RunStatus does not say whether it may grow", "x-extensible-enum"},
		"const without type":      {edits{edit(api, shapes+"|Health|properties|service|type", "")}, "lint", api, "Health.service has no type", "beside const"},
		"several types":           {edits{edit(api, shapes+"|FrameID|type", "[string, integer]")}, "lint", api, "FrameID has several types", "oneOf"},
		"open request":            {edits{edit(api, shapes+"|StartRunRequest|additionalProperties", "")}, "lint", api, "startRun body takes members it does not name", "additionalProperties: false"},
		"open request, below":     {edits{edit(api, shapes+"|FrameSource|additionalProperties", "")}, "lint", api, "appendFrame body.source takes members", "additionalProperties: false"},
		"other error shape":       {edits{edit(api, "components|responses|BadRequestResponse|content|application/json|schema", "{type: object}")}, "lint", api, "response 400 is not the error envelope", check.EnvelopeRef},
		"integer without bounds":  {edits{edit(api, shapes+"|Cursor|format", ""), edit(api, shapes+"|Cursor|maximum", "")}, "lint", api, "integer Cursor has no bounds", "int64"},
		"string without bounds":   {edits{edit(api, shapes+"|EventStream|maxLength", "")}, "lint", api, "string EventStream has no bound", "maxLength"},
		"unused component":        {edits{edit(api, shapes+"|Orphan", "{type: boolean, description: Nobody asks.}")}, "lint", api, "components/schemas/Orphan is not used", "remove it"},
		"misspelled keyword":      {edits{edit(api, shapes+"|Digest|patern", "x")}, "lint", api, `Digest has a member "patern"`, "correct the word"},
		"deprecated, no header":   {edits{edit(api, list+"|deprecated", "true")}, "lint", api, "listRuns is deprecated and its response 200 has no deprecation header", "header deprecation"},
		"header, description":     {edits{edit(api, "components|headers|XRequestID|description", "")}, "lint", api, "header x-request-id has no description", "one sentence"},
		"event, unused helper":    {edits{edit(events, shapes+"|Helper", "{type: boolean, description: Nobody asks.}")}, "lint", events, "components/schemas/Helper is not used", "remove it"},
		"event property":          {edits{edit(events, shapes+"|MessageDeltaV1|properties|delta|description", "")}, "lint", events, "MessageDeltaV1.delta has no description", "one sentence"},
		"record, $schema":         {edits{edit(record, "$schema", "")}, "lint", record, "does not say which JSON Schema it is", "2020-12"},
		"record, $id":             {edits{edit(record, "$id", "https://x/other.json")}, "lint", record, "$id is", "ends in the file's name"},
		"signature property":      {edits{edit(ask, "output_schema|properties|text|description", "")}, "lint", ask, "output_schema.text has no description", "one sentence"},
		"no request example":      {edits{edit(api, start+"|requestBody|content|application/json|examples", "")}, "examples", api, "startRun request body has no application/json example", "add an example"},
		"no response example":     {edits{edit(api, start+"|responses|202|content|application/json|examples", "")}, "examples", api, "startRun response 202 has no application/json example", "add an example"},
		"no error example":        {edits{edit(api, "components|responses|ConflictResponse|content|application/json|examples", "")}, "examples", api, "startRun response 409 has no application/json example", "add an example"},
		"example does not fit":    {edits{edit(api, start+"|requestBody|content|application/json|examples|user|value|threadId", "7")}, "examples", api, "example user does not fit its schema: /threadId breaks type", "correct the example"},
		"no error response":       {edits{edit(api, list+"|responses", "{'200': {description: ok}}")}, "examples", api, "operation listRuns declares no error response", "components/responses"},
		"no success":              {edits{edit(api, list+"|responses", "{'400': {$ref: '#/components/responses/BadRequestResponse'}}")}, "examples", api, "operation listRuns declares no success", "2xx response"},
		"event without fixture":   {edits{edit(events, shapes+"|RunPausedV1", "{type: object, x-event-type: run.paused, x-event-version: 1, description: Paused., additionalProperties: false}")}, "fixtures", "openapi/fixtures/events/run.paused.v1.json", "event run.paused version 1 has no fixture", "write openapi/fixtures/events/run.paused.v1.json"},
		"event fixture, unfit":    {edits{edit(events, shapes+"|MessageDeltaV1|properties|delta|type", "integer")}, "fixtures", "openapi/fixtures/events/message.delta.v1.json", "does not fit MessageDeltaV1: /delta breaks type", "becomes a new version"},
		"event gone":              {edits{edit(events, shapes+"|MessageDeltaV1", "")}, "fixtures", "openapi/fixtures/events/message.delta.v1.json", "belongs to no schema", "put its schema back"},
		"record fixture, unfit":   {edits{edit(record, "properties|status|enum", "[gone]")}, "fixtures", "schemas/ds/fixtures/predict_receipt.v1.json", "does not fit PredictReceiptV1: /status breaks enum", "becomes a new version"},
		"signature fixture":       {edits{edit(ask, "output_schema|properties|text|type", "boolean")}, "fixtures", "schemas/ds/fixtures/Respond.v1.json", "member output does not fit RespondV1Output: /text breaks type", "correct the fixture"},
		"signature file, misfit":  {edits{edit(ask, "surplus", "1")}, "fixtures", ask, "does not fit SignatureContractV1", "correct the fixture"},
		"record's string, bounds": {edits{edit(record, "properties|run_id|maxLength", "")}, "lint", record, "run_id has no bound", "maxLength"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := contractcopy.New(t, "openapi", "schemas")
			contractcopy.Apply(t, root, c.edits...)
			requireFinding(t, findings(t, root, c.check), c.check, c.path, c.problem, c.remedy)
		})
	}
}

// TestFixtureFilesAreLookedFor removes and adds files beside the documents.
func TestFixtureFilesAreLookedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, content, problem, remedy string }{
		"event fixture removed":     {"openapi/fixtures/events/run.started.v1.json", "", "event run.started version 1 has no fixture", "write openapi/fixtures/events/run.started.v1.json"},
		"record fixture removed":    {"schemas/ds/fixtures/predict_receipt.v1.json", "", "DS record predict_receipt.v1.json has no fixture", "write schemas/ds/fixtures/predict_receipt.v1.json"},
		"signature fixture removed": {"schemas/ds/fixtures/Respond.v1.json", "", "signature Respond.v1.json has no fixture", `"input" and "output"`},
		"signature fixture halved":  {"schemas/ds/fixtures/Respond.v1.json", `{"output": {"text": "x"}}`, "the fixture has no member input", "as its input"},
		"fixture of no event":       {"openapi/fixtures/events/run.lost.v3.json", `{}`, "belongs to no schema", "read for ever"},
		"fixture that is not JSON":  {"openapi/fixtures/events/run.started.v1.json", `{`, "the fixture is not JSON", "correct the file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := contractcopy.New(t, "openapi", "schemas")
			file := filepath.Join(root, filepath.FromSlash(c.file))
			if c.content == "" {
				require.NoError(t, os.Remove(file))
			} else {
				require.NoError(t, os.WriteFile(file, []byte(c.content), 0o600))
			}
			requireFinding(t, findings(t, root, "fixtures"), "fixtures", c.file, c.problem, c.remedy)
		})
	}
}

func TestDriftNamesEveryFileThatDiffers(t *testing.T) {
	t.Parallel()
	root := contractcopy.New(t, "gen/event")
	fresh := filepath.Join(contractcopy.Root(t), "gen", "event")
	gen := filepath.Join(root, "gen", "event")
	require.NoError(t, os.WriteFile(filepath.Join(gen, "event.gen.go"), []byte("package event // by hand\n"), 0o600))
	require.NoError(t, os.Remove(filepath.Join(gen, "registry.gen.go")))
	require.NoError(t, os.WriteFile(filepath.Join(gen, "old.gen.go"), []byte("package event\n"), 0o600))

	found, err := check.Drift(fresh, gen)

	require.NoError(t, err)
	require.Len(t, found, 3)
	requireFinding(t, found, "drift", "gen/event.gen.go", "the file is changed", "make generate")
	requireFinding(t, found, "drift", "gen/registry.gen.go", "the file is missing", "make generate")
	requireFinding(t, found, "drift", "gen/old.gen.go", "the file is orphaned", "make generate")
}

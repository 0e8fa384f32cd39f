package gogen_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
)

// selectTool is the signature whose digests are published with the protocol.
func selectTool(t *testing.T) map[string]string {
	t.Helper()
	object := func(names []string, props map[string]any) map[string]any {
		return map[string]any{"type": "object", "additionalProperties": false, "required": names, "properties": props}
	}
	text := map[string]any{"type": "string"}
	list := func(of any) map[string]any { return map[string]any{"type": "array", "items": of} }
	input := object([]string{"messages", "tools", "context"}, map[string]any{
		"messages": list(object([]string{"role", "content"}, map[string]any{"role": text, "content": text})),
		"tools":    list(object([]string{"name", "description"}, map[string]any{"name": text, "description": text})),
		"context":  object([]string{"memory"}, map[string]any{"memory": map[string]any{"type": "object"}}),
	})
	output := object([]string{"tool_name", "arguments", "confidence"}, map[string]any{
		"tool_name": text, "arguments": map[string]any{"type": "object"},
		"confidence": map[string]any{"type": "number", "minimum": 0, "maximum": 1},
	})
	for _, side := range []map[string]any{input, output} {
		side["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	}
	raw, err := json.Marshal(map[string]any{
		"name": "SelectTool", "version": 1, "signature_id": "@openagents/autopilot/blueprint/SelectTool.v1",
		"input_schema": input, "output_schema": output,
		"prompt_ir": map[string]any{"version": 1, "blocks": []any{
			map[string]any{"_tag": "Instruction", "text": "Choose the best tool for the current objective."},
			map[string]any{"_tag": "OutputFormat", "format": map[string]any{"_tag": "JsonSchema", "schema": output}},
		}},
		"defaults": map[string]any{"strategy_id": "direct.v1"},
	})
	require.NoError(t, err)
	files := small()
	delete(files, "schemas/ds/signatures/Ask.v1.json")
	files["schemas/ds/signatures/SelectTool.v1.json"] = string(raw)
	return files
}

func signatures(t *testing.T, files map[string]string) []gogen.Signature {
	t.Helper()
	c, err := bundle.Load(lay(t, files))
	require.NoError(t, err)
	b, err := c.Bundle(gogen.Module)
	require.NoError(t, err)
	all, err := gogen.Signatures(c, b.DS)
	require.NoError(t, err)
	return all
}

func TestSignatureDigestsAreThePublishedOnes(t *testing.T) {
	t.Parallel()
	s := signatures(t, selectTool(t))[0]
	require.Equal(t, "sha256:1a72a9fa62f667b3ec8dc2398203527f7fd13073d7d57da366f85cbc1db95f87", s.InputSchemaHash)
	require.Equal(t, "sha256:4c99a8fccc5628c3fde81d039af7722e9ae428a3d328550c4c71f81838ac7481", s.OutputSchemaHash)
	require.Equal(t, "sha256:f7b84e0a72d7439884ec43fca52f4894476260720fde36f246e2cd350e376201", s.SchemaHash)
	require.Equal(t, "sha256:fea9e08247b6d3023936b06e7133289565a1351227a22195b4b3003bbade10f8", s.PromptHash)
	require.Equal(t, "sha256:a0ed914edac9014abd2f7bf22e683242842ecf5af84caa6bdc785aa6dda29948", s.ProgramHash)
}

func TestAReferredSchemaIsPartOfTheDigest(t *testing.T) {
	t.Parallel()
	before := signatures(t, small())[0]
	files := small()
	files["schemas/ds/thing.v1.json"] = `{"type": "object", "properties": {"parts": {"type": "array", "items": {"type": "string"}}}}`
	after := signatures(t, files)[0]
	require.NotEqual(t, before.InputSchemaHash, after.InputSchemaHash)
	require.NotEqual(t, before.SchemaHash, after.SchemaHash)
	require.Equal(t, before.OutputSchemaHash, after.OutputSchemaHash)
	require.Equal(t, before.PromptHash, after.PromptHash)
}

func TestSpacingAndKeyOrderDoNotChangeADigest(t *testing.T) {
	t.Parallel()
	files := selectTool(t)
	var v any
	require.NoError(t, json.Unmarshal([]byte(files["schemas/ds/signatures/SelectTool.v1.json"]), &v))
	indented, err := json.MarshalIndent(v, "", "    ")
	require.NoError(t, err)
	before := signatures(t, files)[0]
	files["schemas/ds/signatures/SelectTool.v1.json"] = string(indented)
	require.Equal(t, before, signatures(t, files)[0])
}

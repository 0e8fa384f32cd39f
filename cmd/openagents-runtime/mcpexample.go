package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/spf13/cobra"
)

// counted is what the example's tool is given.
type counted struct {
	Text string `json:"text" jsonschema:"the text to count"`
}

// counts is what it answers.
type counts struct {
	Words      int `json:"words"`
	Characters int `json:"characters"`
}

// exampleServer is a small server that speaks MCP: what `dev` has its first run
// call, and a server to try a configuration with.
func exampleServer() *mcp.Server {
	s := mcp.NewServer(&mcp.Implementation{Name: "openagents-runtime-example", Version: version}, nil)
	mcp.AddTool(s, &mcp.Tool{
		Name: "count", Title: "Count words", Description: "Counts the words and characters of a text.",
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, func(_ context.Context, _ *mcp.CallToolRequest, in counted) (*mcp.CallToolResult, counts, error) {
		return nil, counts{Words: len(strings.Fields(in.Text)), Characters: utf8.RuneCountInString(in.Text)}, nil
	})
	s.AddTool(&mcp.Tool{
		Name: "greet", Title: "Greet somebody", Description: "Greets a person, whose name it asks for.",
		InputSchema: map[string]any{"type": "object", "additionalProperties": false}, Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, greet)
	return s
}

// greet asks for a name before it goes on.
func greet(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	said, asked := r.Params.InputResponses["name"].(*mcp.ElicitResult)
	switch {
	case !asked:
		return &mcp.CallToolResult{InputRequests: mcp.InputRequestMap{"name": &mcp.ElicitParams{
			Message: "Whom shall I greet?",
			RequestedSchema: map[string]any{
				"type": "object", "required": []string{"name"},
				"properties": map[string]any{"name": map[string]any{"type": "string", "title": "Name", "minLength": 1, "maxLength": 100}},
			},
		}}}, nil
	case said.Action != "accept":
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "Then I greet nobody."}}}, nil
	}
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: fmt.Sprintf("Good day, %v.", said.Content["name"])}}}, nil
}

func mcpExampleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "example", Short: "Be a small server that speaks MCP over standard input and output", Args: cobra.NoArgs,
		Long: "Be a small server that speaks MCP over standard input and output. It asks for nothing and reaches nothing; " +
			"a file of servers names it to try one.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := exampleServer().Run(cmd.Context(), &mcp.StdioTransport{})
			if errors.Is(err, io.EOF) || cmd.Context().Err() != nil {
				return nil // whoever started it is done with it
			}
			return err
		},
	}
}

// exampleServers is a file that names the example, for a program at a path.
func exampleServers(program string) map[string]any {
	return map[string]any{
		"format": "openagents.runtime.mcp_servers", "format_version": 1,
		"servers": []any{map[string]any{
			"name": exampleName, "stdio": map[string]any{"command": program, "args": []string{"mcp", "example"}},
		}},
	}
}

// exampleName begins the names of the example's tools.
const exampleName = "example"

package mcp

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// maxInline is how many bytes of an image, a sound or a file an output holds;
// of a larger one it holds what it is.
const maxInline = 24 << 10

// output makes one JSON value of an answer: {"content": […], "structured": …},
// each when there is such.
func output(res *mcp.CallToolResult) json.RawMessage {
	out := struct {
		Content    []map[string]any `json:"content,omitempty"`
		Structured any              `json:"structured,omitempty"`
	}{Structured: res.StructuredContent}
	for _, c := range res.Content {
		if text, ok := c.(*mcp.TextContent); ok && res.StructuredContent != nil && repeats(text.Text, res.StructuredContent) {
			continue // for clients that know no structured content
		}
		out.Content = append(out.Content, block(c))
	}
	return marshal(out)
}

func repeats(text string, structured any) bool {
	var v any
	return json.Unmarshal([]byte(text), &v) == nil && reflect.DeepEqual(v, structured)
}

// block is one piece of content.
func block(c mcp.Content) map[string]any {
	switch c := c.(type) {
	case *mcp.TextContent:
		return map[string]any{"type": "text", "text": clean(c.Text, len(c.Text), true)}
	case *mcp.ImageContent:
		return data("image", "", c.MIMEType, c.Data)
	case *mcp.AudioContent:
		return data("audio", "", c.MIMEType, c.Data)
	case *mcp.ResourceLink:
		return labelled(map[string]any{"type": "resource_link", "uri": clean(c.URI, 2000, false)}, map[string]string{
			"name": c.Name, "title": c.Title, "description": c.Description, "mime_type": c.MIMEType,
		})
	case *mcp.EmbeddedResource:
		if c.Resource == nil {
			return map[string]any{"type": "resource"}
		}
		if c.Resource.Blob != nil {
			return data("resource", c.Resource.URI, c.Resource.MIMEType, c.Resource.Blob)
		}
		return labelled(map[string]any{
			"type": "resource", "uri": clean(c.Resource.URI, 2000, false), "text": clean(c.Resource.Text, len(c.Resource.Text), true),
		}, map[string]string{"mime_type": c.Resource.MIMEType})
	}
	return map[string]any{"type": "unknown"}
}

// data is binary content: in base64, or only how much there was.
func data(kind, uri, mimeType string, raw []byte) map[string]any {
	b := labelled(map[string]any{"type": kind, "bytes": len(raw)}, map[string]string{"uri": uri, "mime_type": mimeType})
	if len(raw) <= maxInline {
		b["base64"] = raw
	} else {
		b["omitted"] = true
	}
	return b
}

// labelled adds the texts that are not empty.
func labelled(b map[string]any, texts map[string]string) map[string]any {
	for name, text := range texts {
		if text = clean(text, 2000, false); text != "" {
			b[name] = text
		}
	}
	return b
}

// failure is the error of an answer that says it is one.
func failure(res *mcp.CallToolResult) *tool.Error {
	var texts []string
	for _, c := range res.Content {
		if text, ok := c.(*mcp.TextContent); ok {
			texts = append(texts, text.Text)
		}
	}
	message := clean(strings.Join(texts, "\n"), 4000, true)
	if message == "" && res.StructuredContent != nil {
		message = cut(string(bytes.TrimSpace(marshal(res.StructuredContent))), 4000)
	}
	if message == "" {
		message = "The tool failed and does not say why."
	}
	return &tool.Error{Class: ToolError, Message: message}
}

// progressed is what a progress notification shows.
func progressed(p *mcp.ProgressNotificationParams) json.RawMessage {
	out := map[string]any{"progress": p.Progress}
	if p.Total > 0 {
		out["total"] = p.Total
	}
	if text := clean(p.Message, 1000, true); text != "" {
		out["message"] = text
	}
	return marshal(out)
}

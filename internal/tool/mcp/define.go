package mcp

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/openagentsinc/openagents-runtime/internal/tool"
)

// group is the group of all tools of MCP servers.
const group = "mcp"

// define decides what a tool of a server is here. An error says why it is not
// taken; note says what of it is left out.
//
// What a server says of its own tools is a claim. Unless the file says that it is
// believed, every tool may write, needs a person's approval, and is not called
// again when its outcome is not known.
func define(s Server, t *mcp.Tool) (spec tool.Spec, digest, note string, err error) {
	digest = digestOf(t)
	rules := s.Tools[t.Name]
	if rules.Pin != "" && rules.Pin != digest {
		return spec, digest, "", errors.New("its definition is not the one that was pinned")
	}
	hints := mcp.ToolAnnotations{}
	if t.Annotations != nil && s.TrustAnnotations {
		hints = *t.Annotations
	}
	spec = tool.Spec{
		Name: s.Prefix + "." + t.Name, Kind: tool.MCP, Provider: s.Provider(), Groups: append([]string{group}, s.Groups...),
		Title:       clean(cmp.Or(t.Title, annotated(t), t.Name), 160, false),
		Description: clean(t.Description, 4000, true),
		Writes:      !hints.ReadOnlyHint, Boundary: tool.Reconcile,
		Timeout: s.timeout(rules), Parallel: cmp.Or(rules.Parallel, s.Parallel, 8), MaxOutput: cmp.Or(rules.MaxOutput, s.MaxOutput),
	}
	if rules.Writes != nil {
		spec.Writes = *rules.Writes
	}
	if !spec.Writes || hints.IdempotentHint {
		spec.Boundary = tool.SafeRetry
	}
	spec.Boundary = cmp.Or(rules.Boundary, spec.Boundary)
	if spec.NeedsApproval = spec.Writes; rules.Approval != nil {
		spec.NeedsApproval = *rules.Approval
	}
	if spec.Input, err = inputSchema(t.InputSchema); err != nil {
		return spec, digest, "", err
	}
	if t.OutputSchema != nil {
		spec.Output = outputSchema(t.OutputSchema)
	}
	err = tool.Check(spec)
	if err != nil && spec.Output != nil {
		whole := err
		spec.Output = nil
		if err = tool.Check(spec); err == nil {
			note = "its output schema is left out: " + whole.Error()
		}
	}
	return spec, digest, note, err
}

func annotated(t *mcp.Tool) string {
	if t.Annotations == nil {
		return ""
	}
	return t.Annotations.Title
}

func inputSchema(v any) (json.RawMessage, error) {
	if v == nil {
		return json.RawMessage(`{"type":"object"}`), nil
	}
	schema, ok := told(v, 0).(map[string]any)
	if !ok {
		return nil, errors.New("its input schema is no object")
	}
	if kind, given := schema["type"]; given && kind != "object" {
		return nil, errors.New("its input schema is not one of an object")
	}
	return marshal(schema), nil
}

// outputSchema is the schema of our output for a tool that says what its
// structured content is.
func outputSchema(v any) json.RawMessage {
	return marshal(map[string]any{
		"type": "object", "required": []string{"structured"},
		"properties": map[string]any{"structured": within(told(v, 0), "#/properties/structured", 0)},
	})
}

// digestOf is the digest of all that a server says of a tool.
func digestOf(t *mcp.Tool) string {
	sum := sha256.Sum256(marshal(map[string]any{
		"name": t.Name, "title": t.Title, "description": t.Description, "input": t.InputSchema,
		"output": t.OutputSchema, "annotations": t.Annotations,
	}))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Tool is a tool that was taken, as it is listed for people.
type Tool struct {
	Name        string        `json:"name"`
	Title       string        `json:"title,omitempty"`
	Writes      bool          `json:"writes"`
	Approval    bool          `json:"approval"`
	Boundary    tool.Boundary `json:"boundary"`
	Groups      []string      `json:"groups"`
	TimeoutMS   int64         `json:"timeout_ms"`
	Digest      string        `json:"digest"`
	Note        string        `json:"note,omitempty"`
	Description string        `json:"description,omitempty"`
}

// Refused is a tool that was not taken.
type Refused struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// listing is what became of a server's list of tools.
type listing struct {
	tools   []*remote
	taken   []Tool
	refused []Refused
	ignored int // by allow, deny and max_tools
	digest  string
}

// sort decides about every tool of a list, in the server's order.
func (s *server) sort(list []*mcp.Tool) listing {
	var l listing
	seen := map[string]bool{}
	refuse := func(t *mcp.Tool, why string) {
		l.refused = append(l.refused, Refused{clean(t.Name, 128, false), clean(why, 600, false)})
	}
	for _, t := range list {
		if t == nil || !s.c.takes(t.Name) || len(l.tools) >= s.c.maxTools() {
			l.ignored++
			continue
		}
		spec, digest, note, err := define(s.c, t)
		switch {
		case err != nil:
			refuse(t, err.Error())
			continue
		case seen[spec.Name]:
			refuse(t, "the server lists it twice")
			continue
		case s.all.c.Taken != nil && s.all.c.Taken(spec.Name):
			refuse(t, fmt.Sprintf("there is another tool called %s", spec.Name))
			continue
		}
		seen[spec.Name] = true
		l.tools = append(l.tools, &remote{server: s, name: t.Name, spec: spec})
		l.taken = append(l.taken, Tool{
			Name: spec.Name, Title: spec.Title, Writes: spec.Writes, Approval: spec.NeedsApproval, Boundary: spec.Boundary,
			Groups: spec.Groups, TimeoutMS: spec.Timeout.Milliseconds(), Digest: digest, Note: note, Description: spec.Description,
		})
	}
	sum := sha256.Sum256(marshal(map[string]any{"taken": l.taken, "refused": l.refused, "ignored": l.ignored}))
	l.digest = hex.EncodeToString(sum[:])
	return l
}

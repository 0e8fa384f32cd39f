package gogen

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

type operation struct {
	ID, Method, Path, Tag, Scope string
	Idempotent, Deprecated       bool
	BodyRequired, Streams        bool
	MaxBodyBytes                 int64
	Errors                       []string // Go names
}

type errorCode struct {
	Value, Go string
	Status    int
}

// methods are the keys of a path item that hold an operation.
var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

func writeOperations(_ context.Context, in Input) error {
	root := in.Contract.OpenAPI.Node
	codes, err := errorCodes(in.Contract.OpenAPI)
	if err != nil {
		return err
	}
	var (
		ops    []operation
		scopes []string
		errs   []error
	)
	paths := bundle.Get(root, "paths")
	for i := 0; paths != nil && i+1 < len(paths.Content); i += 2 {
		item := paths.Content[i+1]
		for j := 0; j+1 < len(item.Content); j += 2 {
			if !slices.Contains(methods, item.Content[j].Value) {
				continue
			}
			op, err := readOperation(in.Contract.OpenAPI, item.Content[j], item.Content[j+1], paths.Content[i].Value, codes)
			errs = append(errs, err)
			ops = append(ops, op)
			if !slices.Contains(scopes, op.Scope) {
				scopes = append(scopes, op.Scope)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.Sort(scopes)
	return writeGo(in.gen("api", "contract.gen.go"), operationTemplate,
		map[string]any{"Operations": ops, "Scopes": scopes, "Codes": codes})
}

func readOperation(f *bundle.File, method, n *yaml.Node, path string, codes []errorCode) (operation, error) {
	op := operation{
		ID: bundle.Str(n, "operationId"), Method: strings.ToUpper(method.Value), Path: path,
		Scope:        bundle.Str(n, "x-required-scope"),
		Idempotent:   bundle.Str(n, "x-idempotent") == "true",
		Deprecated:   bundle.Str(n, "deprecated") == "true",
		BodyRequired: bundle.Str(bundle.Get(n, "requestBody"), "required") == "true",
	}
	if tags := bundle.Get(n, "tags"); tags != nil && len(tags.Content) > 0 {
		op.Tag = tags.Content[0].Value
	}
	if op.ID == "" || op.Scope == "" {
		return op, &bundle.Problem{Path: f.Path, Line: method.Line, Text: "an operation needs operationId and x-required-scope"}
	}
	if limit := bundle.Get(n, "x-max-body-bytes"); limit != nil {
		v, err := strconv.ParseInt(limit.Value, 10, 64)
		if err != nil || v < 0 {
			return op, &bundle.Problem{Path: f.Path, Line: limit.Line, Text: "x-max-body-bytes is a whole number of bytes"}
		}
		op.MaxBodyBytes = v
	}
	statuses := map[string]bool{}
	responses := bundle.Get(n, "responses")
	for i := 0; responses != nil && i+1 < len(responses.Content); i += 2 {
		status := responses.Content[i].Value
		statuses[status] = true
		if strings.HasPrefix(status, "2") && bundle.Get(bundle.Get(responses.Content[i+1], "content"), "text/event-stream") != nil {
			op.Streams = true
		}
	}
	for _, c := range codes {
		if statuses[strconv.Itoa(c.Status)] {
			op.Errors = append(op.Errors, c.Go)
		}
	}
	return op, nil
}

// errorCodes reads the ErrorCode enum and its x-status map.
func errorCodes(f *bundle.File) ([]errorCode, error) {
	components := bundle.Get(f.Node, "components")
	schema := bundle.Get(bundle.Get(components, "schemas"), "ErrorCode")
	enum, statuses := bundle.Get(schema, "enum"), bundle.Get(schema, "x-status")
	if enum == nil || statuses == nil {
		return nil, fmt.Errorf("%s: components/schemas/ErrorCode needs enum and x-status, the HTTP status of each code", f.Path)
	}
	taken := map[string]string{}
	for _, section := range []string{"schemas", "responses"} {
		members := bundle.Get(components, section)
		for i := 0; members != nil && i < len(members.Content); i += 2 {
			taken[bundle.GoName(members.Content[i].Value)] = section + "/" + members.Content[i].Value
		}
	}
	var (
		codes []errorCode
		errs  []error
	)
	fail := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, &bundle.Problem{Path: f.Path, Line: n.Line, Text: fmt.Sprintf(format, args...)})
	}
	for _, v := range enum.Content {
		status, err := strconv.Atoi(bundle.Str(statuses, v.Value))
		c := errorCode{Value: v.Value, Go: bundle.GoName(v.Value), Status: status}
		if err != nil || status < 400 || status > 599 {
			fail(v, "error code %s: give x-status an HTTP status from 400 to 599 for it", v.Value)
		}
		if other := taken[c.Go]; other != "" {
			fail(v, "error code %s and components/%s get the same Go name; rename the component", v.Value, other)
		}
		codes = append(codes, c)
	}
	for i := 0; i+1 < len(statuses.Content); i += 2 {
		known := func(n *yaml.Node) bool { return n.Value == statuses.Content[i].Value }
		if !slices.ContainsFunc(enum.Content, known) {
			fail(statuses.Content[i], "x-status names %s, which is not in the enum", statuses.Content[i].Value)
		}
	}
	return codes, errors.Join(errs...)
}

var operationTemplate = template.Must(template.New("operations").Funcs(template.FuncMap{"camel": bundle.Camel}).Parse(
	`// Code generated by contractgen from openapi/openapi.yaml. DO NOT EDIT.

package api

// ErrorCode says what went wrong, for programs.
type ErrorCode string

// The error codes of the contract.
const (
{{- range .Codes}}
	{{.Go}} ErrorCode = {{printf "%q" .Value}}
{{- end}}
)

// ErrorCodes returns every code, in the contract's order.
func ErrorCodes() []ErrorCode {
	return []ErrorCode{
{{- range .Codes}}
		{{.Go}},
{{- end}}
	}
}

// Status returns the HTTP status of the code, or 0 when the contract has no such code.
func (c ErrorCode) Status() int {
	switch c {
{{- range .Codes}}
	case {{.Go}}:
		return {{.Status}}
{{- end}}
	}
	return 0
}

// Valid tells whether the contract has the code.
func (c ErrorCode) Valid() bool { return c.Status() != 0 }

// Scope is what a token must allow before an operation is carried out.
type Scope string

// The scopes that operations require.
const (
{{- range .Scopes}}
	Scope{{camel .}} Scope = {{printf "%q" .}}
{{- end}}
)

// Operation is what the contract says about an operation beside its shapes.
type Operation struct {
	ID           string      // operationId
	Method       string      // GET, POST, …
	Path         string      // with {parameters}
	Tag          string      // its first tag
	Scope        Scope       // x-required-scope
	Idempotent   bool        // x-idempotent: sending it again is safe
	BodyRequired bool        // whether a body must be sent
	MaxBodyBytes int64       // x-max-body-bytes; 0 when it takes no body
	Streams      bool        // whether a success is text/event-stream
	Deprecated   bool        // whether it will go
	Errors       []ErrorCode // codes whose status the operation declares
}

// Pattern is the operation's route for net/http.ServeMux.
func (o Operation) Pattern() string { return o.Method + " " + o.Path }

// Operations returns every operation, in the contract's order.
func Operations() []Operation {
	return []Operation{
{{- range .Operations}}
		{
			ID: {{printf "%q" .ID}}, Method: {{printf "%q" .Method}}, Path: {{printf "%q" .Path}}, Tag: {{printf "%q" .Tag}},
			Scope: Scope{{camel .Scope}}, Idempotent: {{.Idempotent}}, BodyRequired: {{.BodyRequired}}, MaxBodyBytes: {{.MaxBodyBytes}},
			Streams: {{.Streams}}, Deprecated: {{.Deprecated}},
			Errors: []ErrorCode{ {{- range .Errors}}{{.}}, {{end -}} },
		},
{{- end}}
	}
}
`))

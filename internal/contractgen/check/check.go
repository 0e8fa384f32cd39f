// Package check finds out whether the contract keeps its promises.
package check

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// Finding is one thing that must change before the contract passes.
type Finding struct {
	Check   string // drift, lint, examples, fixtures, breaking
	Path    string // file, relative to the contract's root
	Line    int    // 0 when the whole file is meant
	Problem string
	Remedy  string // what to do
}

func (f Finding) String() string {
	where := f.Path
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", f.Path, f.Line)
	}
	return fmt.Sprintf("%s: %s: %s\n    %s", f.Check, where, f.Problem, f.Remedy)
}

// Report joins findings into one text, each with its remedy.
func Report(all []Finding) string {
	lines := make([]string, 0, len(all))
	for _, f := range all {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// Contract is what the checks read.
type Contract struct {
	*bundle.Contract
	Bundles *bundle.Bundles
}

// collector gathers the findings of one check.
type collector struct {
	check string
	found []Finding
}

func (c *collector) add(f *bundle.File, n *yaml.Node, problem, remedy string, args ...any) {
	line := 0
	if n != nil {
		line = n.Line
	}
	c.found = append(c.found, Finding{c.check, f.Path, line, fmt.Sprintf(problem, args...), remedy})
}

// each calls fn for every key and value of a mapping.
func each(n *yaml.Node, fn func(key, value *yaml.Node)) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		fn(n.Content[i], n.Content[i+1])
	}
}

// operation is one operation of openapi.yaml with its place.
type operation struct {
	Path, Method string
	Key, Node    *yaml.Node
	Item         *yaml.Node
}

func (o operation) id() string {
	if id := bundle.Str(o.Node, "operationId"); id != "" {
		return id
	}
	return strings.ToUpper(o.Method) + " " + o.Path
}

var methods = map[string]bool{
	"get": true, "put": true, "post": true, "delete": true,
	"options": true, "head": true, "patch": true, "trace": true,
}

func operations(doc *yaml.Node) []operation {
	var all []operation
	each(bundle.Get(doc, "paths"), func(path, item *yaml.Node) {
		each(item, func(method, node *yaml.Node) {
			if methods[method.Value] {
				all = append(all, operation{path.Value, method.Value, method, node, item})
			}
		})
	})
	return all
}

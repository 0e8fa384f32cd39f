package bundle

import (
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

// target is what a reference points at: a component of a document or a definition of a schema file.
type target struct {
	file    *File
	section string // schemas, parameters, responses, …
	name    string // component name inside its own document
	node    *yaml.Node
}

// key is the component's name in a bundle.
func (t target) key() string { return t.section + "/" + t.name }

// resolve follows one reference text from one file under the rules of that file's kind.
func (c *Contract) resolve(from *File, at *yaml.Node) (target, error) {
	ref := at.Value
	file, pointer, _ := strings.Cut(ref, "#")
	to := from
	if file != "" {
		full := path.Join(path.Dir(from.Path), file)
		if to = c.file(full); to == nil {
			return target{}, from.problem(at, "reference %q: there is no contract file %s; %s", ref, full, refRule(from.Kind))
		}
	}
	switch {
	case from.Kind == KindRecord && file != "" && to.Kind == KindRecord:
	case from.Kind == KindSignature && file != "" && (to.Kind == KindRecord || to == from):
	case from.Kind == KindOpenAPI && file == "":
	case from.Kind == KindOpenAPI && (to.Kind == KindEvents || to.Kind == KindRecord || to.Kind == KindSignature):
	case from.Kind == KindEvents && (file == "" || to.Kind == KindRecord):
	default:
		return target{}, from.problem(at, "reference %q is not allowed here; %s", ref, refRule(from.Kind))
	}
	var (
		t  target
		ok bool
	)
	if to.Kind == KindOpenAPI || to.Kind == KindEvents {
		t, ok = componentTarget(to, pointer)
	} else {
		t, ok = schemaTarget(to, pointer)
	}
	if !ok {
		return target{}, from.problem(at, "reference %q: %s has no such definition; %s", ref, to.Path, refRule(from.Kind))
	}
	if to.Kind == KindEvents && t.section != "schemas" {
		return target{}, from.problem(at, "reference %q: only schemas are shared from %s", ref, to.Path)
	}
	return t, nil
}

func refRule(k Kind) string {
	switch k {
	case KindOpenAPI:
		return "write #/components/<section>/<Name>, events.yaml#/components/schemas/<Name>, ../schemas/ds/<name>.v<N>.json or ../schemas/ds/<name>.v<N>.json#/$defs/<Name>"
	case KindEvents:
		return "write #/components/schemas/<Name>, ../schemas/ds/<name>.v<N>.json or ../schemas/ds/<name>.v<N>.json#/$defs/<Name>"
	case KindRecord:
		return "write <name>.v<N>.json or <name>.v<N>.json#/$defs/<Name>, also for the file itself"
	default:
		return "write ../<name>.v<N>.json or ../<name>.v<N>.json#/$defs/<Name>; for the file itself <Name>.v<N>.json#/$defs/<Name>"
	}
}

func (c *Contract) file(p string) *File {
	for _, f := range c.all() {
		if f.Path == p {
			return f
		}
	}
	return nil
}

func (c *Contract) all() []*File {
	files := []*File{c.OpenAPI, c.Events}
	files = append(files, c.Records...)
	return append(files, c.Signatures...)
}

func componentTarget(f *File, pointer string) (target, bool) {
	parts := strings.Split(pointer, "/")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "components" {
		return target{}, false
	}
	node := Get(Get(Get(f.Node, "components"), parts[2]), parts[3])
	return target{file: f, section: parts[2], name: parts[3], node: node}, node != nil
}

func schemaTarget(f *File, pointer string) (target, bool) {
	base, ok := baseName(f.Path)
	if !ok {
		return target{}, false
	}
	t := target{file: f, section: "schemas", name: base, node: f.Node}
	if pointer == "" {
		return t, f.Kind == KindRecord && hasRoot(f.Node)
	}
	name, found := strings.CutPrefix(pointer, "/$defs/")
	if !found || strings.Contains(name, "/") {
		return target{}, false
	}
	t.name, t.node = base+name, Get(Get(f.Node, "$defs"), name)
	return t, t.node != nil
}

// documentKeys are members of a schema file that describe the file and not a value.
var documentKeys = map[string]bool{
	"$id": true, "$schema": true, "$defs": true, "$comment": true, "title": true, "description": true,
}

// hasRoot tells whether the file defines a type itself, beside its $defs.
func hasRoot(n *yaml.Node) bool {
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i].Value; !documentKeys[k] && !strings.HasPrefix(k, "x-") {
			return true
		}
	}
	return false
}

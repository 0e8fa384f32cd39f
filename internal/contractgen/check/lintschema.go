package check

import (
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// place says what a schema's position asks of it.
type place struct {
	described bool // it must explain itself: a property or a component
}

func (l *linter) components() {
	for _, f := range []*bundle.File{l.c.OpenAPI, l.c.Events} {
		each(bundle.Get(bundle.Get(f.Node, "components"), "schemas"), func(name, s *yaml.Node) {
			l.schema(f, s, name.Value, place{described: true})
		})
	}
}

func (l *linter) schemaFiles() {
	for _, f := range l.c.Records {
		root := place{described: true}
		if bundle.Str(f.Node, "$schema") != "https://json-schema.org/draft/2020-12/schema" {
			l.add(f, f.Node, "the file does not say which JSON Schema it is", `write "$schema": "https://json-schema.org/draft/2020-12/schema"`)
		}
		if id := bundle.Str(f.Node, "$id"); !strings.HasSuffix(id, "/"+f.Path[strings.LastIndex(f.Path, "/")+1:]) {
			l.add(f, f.Node, "$id is %q", "give it an $id that ends in the file's name", id)
		}
		if hasType(f.Node) {
			l.schema(f, f.Node, f.Path, root)
		}
		each(bundle.Get(f.Node, "$defs"), func(name, s *yaml.Node) { l.schema(f, s, name.Value, root) })
	}
	for _, f := range l.c.Signatures {
		for _, side := range []string{"input_schema", "output_schema"} {
			l.schema(f, bundle.Get(f.Node, side), side, place{})
		}
		each(bundle.Get(f.Node, "$defs"), func(name, s *yaml.Node) { l.schema(f, s, name.Value, place{described: true}) })
	}
}

// typeKeys are the ways in which a schema says what it allows.
// anyJSON marks a schema that takes every JSON value on purpose; code generators
// know no better type for it than "anything".
const anyJSON = "x-any-json"

var typeKeys = []string{"type", "$ref", "oneOf", "anyOf", "allOf", "not", anyJSON}

func hasType(n *yaml.Node) bool {
	for _, k := range typeKeys {
		if bundle.Get(n, k) != nil {
			return true
		}
	}
	return false
}

// schema checks one schema and everything in it. A reference is checked where it leads.
func (l *linter) schema(f *bundle.File, s *yaml.Node, name string, p place) {
	if s == nil || s.Kind != yaml.MappingNode {
		l.add(f, s, "%s has no schema", "give it a schema", name)
		return
	}
	if p.described && bundle.Str(s, "description") == "" && !l.describedAbove(f, s) {
		l.add(f, s, "%s has no description", "say in one sentence what it is, with its unit", name)
	}
	l.keywords(f, s, name)
	if bundle.Get(s, "$ref") != nil {
		return
	}
	if !hasType(s) {
		l.add(f, s, "%s has no type", "state its type; beside const and enum too, because code generators need it; one that takes any JSON value says "+anyJSON+": true", name)
	}
	if t := bundle.Get(s, "type"); t != nil && t.Kind == yaml.SequenceNode {
		l.union(f, t, name)
	}
	if bundle.Get(s, "enum") != nil {
		if x := bundle.Get(s, "x-extensible-enum"); x == nil || x.ShortTag() != "!!bool" {
			l.add(f, s, "enum %s does not say whether it may grow", "state x-extensible-enum: true when readers must expect new values, otherwise false", name)
		}
	}
	l.bounds(f, s, name)
	l.inner(f, s, name)
}

// keywords are the members that a schema may have. A validator passes over any
// other in silence, so a misspelled one, or a comma in unquoted YAML text,
// would take a promise away unseen.
var keywords = func() map[string]bool {
	m := map[string]bool{}
	for _, k := range strings.Fields(`$ref $id $schema $defs $comment title description type enum const default
		examples example format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern
		items prefixItems contains minItems maxItems minContains maxContains uniqueItems properties patternProperties
		additionalProperties propertyNames required dependentRequired dependentSchemas minProperties maxProperties
		unevaluatedProperties unevaluatedItems allOf anyOf oneOf not if then else readOnly writeOnly deprecated
		discriminator externalDocs contentEncoding contentMediaType contentSchema`) {
		m[k] = true
	}
	return m
}()

func (l *linter) keywords(f *bundle.File, s *yaml.Node, name string) {
	each(s, func(k, _ *yaml.Node) {
		if !keywords[k.Value] && !strings.HasPrefix(k.Value, "x-") {
			l.add(f, k, "%s has a member %q that JSON Schema does not know", "correct the word; text that holds a comma or a colon stands in quotes", name, k.Value)
		}
	})
}

// describedAbove follows a reference to the description that it points at.
func (l *linter) describedAbove(f *bundle.File, s *yaml.Node) bool {
	if bundle.Get(s, "$ref") == nil {
		return false
	}
	_, target := l.c.Follow(f, s)
	return bundle.Str(target, "description") != ""
}

func (l *linter) union(f *bundle.File, t *yaml.Node, name string) {
	real := 0
	for _, v := range t.Content {
		if v.Value != "null" {
			real++
		}
	}
	if real != 1 {
		l.add(f, t, "%s has several types", "write oneOf with one schema per type; a list may only add null", name)
	}
}

func (l *linter) bounds(f *bundle.File, s *yaml.Node, name string) {
	if bundle.Get(s, "const") != nil || bundle.Get(s, "enum") != nil {
		return
	}
	has := func(keys ...string) bool {
		for _, k := range keys {
			if bundle.Get(s, k) == nil {
				return false
			}
		}
		return true
	}
	switch primaryType(s) {
	case "integer":
		if !has("format") && !has("minimum", "maximum") {
			l.add(f, s, "integer %s has no bounds", "state format: int64 or int32, or minimum and maximum", name)
		}
	case "string":
		if !has("maxLength") && !has("format") && !has("pattern") {
			l.add(f, s, "string %s has no bound", "state maxLength, or a format or pattern that bounds it", name)
		}
	}
}

func primaryType(s *yaml.Node) string {
	t := bundle.Get(s, "type")
	if t == nil {
		return ""
	}
	if t.Kind == yaml.ScalarNode {
		return t.Value
	}
	for _, v := range t.Content {
		if v.Value != "null" {
			return v.Value
		}
	}
	return ""
}

func (l *linter) inner(f *bundle.File, s *yaml.Node, name string) {
	each(bundle.Get(s, "properties"), func(k, v *yaml.Node) {
		l.schema(f, v, name+"."+k.Value, place{described: true})
	})
	if items := bundle.Get(s, "items"); items != nil {
		l.schema(f, items, name+"[]", place{})
	}
	if more := bundle.Get(s, "additionalProperties"); more != nil && more.Kind == yaml.MappingNode {
		l.schema(f, more, name+".*", place{})
	}
	for _, kw := range []string{"oneOf", "anyOf", "allOf"} {
		if list := bundle.Get(s, kw); list != nil {
			for _, branch := range list.Content {
				l.schema(f, branch, name, place{})
			}
		}
	}
}

// unused names components that nothing refers to.
func (l *linter) unused() {
	f := l.c.OpenAPI
	u := &usage{c: l.c, seen: map[*yaml.Node]bool{}}
	u.walk(f, bundle.Get(f.Node, "paths"))
	u.walk(f, bundle.Get(f.Node, "webhooks"))
	each(bundle.Get(l.c.Events.Node, "components"), func(_, section *yaml.Node) {
		each(section, func(_, s *yaml.Node) {
			if bundle.Get(s, "x-event-type") != nil {
				u.seen[s] = true
				u.walk(l.c.Events, s)
			}
		})
	})
	for _, d := range []*bundle.File{f, l.c.Events} {
		each(bundle.Get(d.Node, "components"), func(section, members *yaml.Node) {
			each(members, func(name, n *yaml.Node) {
				if section.Value != "securitySchemes" && !u.seen[n] {
					l.add(d, name, "components/%s/%s is not used", "remove it, or refer to it", section.Value, name.Value)
				}
			})
		})
	}
}

type usage struct {
	c    Contract
	seen map[*yaml.Node]bool
}

func (u *usage) walk(f *bundle.File, n *yaml.Node) {
	if n == nil {
		return
	}
	if n.Kind == yaml.MappingNode && bundle.Get(n, "$ref") != nil {
		if to, target := u.c.Follow1(f, n); target != nil && !u.seen[target] {
			u.seen[target] = true
			u.walk(to, target)
		}
	}
	for _, child := range n.Content {
		u.walk(f, child)
	}
}

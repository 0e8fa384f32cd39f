package php

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

const root = `OpenAgents\Runtime`

type kind int

const (
	kindString kind = iota
	kindInt
	kindFloat
	kindBool
	kindMap  // a free-form object
	kindAny  // any JSON value
	kindList //
	kindEnum // a backed enum
	kindObject
)

// phpType is how PHP holds a value of the contract.
type phpType struct {
	kind  kind
	elem  *phpType // of a list
	fqcn  string   // of an enum or object
	open  bool     // an enum that may grow: unknown values stay strings
	doc   string   // the description of the component it was named by
	limit string   // what the schema bounds, for people
}

func (t *phpType) class() string { return t.fqcn[strings.LastIndex(t.fqcn, `\`)+1:] }

// native is the type declaration, without null.
func (t *phpType) native() string {
	switch t.kind {
	case kindString:
		return "string"
	case kindInt:
		return "int"
	case kindFloat:
		return "float"
	case kindBool:
		return "bool"
	case kindMap, kindList:
		return "array"
	case kindAny:
		return "mixed"
	case kindEnum:
		if t.open {
			return t.class() + "|string"
		}
	}
	return t.class()
}

func (t *phpType) optional() string {
	switch n := t.native(); {
	case t.kind == kindAny:
		return n
	case strings.Contains(n, "|"):
		return n + "|null"
	default:
		return "?" + n
	}
}

// docType is the type that a docblock adds to the declaration.
func (t *phpType) docType() string {
	switch t.kind {
	case kindMap:
		return "array<string, mixed>"
	case kindList:
		return "list<" + t.elem.docType() + ">"
	default:
		return t.native()
	}
}

func (t *phpType) uses() []string {
	switch t.kind {
	case kindEnum, kindObject:
		return []string{t.fqcn}
	case kindList:
		return t.elem.uses()
	default:
		return nil
	}
}

// decode is the PHP expression that checks and converts value; at names its
// place, itself a PHP expression.
func (t *phpType) decode(value, at string) string {
	switch t.kind {
	case kindString:
		return fmt.Sprintf("Wire::string(%s, %s)", value, at)
	case kindInt:
		return fmt.Sprintf("Wire::int(%s, %s)", value, at)
	case kindFloat:
		return fmt.Sprintf("Wire::float(%s, %s)", value, at)
	case kindBool:
		return fmt.Sprintf("Wire::bool(%s, %s)", value, at)
	case kindMap:
		return fmt.Sprintf("Wire::map(%s, %s)", value, at)
	case kindAny:
		return value
	case kindList:
		return fmt.Sprintf("Wire::list(%s, %s, static fn (mixed $item, string $at): %s => %s)",
			value, at, t.elem.native(), t.elem.decode("$item", "$at"))
	case kindEnum:
		if t.open {
			return fmt.Sprintf("Wire::openEnum(%s, %s, %s::class)", value, at, t.class())
		}
		return fmt.Sprintf("Wire::enum(%s, %s, %s::class)", value, at, t.class())
	default:
		return fmt.Sprintf("%s::fromArray(Wire::map(%s, %s))", t.class(), value, at)
	}
}

// encode is the PHP expression of the wire form of value, which is not null.
func (t *phpType) encode(value string) string {
	switch t.kind {
	case kindMap:
		return fmt.Sprintf("Wire::object(%s)", value)
	case kindList:
		if t.elem.encode("$item") == "$item" {
			return fmt.Sprintf("array_values(%s)", value)
		}
		return fmt.Sprintf("array_map(static fn (%s $item): mixed => %s, array_values(%s))",
			t.elem.native(), t.elem.encode("$item"), value)
	case kindEnum:
		if t.open {
			return fmt.Sprintf("Wire::scalar(%s)", value)
		}
		return value + "->value"
	case kindObject:
		return fmt.Sprintf("Wire::object(%s->toArray())", value)
	default:
		return value
	}
}

// property is one member of an object.
type property struct {
	Key, Var string
	Type     *phpType
	Required bool
	Const    string // a PHP literal, when there is only one value
	Doc      string
}

// class is one readonly data object.
type class struct {
	Namespace, Name string
	Doc             string
	Properties      []*property // required first, then constants, then optional ones
	EventType       string      // of an event's payload
	EventVersion    string
}

func (c *class) FQCN() string { return c.Namespace + `\` + c.Name }

// enum is one backed enum.
type enum struct {
	Namespace, Name string
	Doc             string
	Open            bool
	Numbered        bool
	Cases           []enumCase
}

// Number is the value's, from x-numbers.
type enumCase struct{ Name, Value, Number string }

func (e *enum) FQCN() string { return e.Namespace + `\` + e.Name }

func namespaceOf(doc node) string {
	switch doc.at {
	case "events":
		return root + `\Event`
	case "ds":
		return root + `\DS`
	default:
		return root + `\Model`
	}
}

// namespace tells where a component's class lives: bundles carry copies of
// components from elsewhere, marked by the Go type that stands for them.
func namespace(doc, n node) string {
	switch goType := n.text("x-go-type"); {
	case strings.HasPrefix(goType, "ds."):
		return root + `\DS`
	case strings.HasPrefix(goType, "event."):
		return root + `\Event`
	default:
		return namespaceOf(doc)
	}
}

// typeOf tells how PHP holds a schema and, for an object or enum that is written
// out here, adds its class under the given name.
func (l *loader) typeOf(doc, n node, name string, component bool) (*phpType, error) {
	target, ref, err := deref(doc, n)
	if err != nil {
		return nil, err
	}
	if ref != "" {
		t, err := l.typeOf(doc, target, ref, true)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	for _, k := range []string{"allOf", "anyOf", "oneOf", "not", "patternProperties", "prefixItems", "if"} {
		if n.get(k).there() {
			return nil, n.fail("the PHP generator does not know %s; write the schema without it", k)
		}
	}
	t := &phpType{doc: sentence(n.text("description")), limit: limits(n)}
	home := namespaceOf(doc)
	if component {
		home = namespace(doc, n)
	}
	switch typ := n.get("type"); {
	case !typ.there():
		t.kind = kindAny
		return t, nil
	case typ.n.Value == "":
		return nil, n.fail("a type that is a list; give one type")
	}
	switch n.text("type") {
	case "string":
		if n.get("enum").there() {
			t.kind, t.open, t.fqcn = kindEnum, n.yes("x-extensible-enum"), home+`\`+className(name)
			if !n.get("x-extensible-enum").there() {
				return nil, n.fail("an enum without x-extensible-enum: say whether it may grow")
			}
			return t, l.addEnum(home, className(name), n, t)
		}
	case "integer":
		t.kind = kindInt
	case "number":
		t.kind = kindFloat
	case "boolean":
		t.kind = kindBool
	case "array":
		t.kind = kindList
		if !n.get("items").there() {
			return nil, n.fail("an array without items")
		}
		t.elem, err = l.typeOf(doc, n.get("items"), name+"Item", false)
		return t, err
	case "object":
		extra := n.get("additionalProperties")
		if !n.get("properties").there() && !(extra.there() && extra.n.Value == "false") {
			t.kind = kindMap
			return t, nil
		}
		t.kind, t.fqcn = kindObject, home+`\`+className(name)
		return t, l.addClass(doc, home, className(name), n)
	default:
		return nil, n.fail("type %q", n.text("type"))
	}
	return t, nil
}

func (l *loader) addEnum(home, name string, n node, t *phpType) error {
	if l.made[home+`\`+name] {
		return nil
	}
	l.made[home+`\`+name] = true
	numbers := n.get(bundle.NumbersKey)
	e := &enum{Namespace: home, Name: name, Doc: t.doc, Open: t.open, Numbered: numbers.there()}
	seen := map[string]bool{}
	for _, v := range n.texts("enum") {
		c := enumCase{Name: caseName(v), Value: v, Number: numbers.text(v)}
		if _, err := strconv.Atoi(c.Number); e.Numbered && err != nil {
			return numbers.fail("%s has no number", v)
		}
		if seen[c.Name] {
			return n.fail("two values of the enum are both named %s in PHP", c.Name)
		}
		seen[c.Name] = true
		e.Cases = append(e.Cases, c)
	}
	l.out.Enums = append(l.out.Enums, e)
	return nil
}

func (l *loader) addClass(doc node, home, name string, n node) error {
	if l.made[home+`\`+name] {
		return nil
	}
	l.made[home+`\`+name] = true
	c := &class{
		Namespace: home, Name: name, Doc: sentence(n.text("description")),
		EventType: n.text("x-event-type"), EventVersion: n.text("x-event-version"),
	}
	required := n.texts("required")
	var order [3][]*property
	seen := map[string]bool{}
	for _, m := range n.get("properties").members() {
		target, _, err := deref(doc, m.node)
		if err != nil {
			return err
		}
		t, err := l.typeOf(doc, m.node, name+className(m.key), false)
		if err != nil {
			return err
		}
		p := &property{Key: m.key, Var: variable(m.key), Type: t, Required: slices.Contains(required, m.key)}
		if seen[p.Var] {
			return m.fail("two properties are both named $%s in PHP", p.Var)
		}
		seen[p.Var] = true
		p.Doc = joined(t.doc, t.limit)
		place := 2
		if value := target.get("const"); value.there() && p.Required {
			if p.Const, err = literal(t, value); err != nil {
				return err
			}
			place = 1
		} else if p.Required {
			place = 0
		}
		order[place] = append(order[place], p)
	}
	c.Properties = slices.Concat(order[0], order[1], order[2])
	l.out.Classes = append(l.out.Classes, c)
	return nil
}

func literal(t *phpType, n node) (string, error) {
	switch t.kind {
	case kindString:
		return quote(n.n.Value), nil
	case kindInt:
		return n.n.Value, nil
	default:
		return "", n.fail("a const that is neither string nor integer")
	}
}

func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// limits says in words what a schema bounds.
func limits(n node) string {
	var parts []string
	bound := func(low, high, unit string) {
		lo, hi := n.text(low), n.text(high)
		switch {
		case lo != "" && lo != "0" && hi != "":
			parts = append(parts, lo+" to "+hi+unit)
		case hi != "":
			parts = append(parts, "at most "+hi+unit)
		case lo != "" && (lo != "0" || unit == ""):
			parts = append(parts, "at least "+lo+unit)
		}
	}
	bound("minLength", "maxLength", " characters")
	bound("minimum", "maximum", "")
	bound("minItems", "maxItems", " items")
	bound("minProperties", "maxProperties", " members")
	if f := n.text("format"); f == "date-time" {
		parts = append(parts, "an RFC 3339 time")
	}
	if p := n.text("pattern"); p != "" && !strings.Contains(p, "*/") {
		parts = append(parts, "matches `"+p+"`")
	}
	if d := n.get("default"); d.there() {
		v := d.n.Value
		if d.n.Tag == "!!str" {
			v = strconv.Quote(v)
		}
		parts = append(parts, v+" when absent")
	}
	return strings.Join(parts, ", ")
}

// sentence is a description on one line that a docblock can hold.
func sentence(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "*/", "* /")
}

func joined(doc, limit string) string {
	switch {
	case limit == "":
		return doc
	case doc == "":
		return strings.ToUpper(limit[:1]) + limit[1:] + "."
	default:
		return doc + " (" + limit + ")"
	}
}

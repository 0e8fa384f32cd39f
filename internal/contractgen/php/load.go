package php

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// contract is what the templates read.
type contract struct {
	Title, Version, Description, License string

	Operations []*operation
	Classes    []*class
	Enums      []*enum
	Codes      []errorCode
}

type errorCode struct {
	Code   string
	Class  string // RunNotFoundException
	Status int
	Case   string // of the enum ErrorCode
}

// node wraps a mapping with the place it stands at, for errors.
type node struct {
	n  *yaml.Node
	at string
}

func parse(name string, raw []byte) (node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return node{}, fmt.Errorf("%s bundle: %w", name, err)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return node{}, fmt.Errorf("%s bundle: not a document", name)
	}
	return node{n: doc.Content[0], at: name}, nil
}

func (n node) get(key string) node {
	child := node{at: n.at + "/" + key}
	if n.n == nil || n.n.Kind != yaml.MappingNode {
		return child
	}
	for i := 0; i+1 < len(n.n.Content); i += 2 {
		if n.n.Content[i].Value == key {
			child.n = n.n.Content[i+1]
		}
	}
	return child
}

func (n node) path(keys ...string) node {
	for _, k := range keys {
		n = n.get(k)
	}
	return n
}

func (n node) there() bool { return n.n != nil }

func (n node) text(key string) string {
	if v := n.get(key); v.there() && v.n.Kind == yaml.ScalarNode {
		return v.n.Value
	}
	return ""
}

func (n node) yes(key string) bool { return n.text(key) == "true" }

// members are the pairs of a mapping in the contract's order.
func (n node) members() []struct {
	key string
	node
} {
	var all []struct {
		key string
		node
	}
	if n.n == nil || n.n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.n.Content); i += 2 {
		key := n.n.Content[i].Value
		all = append(all, struct {
			key string
			node
		}{key, node{n: n.n.Content[i+1], at: n.at + "/" + key}})
	}
	return all
}

func (n node) items() []node {
	var all []node
	if n.n != nil && n.n.Kind == yaml.SequenceNode {
		for i, c := range n.n.Content {
			all = append(all, node{n: c, at: n.at + "/" + strconv.Itoa(i)})
		}
	}
	return all
}

func (n node) texts(key string) []string {
	var all []string
	for _, item := range n.get(key).items() {
		all = append(all, item.n.Value)
	}
	return all
}

func (n node) fail(format string, args ...any) error {
	return fmt.Errorf("%s: %s", n.at, fmt.Sprintf(format, args...))
}

// loader reads three documents into one contract.
type loader struct {
	runtime, events, ds node
	out                 *contract
	made                map[string]bool // namespace\name of classes and enums
}

func load(in Input) (*contract, error) {
	l := &loader{out: &contract{}, made: map[string]bool{}}
	for _, doc := range []struct {
		name string
		raw  []byte
		to   *node
	}{{"runtime", in.Runtime, &l.runtime}, {"events", in.Events, &l.events}, {"ds", in.DS, &l.ds}} {
		parsed, err := parse(doc.name, doc.raw)
		if err != nil {
			return nil, err
		}
		*doc.to = parsed
	}
	info := l.runtime.get("info")
	l.out.Title, l.out.Version = info.text("title"), info.text("version")
	l.out.Description, l.out.License = info.text("description"), info.path("license").text("identifier")

	for _, doc := range []node{l.runtime, l.events, l.ds} {
		if err := l.components(doc); err != nil {
			return nil, err
		}
	}
	if err := l.errorCodes(); err != nil {
		return nil, err
	}
	if err := l.operations(); err != nil {
		return nil, err
	}
	slices.SortFunc(l.out.Classes, func(a, b *class) int { return cmp.Compare(a.FQCN(), b.FQCN()) })
	slices.SortFunc(l.out.Enums, func(a, b *enum) int { return cmp.Compare(a.FQCN(), b.FQCN()) })
	return l.out, nil
}

// components makes a class or an enum of each component that is one.
func (l *loader) components(doc node) error {
	for _, m := range doc.path("components", "schemas").members() {
		if home := namespace(doc, m.node); home != namespaceOf(doc) {
			continue // written from its own document
		}
		if _, err := l.typeOf(doc, m.node, m.key, true); err != nil {
			return err
		}
	}
	return nil
}

func (l *loader) errorCodes() error {
	code := l.runtime.path("components", "schemas", "ErrorCode")
	status := code.get("x-status")
	for _, c := range code.texts("enum") {
		n, err := strconv.Atoi(status.text(c))
		if err != nil {
			return code.fail("x-status has no status for %s", c)
		}
		l.out.Codes = append(l.out.Codes, errorCode{Code: c, Class: studly(c) + "Exception", Status: n, Case: caseName(c)})
	}
	if len(l.out.Codes) == 0 {
		return code.fail("there are no error codes")
	}
	return nil
}

// deref follows one local reference and tells the component's name.
func deref(doc, n node) (target node, name string, err error) {
	ref := n.text("$ref")
	if ref == "" {
		return n, "", nil
	}
	rest, local := strings.CutPrefix(ref, "#/")
	if !local {
		return n, "", n.fail("the reference %s is not local", ref)
	}
	keys := strings.Split(rest, "/")
	target = doc.path(keys...)
	if !target.there() {
		return n, "", n.fail("nothing is at %s", ref)
	}
	return target, keys[len(keys)-1], nil
}

package bundle

import (
	"encoding/json"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Value answers the JSON value of a node. Numbers keep their spelling; a date
// without quotes stays the text that it is in JSON.
func Value(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) == 1 {
			return Value(n.Content[0])
		}
		return nil
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = Value(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		s := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			s = append(s, Value(c))
		}
		return s
	case yaml.AliasNode:
		return Value(n.Alias)
	}
	switch n.ShortTag() {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int", "!!float":
		return json.Number(n.Value)
	}
	return n.Value
}

// Follow answers what a reference under n points at in the end, and n itself
// when n is not a reference. A reference that leads nowhere answers nil.
func (c *Contract) Follow(from *File, n *yaml.Node) (*File, *yaml.Node) {
	for range 32 {
		if Get(n, "$ref") == nil {
			return from, n
		}
		from, n = c.Follow1(from, n)
	}
	return from, nil
}

// Follow1 follows one reference, which may lead to another.
func (c *Contract) Follow1(from *File, n *yaml.Node) (*File, *yaml.Node) {
	t, err := c.resolve(from, Get(n, "$ref"))
	if err != nil {
		return from, nil
	}
	return t.file, t.node
}

// Record is one schema of schemas/ds that has a name of its own.
type Record struct {
	File *File
	Go   string // component name
}

// RecordTypes lists the record files that define a type, in file order.
func (c *Contract) RecordTypes() []Record {
	var all []Record
	for _, f := range c.Records {
		if name, ok := baseName(f.Path); ok && hasRoot(f.Node) {
			all = append(all, Record{f, name})
		}
	}
	return all
}

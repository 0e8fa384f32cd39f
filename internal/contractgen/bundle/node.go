package bundle

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Get returns the value of a key in a mapping, or nil.
func Get(n *yaml.Node, key string) *yaml.Node {
	_, v := Pair(n, key)
	return v
}

// Pair returns key and value nodes, or nils.
func Pair(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// Str returns the scalar text under key, or "".
func Str(n *yaml.Node, key string) string {
	if v := Get(n, key); v != nil && v.Kind == yaml.ScalarNode {
		return v.Value
	}
	return ""
}

func scalar(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func mapping(pairs ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := 0; i < len(pairs); i += 2 {
		v, ok := pairs[i+1].(*yaml.Node)
		if !ok {
			v = scalar(fmt.Sprint(pairs[i+1]))
		}
		n.Content = append(n.Content, scalar(fmt.Sprint(pairs[i])), v)
	}
	return n
}

func add(n *yaml.Node, key string, v *yaml.Node) {
	n.Content = append(n.Content, scalar(key), v)
}

// ensure returns the mapping under key and makes it when it is missing.
func ensure(n *yaml.Node, key string) *yaml.Node {
	if v := Get(n, key); v != nil {
		return v
	}
	v := mapping()
	add(n, key, v)
	return v
}

// plain copies a node without comments, positions' styles or quoting, so that
// JSON and YAML sources come out in one hand.
func plain(n *yaml.Node) *yaml.Node {
	c := &yaml.Node{Kind: n.Kind, Tag: n.ShortTag(), Value: n.Value}
	for _, child := range n.Content {
		c.Content = append(c.Content, plain(child))
	}
	return c
}

func encode(header string, n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(header)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(n); err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write bundle: %w", err)
	}
	return b.Bytes(), nil
}

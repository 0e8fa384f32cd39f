// Package contractcopy gives tests a copy of the real contract to break.
package contractcopy

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// Root finds the folder of go.mod above the test.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("there is no go.mod above the test")
		}
	}
}

// New copies folders of the repository (openapi, schemas, …) to a temporary one.
func New(t testing.TB, folders ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range folders {
		if err := os.CopyFS(filepath.Join(root, f), os.DirFS(filepath.Join(Root(t), f))); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// Edit is one change of a document. Path names the way to a member, with |
// between the steps; Value is YAML, and empty to remove the member.
type Edit struct {
	File, Path, Value string
}

// Apply makes the edits below root. A path that does not exist is a failure:
// the contract has changed, so the test must break another part of it.
func Apply(t testing.TB, root string, edits ...Edit) {
	t.Helper()
	for _, e := range edits {
		file := filepath.Join(root, filepath.FromSlash(e.File))
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(raw, &doc); err != nil {
			t.Fatal(err)
		}
		steps := strings.Split(e.Path, "|")
		parent := walk(t, e, doc.Content[0], steps[:len(steps)-1])
		last := steps[len(steps)-1]
		if e.Value == "" {
			remove(t, e, parent, last)
		} else {
			set(t, parent, last, e.Value)
		}
		if err := os.WriteFile(file, encode(t, e.File, &doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func walk(t testing.TB, e Edit, n *yaml.Node, steps []string) *yaml.Node {
	t.Helper()
	for _, s := range steps {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		if i, err := strconv.Atoi(s); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
			next = n.Content[i]
		} else {
			next = bundle.Get(n, s)
		}
		if next == nil {
			t.Fatalf("%s has no %s any more (at %q): let the test break another part of the contract", e.File, e.Path, s)
		}
		n = next
	}
	return n
}

func remove(t testing.TB, e Edit, n *yaml.Node, key string) {
	t.Helper()
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
	t.Fatalf("%s has no %s any more: let the test break another part of the contract", e.File, e.Path)
}

func set(t testing.TB, n *yaml.Node, key, value string) {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(value), &doc); err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content[i+1] = doc.Content[0]
			return
		}
	}
	n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, doc.Content[0])
}

func encode(t testing.TB, name string, doc *yaml.Node) []byte {
	t.Helper()
	var (
		out []byte
		err error
	)
	if strings.HasSuffix(name, ".json") {
		out, err = json.MarshalIndent(bundle.Value(doc), "", "  ")
		out = append(bytes.TrimSpace(out), '\n')
	} else {
		out, err = yaml.Marshal(doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

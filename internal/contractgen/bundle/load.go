// Package bundle joins the contract's files into documents that hold local references only.
package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Where the contract's sources lie below its root, with forward slashes.
const (
	OpenAPIPath   = "openapi/openapi.yaml"
	EventsPath    = "openapi/events.yaml"
	DSDir         = "schemas/ds"
	SignaturesDir = "schemas/ds/signatures"
)

// Kind says which reference rules a file follows.
type Kind int

const (
	KindOpenAPI Kind = iota
	KindEvents
	KindRecord
	KindSignature
	KindTaxonomy
)

// File is one parsed source; Path is relative to the root, with forward slashes.
type File struct {
	Path string
	Kind Kind
	Node *yaml.Node
}

// Contract is everything the bundles are made from.
type Contract struct {
	Root       string
	OpenAPI    *File
	Events     *File
	Records    []*File
	Signatures []*File
	Taxonomy   *File // nil for a contract without reason codes
}

// Problem is one thing wrong in one place.
type Problem struct {
	Path string
	Line int
	Text string
}

func (p *Problem) Error() string {
	return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, p.Text)
}

func (f *File) problem(n *yaml.Node, format string, args ...any) error {
	return &Problem{Path: f.Path, Line: n.Line, Text: fmt.Sprintf(format, args...)}
}

// Load parses every source below root. Errors name file and line, all of them at once.
func Load(root string) (*Contract, error) {
	c := &Contract{Root: root}
	var errs []error
	read := func(path string, kind Kind) *File {
		f, err := loadFile(root, path, kind)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		return f
	}
	c.OpenAPI = read(OpenAPIPath, KindOpenAPI)
	c.Events = read(EventsPath, KindEvents)
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(TaxonomyPath))); !errors.Is(err, fs.ErrNotExist) {
		c.Taxonomy = read(TaxonomyPath, KindTaxonomy)
	}
	for _, dir := range []struct {
		path string
		kind Kind
		into *[]*File
	}{{DSDir, KindRecord, &c.Records}, {SignaturesDir, KindSignature, &c.Signatures}} {
		names, err := schemaFiles(filepath.Join(root, filepath.FromSlash(dir.path)))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, name := range names {
			if f := read(dir.path+"/"+name, dir.kind); f != nil {
				*dir.into = append(*dir.into, f)
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// schemaFiles lists the *.json files of one folder, sorted. A missing folder has none.
func schemaFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".json") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func loadFile(root, path string, kind Kind) (*File, error) {
	raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		return nil, fmt.Errorf("read the contract: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &File{Path: path, Kind: kind}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, f.problem(&doc, "the document must be an object")
	}
	f.Node = expand(doc.Content[0])
	if err := f.checkTree(f.Node); err != nil {
		return nil, err
	}
	return f, nil
}

// expand copies the tree and puts the anchored node in the place of each alias.
// An alias inside its own anchor does not parse, so this ends.
func expand(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	c := *n
	c.Anchor, c.Content = "", nil
	for _, child := range n.Content {
		c.Content = append(c.Content, expand(child))
	}
	return &c
}

// checkTree refuses what a JSON reader would read differently: repeated keys, merge keys.
func (f *File) checkTree(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				return f.problem(key, "keys are plain strings, and << is not used; write the members out or refer to a component by $ref")
			}
			if seen[key.Value] {
				return f.problem(key, "key %q appears twice; keep one", key.Value)
			}
			seen[key.Value] = true
		}
	}
	for _, child := range n.Content {
		if err := f.checkTree(child); err != nil {
			return err
		}
	}
	return nil
}

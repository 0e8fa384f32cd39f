// Package tree compares two folders of generated files and makes one equal to the other.
package tree

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Difference is one file in which two trees differ; Path has forward slashes.
type Difference struct {
	Path string
	Kind Kind
}

// Kind says how a file differs from what it should be.
type Kind string

const (
	Missing Kind = "missing"  // should be there and is not
	Changed Kind = "changed"  // has other content
	Orphan  Kind = "orphaned" // should not be there
)

// Diff lists where have differs from want, sorted by path.
func Diff(want, have string) ([]Difference, error) {
	wanted, err := read(want)
	if err != nil {
		return nil, err
	}
	found, err := read(have)
	if err != nil {
		return nil, err
	}
	var diffs []Difference
	for path, content := range wanted {
		switch got, ok := found[path]; {
		case !ok:
			diffs = append(diffs, Difference{path, Missing})
		case !bytes.Equal(got, content):
			diffs = append(diffs, Difference{path, Changed})
		}
	}
	for path := range found {
		if _, ok := wanted[path]; !ok {
			diffs = append(diffs, Difference{path, Orphan})
		}
	}
	slices.SortFunc(diffs, func(a, b Difference) int { return bytes.Compare([]byte(a.Path), []byte(b.Path)) })
	return diffs, nil
}

// Sync makes have equal to want. Files that are equal already are not touched,
// so that builds do not start anew.
func Sync(want, have string) error {
	diffs, err := Diff(want, have)
	if err != nil {
		return err
	}
	for _, d := range diffs {
		to := filepath.Join(have, filepath.FromSlash(d.Path))
		if d.Kind == Orphan {
			if err := os.Remove(to); err != nil {
				return fmt.Errorf("remove orphaned file: %w", err)
			}
			continue
		}
		content, err := os.ReadFile(filepath.Join(want, filepath.FromSlash(d.Path)))
		if err != nil {
			return fmt.Errorf("copy generated file: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return fmt.Errorf("copy generated file: %w", err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			return fmt.Errorf("copy generated file: %w", err)
		}
	}
	return nil
}

// read loads every file below root; a missing root is an empty tree.
func read(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == root && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)] = content
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", root, err)
	}
	return files, nil
}

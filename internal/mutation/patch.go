package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// patch is one mutation: a header of "Name: value" lines, then a diff.
type patch struct {
	Name    string // of its file, without .patch
	File    string
	Breaks  string // what is broken, for people
	Package string // ./internal/lease
	Run     string // the test that must fail
	Short   bool   // whether CI tries it
}

// readPatches reads a folder's patches, by name.
func readPatches(dir string) ([]patch, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var all []patch
	for _, file := range files {
		p, err := readPatch(file)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func readPatch(file string) (patch, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return patch{}, err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return patch{}, err
	}
	p := patch{Name: strings.TrimSuffix(filepath.Base(file), ".patch"), File: file}
	for line := range strings.Lines(string(content)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "Breaks":
			p.Breaks = value
		case "Package":
			p.Package = value
		case "Run":
			p.Run = value
		case "Short":
			p.Short = value == "yes"
		default:
			if !strings.HasPrefix(line, "diff --git ") {
				return p, fmt.Errorf("%s: %q is neither of Breaks, Package, Run and Short, nor the diff", file, strings.TrimSpace(line))
			}
			if p.Breaks == "" || p.Package == "" || !strings.HasPrefix(p.Run, "Test") {
				return p, fmt.Errorf("%s: the header needs Breaks, Package, and Run with one test's name", file)
			}
			return p, nil
		}
	}
	return p, fmt.Errorf("%s: there is no diff", file)
}

// Package php writes the Composer package through which a PHP application calls the service.
package php

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// Input is the contract as bundles that hold local references only.
type Input struct {
	Runtime []byte // operations and their shapes
	Events  []byte // one schema per event type and version
	DS      []byte // records and signature sides
}

// Generate writes the package into dir, which it makes when it is missing. The
// same input gives the same bytes. A construct of the contract that PHP code
// could not carry faithfully is an error that names its place.
func Generate(dir string, in Input) error {
	c, err := load(in)
	if err != nil {
		return fmt.Errorf("php: %w", err)
	}
	files, err := render(c)
	if err != nil {
		return fmt.Errorf("php: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("php: %w", err)
		}
		if err := os.WriteFile(path, append(bytes.TrimSpace(f.content), '\n'), 0o644); err != nil {
			return fmt.Errorf("php: %w", err)
		}
	}
	return nil
}

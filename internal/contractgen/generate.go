package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/check"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/php"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/tree"
)

// load reads and bundles the contract below root.
func load(root string) (check.Contract, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return check.Contract{}, fmt.Errorf("find the contract: %w", err)
	}
	contract, err := bundle.Load(root)
	if err != nil {
		return check.Contract{}, err
	}
	bundles, err := contract.Bundle(gogen.Module)
	return check.Contract{Contract: contract, Bundles: bundles}, err
}

// generate makes root/gen exactly what the contract gives. gen/ stays as it is
// when anything fails.
func generate(ctx context.Context, root, module string) (err error) {
	contract, err := load(root)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "contractgen-")
	if err != nil {
		return fmt.Errorf("make a working folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := generateInto(ctx, contract, module, work); err != nil {
		return err
	}
	return tree.Sync(filepath.Join(work, "gen"), filepath.Join(contract.Root, "gen"))
}

// generateInto writes work/gen.
func generateInto(ctx context.Context, c check.Contract, module, work string) error {
	if err := gogen.Generate(ctx, gogen.Input{Contract: c.Contract, Bundles: c.Bundles, Module: module, Work: work}); err != nil {
		return err
	}
	return php.Generate(filepath.Join(work, "gen", "php"), php.Input{
		Runtime: c.Bundles.Runtime, Events: c.Bundles.Events, DS: c.Bundles.DS,
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/check"
	"github.com/openagentsinc/openagents-runtime/internal/contractgen/gogen"
)

// checkContract runs every check, prints the Markdown summary of what changed,
// and fails with all findings together.
func checkContract(ctx context.Context, root, module string, out io.Writer) error {
	contract, err := load(root)
	if err != nil {
		return err
	}
	found := check.Lint(ctx, contract)
	for _, c := range []func(check.Contract) ([]check.Finding, error){check.Examples, check.Fixtures} {
		more, err := c(contract)
		if err != nil {
			return err
		}
		found = append(found, more...)
	}
	more, err := drift(ctx, contract, module)
	if err != nil {
		return err
	}
	found = append(found, more...)
	more, err = breaking(ctx, contract, module, out)
	if err != nil {
		return err
	}
	if found = append(found, more...); len(found) > 0 {
		return fmt.Errorf("%s\nruntime contract check failed: %d findings", check.Report(found), len(found))
	}
	return say(out, "runtime contract check passed")
}

func say(out io.Writer, text string) error {
	if _, err := fmt.Fprintln(out, text); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func drift(ctx context.Context, contract check.Contract, module string) (found []check.Finding, err error) {
	work, err := os.MkdirTemp("", "contractgen-")
	if err != nil {
		return nil, fmt.Errorf("make a working folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := generateInto(ctx, contract, module, work); err != nil {
		return nil, err
	}
	return check.Drift(filepath.Join(work, "gen"), filepath.Join(contract.Root, "gen"))
}

func breaking(ctx context.Context, contract check.Contract, module string, out io.Writer) ([]check.Finding, error) {
	base, err := check.FindBase(ctx, contract.Root, os.Getenv("CONTRACT_BASE"))
	if err != nil {
		return nil, err
	}
	oasdiff, err := gogen.Tool(ctx, module, "oasdiff", "-modfile=openapi/tools.mod")
	if err != nil {
		return nil, err
	}
	changes, found, err := check.Breaking(ctx, oasdiff, base, check.Documents(contract.Bundles))
	if err != nil {
		return nil, err
	}
	summary := check.Summary(base, changes)
	return found, errors.Join(say(out, summary), stepSummary(summary))
}

// stepSummary adds the text to the page of the CI run, where there is one.
func stepSummary(text string) (err error) {
	path := os.Getenv("GITHUB_STEP_SUMMARY")
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write the CI summary: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := fmt.Fprintln(f, text); err != nil {
		return fmt.Errorf("write the CI summary: %w", err)
	}
	return nil
}

// accept copies the present bundles to openapi/baseline.
func accept(root string, out io.Writer) error {
	contract, err := load(root)
	if err != nil {
		return err
	}
	dir := filepath.Join(contract.Root, filepath.FromSlash(check.BaselineDir))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("accept the contract: %w", err)
	}
	for name, doc := range check.Documents(contract.Bundles) {
		if err := os.WriteFile(filepath.Join(dir, name), doc, 0o644); err != nil {
			return fmt.Errorf("accept the contract: %w", err)
		}
	}
	return say(out, check.BaselineDir+" is the accepted contract now; commit it by itself and say why")
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// verdict is how a mutation went.
type verdict string

const (
	noticed   verdict = "red, as it should be"
	unnoticed verdict = "GREEN: the test does not notice"
	unapplied verdict = "DOES NOT APPLY: write it anew"
	unbuilt   verdict = "DOES NOT BUILD: write it anew"
)

// tree is a copy of the working tree. What it depends on comes from the build
// cache that all share.
type tree string

// copyTree copies what git knows or would add, as it is now.
func copyTree(ctx context.Context) (tree, error) {
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Stderr = os.Stderr
	names, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("list the tree: %w", err)
	}
	dir, err := os.MkdirTemp("", "openagents-mutation-")
	if err != nil {
		return "", err
	}
	for name := range strings.SplitSeq(strings.Trim(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted and not committed
		}
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), content, 0o644)
		}
		if err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	return tree(dir), nil
}

// requireGreen wants every named test to exist and to pass in the tree as it is.
func (t tree) requireGreen(ctx context.Context, patches []patch) error {
	byPackage := map[string][]string{}
	for _, p := range patches {
		byPackage[p.Package] = append(byPackage[p.Package], p.Run)
	}
	for pkg, tests := range byPackage {
		slices.Sort(tests)
		tests = slices.Compact(tests)
		r, err := t.test(ctx, pkg, tests...)
		if err != nil {
			return err
		}
		for _, name := range tests {
			if !slices.Contains(r.passed, name) {
				return fmt.Errorf("%s %s does not pass in the tree as it is:\n%s", pkg, name, r.output)
			}
		}
	}
	return nil
}

// try applies a patch, runs its test, and takes the patch back.
func (t tree) try(ctx context.Context, p patch) (verdict, error) {
	if t.apply(ctx, p) != nil {
		return unapplied, nil
	}
	r, err := t.test(ctx, p.Package, p.Run)
	if err := errors.Join(err, t.apply(ctx, p, "--reverse")); err != nil {
		return "", err
	}
	switch {
	case slices.Contains(r.failed, p.Run), strings.Contains(r.output, "panic: test timed out after "):
		return noticed, nil
	case slices.Contains(r.passed, p.Run):
		return unnoticed, nil
	}
	fmt.Fprintln(os.Stderr, r.output)
	return unbuilt, nil
}

func (t tree) apply(ctx context.Context, p patch, flags ...string) error {
	cmd := exec.CommandContext(ctx, "git", append(append([]string{"apply"}, flags...), p.File)...)
	cmd.Dir = string(t)
	cmd.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(string(t)))
	cmd.Stderr = os.Stderr
	return cmd.Run()
}

// result is which tests, subtests aside, passed and failed.
type result struct {
	passed, failed []string
	output         string
}

// test runs some tests of a package.
func (t tree) test(ctx context.Context, pkg string, tests ...string) (result, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-timeout=120s",
		"-run", "^("+strings.Join(tests, "|")+")$", pkg)
	cmd.Dir = string(t)
	cmd.Env = append(os.Environ(), "TEST_DATABASE_URL=") // a server of its own: failed tests leave databases
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		return result{}, fmt.Errorf("go test: %w", errors.Join(err, ctx.Err()))
	}
	var r result
	for line := range bytes.Lines(out) {
		var l struct{ Action, Test, Output string }
		if err := json.Unmarshal(line, &l); err != nil {
			return result{}, fmt.Errorf("go test -json: %w", err)
		}
		r.output += l.Output
		switch {
		case l.Test == "" || strings.Contains(l.Test, "/"):
		case l.Action == "pass":
			r.passed = append(r.passed, l.Test)
		case l.Action == "fail":
			r.failed = append(r.failed, l.Test)
		}
	}
	return r, nil
}

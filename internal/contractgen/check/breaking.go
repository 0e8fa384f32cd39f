package check

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// BaselineDir holds the contract that was accepted last.
const BaselineDir = "openapi/baseline"

// Documents are the bundles that are compared, by file name.
func Documents(b *bundle.Bundles) map[string][]byte {
	return map[string][]byte{"runtime.yaml": b.Runtime, "events.yaml": b.Events, "ds.yaml": b.DS}
}

// documentOrder is the order of reports.
var documentOrder = []string{"runtime.yaml", "events.yaml", "ds.yaml"}

const acceptRemedy = "keep the old form and add the new one beside it (another field, operation or version); " +
	"if callers and stored data can take the change, run `make contract-accept` and commit openapi/baseline by itself, saying why"

// Change is one difference between two contracts.
type Change struct {
	Document string
	Where    string // operation or schema
	Text     string
	Breaking bool
}

// Base is the contract that the present one is compared with.
type Base struct {
	Name      string // how a report calls it
	Documents map[string][]byte
}

// Breaking lists every change since the base, and a finding for each that
// could break a caller or a reader of what is stored.
func Breaking(ctx context.Context, oasdiff string, base Base, now map[string][]byte) ([]Change, []Finding, error) {
	var (
		changes []Change
		found   []Finding
	)
	for _, name := range documentOrder {
		before, ok := base.Documents[name]
		if !ok {
			found = append(found, Finding{"breaking", BaselineDir + "/" + name, 0, "there is no accepted contract to compare with", "run `make contract-accept` and commit " + BaselineDir})
			continue
		}
		if bytes.Equal(before, now[name]) {
			continue
		}
		list, err := compare(ctx, oasdiff, name, before, now[name])
		if err != nil {
			return nil, nil, fmt.Errorf("compare %s: %w", name, err)
		}
		changes = append(changes, list...)
	}
	for _, c := range changes {
		if c.Breaking {
			found = append(found, Finding{"breaking", "gen/openapi/" + c.Document, 0,
				fmt.Sprintf("%s: %s (compared with %s)", c.Where, c.Text, base.Name), acceptRemedy})
		}
	}
	return changes, found, nil
}

func compare(ctx context.Context, oasdiff, name string, before, after []byte) (changes []Change, err error) {
	dir, err := os.MkdirTemp("", "contract-compare-")
	if err != nil {
		return nil, fmt.Errorf("make a working folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	alone := name != "runtime.yaml"
	files := []string{filepath.Join(dir, "before.yaml"), filepath.Join(dir, "after.yaml")}
	for i, doc := range [][]byte{before, after} {
		doc, err := comparable(doc, alone)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(files[i], doc, 0o600); err != nil {
			return nil, fmt.Errorf("write comparable document: %w", err)
		}
	}
	changes, err = runOasdiff(ctx, oasdiff, name, files)
	if err != nil {
		return changes, err
	}
	numbers, err := compareNumbers(name, before, after)
	if changes = append(changes, numbers...); err != nil || alone {
		return changes, err
	}
	promises, err := comparePromises(before, after)
	return append(changes, promises...), err
}

// breakingAnyway are parts of the names of changes that oasdiff only notes.
// Generated clients have one method per operationId and one class per tag of a
// union; a caller may rely on an optional answer and on a default; and what is
// deprecated goes only when its going is accepted.
var breakingAnyway = []string{
	"api-operation-id-removed", "response-optional-property-removed", "optional-response-header-removed",
	"discriminator-", "-default-value-changed", "-default-value-removed", "-with-deprecation",
}

func breaks(id string, level int) bool {
	return level >= warning || slices.ContainsFunc(breakingAnyway, func(part string) bool { return strings.Contains(id, part) })
}

// warning is oasdiff's level for what may break; what may break, breaks here.
const warning = 2

func runOasdiff(ctx context.Context, oasdiff, name string, files []string) ([]Change, error) {
	cmd := exec.CommandContext(ctx, oasdiff, "changelog", files[0], files[1], "--format", "json")
	cmd.Dir = filepath.Dir(files[0]) // no configuration of anybody's project applies
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("oasdiff: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	var list []struct {
		ID        string `json:"id"`
		Text      string `json:"text"`
		Level     int    `json:"level"`
		Operation string `json:"operation"`
		Path      string `json:"path"`
	}
	if err := json.Unmarshal(out, &list); err != nil && len(bytes.TrimSpace(out)) > 0 {
		return nil, fmt.Errorf("read oasdiff's answer: %w", err)
	}
	seen := map[Change]bool{}
	var changes []Change
	for _, c := range list {
		where := strings.TrimSpace(c.Operation + " " + c.Path)
		if name != "runtime.yaml" {
			where = strings.TrimPrefix(c.Path, "/")
		}
		change := Change{name, where, c.Text, breaks(c.ID, c.Level)}
		if !seen[change] {
			seen[change] = true
			changes = append(changes, change)
		}
	}
	return changes, nil
}

// FindBase chooses what to compare with: CONTRACT_BASE when it is set, else
// the point where this branch left main, else the accepted copy. A branch that
// moves the accepted copy has decided, so the copy wins there.
func FindBase(ctx context.Context, root, explicit string) (Base, error) {
	baseline, err := readBaseline(root)
	if err != nil {
		return Base{}, err
	}
	if explicit != "" {
		if _, err := git(ctx, root, "rev-parse", "--verify", "--quiet", explicit+"^{commit}"); err != nil {
			return Base{}, fmt.Errorf("CONTRACT_BASE=%s is no commit here: fetch it, or unset CONTRACT_BASE", explicit)
		}
	}
	commit := mergeBase(ctx, root, explicit)
	if commit == "" {
		return baseline, nil
	}
	for name, now := range baseline.Documents {
		then, err := git(ctx, root, "show", commit+":./"+BaselineDir+"/"+name)
		if err != nil || !bytes.Equal(then, now) {
			return baseline, nil
		}
	}
	base := Base{Name: "the base branch, " + commit[:12], Documents: map[string][]byte{}}
	for _, name := range documentOrder {
		doc, err := git(ctx, root, "show", commit+":./gen/openapi/"+name)
		if err != nil {
			return baseline, nil
		}
		base.Documents[name] = doc
	}
	return base, nil
}

func readBaseline(root string) (Base, error) {
	base := Base{Name: "the accepted contract in " + BaselineDir, Documents: map[string][]byte{}}
	for _, name := range documentOrder {
		doc, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(BaselineDir), name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return Base{}, fmt.Errorf("read the accepted contract: %w", err)
		}
		base.Documents[name] = doc
	}
	return base, nil
}

// mergeBase answers the commit where HEAD left the base branch, or "" when
// there is none or HEAD is on it.
func mergeBase(ctx context.Context, root, explicit string) string {
	head, err := git(ctx, root, "rev-parse", "HEAD")
	if err != nil {
		return ""
	}
	candidates := []string{"origin/main", "main"}
	if explicit != "" {
		candidates = []string{explicit}
	}
	for _, c := range candidates {
		out, err := git(ctx, root, "merge-base", "HEAD", c)
		if commit := strings.TrimSpace(string(out)); err == nil && commit != "" && commit != strings.TrimSpace(string(head)) {
			return commit
		}
	}
	return ""
}

func git(ctx context.Context, root string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w", args[0], err)
	}
	return out, nil
}

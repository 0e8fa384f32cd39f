package check

import (
	"fmt"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/tree"
)

// Drift compares gen/ with what the contract gives, which lies in fresh.
func Drift(fresh, gen string) ([]Finding, error) {
	diffs, err := tree.Diff(fresh, gen)
	if err != nil {
		return nil, fmt.Errorf("compare generated code: %w", err)
	}
	found := make([]Finding, 0, len(diffs))
	for _, d := range diffs {
		found = append(found, Finding{"drift", "gen/" + d.Path, 0, fmt.Sprintf("generated code is out of date: the file is %s", d.Kind),
			"run `make generate` and commit gen/; if you edited the file by hand, change what it is made from"})
	}
	return found, nil
}

package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// comparePromises compares what the contract says in its own extensions,
// which oasdiff does not read: scope, idempotency, body size, status of codes.
func comparePromises(before, after []byte) ([]Change, error) {
	old, err := readPromises(before)
	if err != nil {
		return nil, err
	}
	now, err := readPromises(after)
	if err != nil {
		return nil, err
	}
	var changes []Change
	note := func(where string, breaks bool, text string, args ...any) {
		changes = append(changes, Change{"runtime.yaml", where, fmt.Sprintf(text, args...), breaks})
	}
	for _, where := range old.order {
		o, n := old.operations[where], now.operations[where]
		if n == nil {
			continue // oasdiff tells it
		}
		if o.scope != n.scope {
			note(where, !slices.Contains(allowedBy(o.scope), n.scope), "the required scope went from %s to %s", o.scope, n.scope)
		}
		if o.idempotent != n.idempotent {
			note(where, o.idempotent, "x-idempotent went from %t to %t", o.idempotent, n.idempotent)
		}
		if o.maxBody != n.maxBody {
			note(where, n.maxBody < o.maxBody, "x-max-body-bytes went from %d to %d", o.maxBody, n.maxBody)
		}
	}
	for _, code := range old.codes {
		if was, is := old.status[code], now.status[code]; is != was {
			note("ErrorCode", true, "the status of %s went from %s to %s", code, was, or(is, "none"))
		}
	}
	return changes, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// allowedBy lists the scopes that a token of a scope satisfies.
func allowedBy(scope string) []string {
	i := slices.Index(scopeLadder, scope)
	return scopeLadder[:i+1]
}

// scopeLadder is ordered: a token of one scope may do all that stands before it.
var scopeLadder = []string{"read", "service", "operator"}

type promise struct {
	scope      string
	idempotent bool
	maxBody    int64
}

type promises struct {
	order      []string
	operations map[string]*promise
	codes      []string
	status     map[string]string
}

func readPromises(doc []byte) (*promises, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	p := &promises{operations: map[string]*promise{}, status: map[string]string{}}
	for _, op := range operations(root.Content[0]) {
		where := strings.ToUpper(op.Method) + " " + op.Path
		limit, err := strconv.ParseInt(or(bundle.Str(op.Node, "x-max-body-bytes"), "0"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: x-max-body-bytes: %w", where, err)
		}
		p.order = append(p.order, where)
		p.operations[where] = &promise{
			scope: bundle.Str(op.Node, "x-required-scope"), idempotent: bundle.Str(op.Node, "x-idempotent") == "true", maxBody: limit,
		}
	}
	code := bundle.Get(bundle.Get(bundle.Get(root.Content[0], "components"), "schemas"), "ErrorCode")
	each(bundle.Get(code, "x-status"), func(k, v *yaml.Node) {
		p.codes = append(p.codes, k.Value)
		p.status[k.Value] = v.Value
	})
	return p, nil
}

package tool

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// A schema that a caller sent must not be able to keep a processor busy: nested
// references can make exponential work of a small value. cost follows how often
// one place of a value can be looked at: schemas that apply to the same value add
// up, and so do those that apply to the same child; the deepest value is as deep
// as canonical JSON may be.
const (
	maxCost  = 20_000
	maxParts = 4096
)

type coster struct {
	root  any
	memo  map[string][]int // by pointer, by depth that is left
	doing map[string]bool  // applied to the same value
}

// affordable refuses a schema whose work is not bounded, or that refers to
// something outside of itself.
func affordable(root any) error {
	c := coster{root: root, memo: map[string][]int{}, doing: map[string]bool{}}
	n, err := c.cost("", root, canon.MaxDepth)
	if err != nil {
		return err
	}
	if n > maxCost {
		return errors.New("the schema applies too many schemas to one value")
	}
	return nil
}

func (c *coster) cost(at string, schema any, depth int) (int, error) {
	s, ok := schema.(map[string]any)
	if !ok || depth == 0 {
		return 1, nil
	}
	if known := c.memo[at]; known != nil && known[depth] > 0 {
		return known[depth], nil
	}
	if len(c.memo) > maxParts {
		return 0, fmt.Errorf("the schema has more than %d parts", maxParts)
	}
	key := at + "@" + strconv.Itoa(depth)
	if c.doing[key] {
		return 0, fmt.Errorf("the schema at %q applies to itself for ever", at)
	}
	c.doing[key] = true
	defer delete(c.doing, key)
	n := 1
	add := func(keyword string, sub any, left int) error {
		more, err := c.cost(at+"/"+keyword, sub, left)
		n = min(n+more, maxCost+1)
		return err
	}
	for keyword, sub := range s {
		if err := c.keyword(at, keyword, sub, depth, add, &n); err != nil {
			return 0, err
		}
	}
	if c.memo[at] == nil {
		c.memo[at] = make([]int, canon.MaxDepth+1)
	}
	c.memo[at][depth] = n
	return n, nil
}

func (c *coster) keyword(at, keyword string, sub any, depth int, add func(string, any, int) error, n *int) error {
	switch keyword {
	case "$dynamicRef", "$recursiveRef", "$dynamicAnchor", "$recursiveAnchor", "$anchor":
		return fmt.Errorf("%s is not taken; use $ref with a JSON pointer", keyword)
	case "$id", "id":
		if _, named := sub.(string); named && at != "" && keyword == "$id" {
			return errors.New("only the whole schema may have an $id")
		}
	case "$ref":
		target, pointer, err := c.resolve(sub)
		if err != nil {
			return err
		}
		more, err := c.cost(pointer, target, depth)
		*n = min(*n+more, maxCost+1)
		return err
	case "not", "if", "then", "else":
		return add(keyword, sub, depth)
	case "allOf", "anyOf", "oneOf":
		return each(keyword, sub, func(step string, s any) error { return add(step, s, depth) })
	case "dependentSchemas", "dependencies":
		return each(keyword, sub, func(step string, s any) error { return add(step, s, depth) })
	case "additionalProperties", "propertyNames", "contains", "unevaluatedItems", "unevaluatedProperties", "additionalItems":
		return add(keyword, sub, depth-1)
	case "patternProperties":
		return each(keyword, sub, func(step string, s any) error { return add(step, s, depth-1) })
	case "items":
		if _, one := sub.(map[string]any); one {
			return add(keyword, sub, depth-1)
		}
		return c.dearest(at, keyword, sub, depth-1, n)
	case "properties", "prefixItems":
		return c.dearest(at, keyword, sub, depth-1, n)
	}
	return nil
}

// dearest adds the cost of the most expensive of schemas of which one at the most
// applies to a child.
func (c *coster) dearest(at, keyword string, subs any, depth int, n *int) error {
	most := 0
	err := each(keyword, subs, func(step string, s any) error {
		one, err := c.cost(at+"/"+step, s, depth)
		most = max(most, one)
		return err
	})
	*n = min(*n+most, maxCost+1)
	return err
}

func each(keyword string, subs any, do func(step string, s any) error) error {
	switch subs := subs.(type) {
	case map[string]any:
		for name, s := range subs {
			if err := do(keyword+"/"+escape.Replace(name), s); err != nil {
				return err
			}
		}
	case []any:
		for i, s := range subs {
			if err := do(keyword+"/"+strconv.Itoa(i), s); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	escape   = strings.NewReplacer("~", "~0", "/", "~1")
	unescape = strings.NewReplacer("~1", "/", "~0", "~")
)

// resolve finds what a reference within the schema means.
func (c *coster) resolve(ref any) (target any, pointer string, err error) {
	text, _ := ref.(string)
	pointer, inside := strings.CutPrefix(text, "#")
	if !inside || pointer != "" && pointer[0] != '/' || strings.Contains(pointer, "%") {
		return nil, "", fmt.Errorf("%w: $ref must be # and a JSON pointer", errRemote)
	}
	target = c.root
	if pointer == "" {
		return target, pointer, nil
	}
	for step := range strings.SplitSeq(pointer[1:], "/") {
		step = unescape.Replace(step)
		switch t := target.(type) {
		case map[string]any:
			target = t[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(t) {
				return nil, "", fmt.Errorf("there is nothing at %q", text)
			}
			target = t[i]
		default:
			target = nil
		}
		if target == nil {
			return nil, "", fmt.Errorf("there is nothing at %q", text)
		}
	}
	return target, pointer, nil
}

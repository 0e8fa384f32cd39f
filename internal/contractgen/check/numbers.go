package check

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/internal/contractgen/bundle"
)

// compareNumbers refuses a numbered value of an enum that is gone or that has
// another number: both are stored for years. oasdiff knows no numbers.
func compareNumbers(document string, before, after []byte) ([]Change, error) {
	old, err := schemasOf(before)
	if err != nil {
		return nil, err
	}
	now, err := schemasOf(after)
	if err != nil {
		return nil, err
	}
	var changes []Change
	each(old, func(name, schema *yaml.Node) {
		numbers := bundle.Get(bundle.Get(now, name.Value), bundle.NumbersKey)
		each(bundle.Get(schema, bundle.NumbersKey), func(value, number *yaml.Node) {
			if is := bundle.Str(numbers, value.Value); is != number.Value {
				changes = append(changes, Change{document, name.Value,
					fmt.Sprintf("the number of %s went from %s to %s", value.Value, number.Value, or(is, "none")), true})
			}
		})
	})
	return changes, nil
}

func schemasOf(doc []byte) (*yaml.Node, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if len(root.Content) == 0 {
		return nil, fmt.Errorf("read bundle: the document is empty")
	}
	return bundle.Get(bundle.Get(root.Content[0], "components"), "schemas"), nil
}

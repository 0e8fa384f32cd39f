package bundle

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// TaxonomyPath lists the reason codes with their numbers.
	TaxonomyPath = "schemas/ds/taxonomy/runtime-policy-reasons.v1.json"
	// ReasonCodeName is the schema of the DS document that the list becomes.
	ReasonCodeName = "ReasonCode"
	// NumbersKey holds the number of each value of an enum.
	NumbersKey = "x-numbers"
)

var reasonCode = regexp.MustCompile(`^[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*$`)

// reasonCodes makes the taxonomy one enum: its codes in the order of their
// numbers, and the numbers beside them. Codes and numbers are each given once,
// the domain is the code's beginning, and only policy_allowed allows.
func (c *Contract) reasonCodes() (*yaml.Node, error) {
	f := c.Taxonomy
	var errs []error
	wrong := func(n *yaml.Node, format string, args ...any) {
		errs = append(errs, f.problem(n, format, args...))
	}
	codes := Get(f.Node, "codes")
	if codes == nil || codes.Kind != yaml.SequenceNode || len(codes.Content) == 0 {
		return nil, f.problem(f.Node, "codes must list the reason codes")
	}
	enum := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	numbers := mapping()
	seen, last := map[string]bool{}, 0
	for _, entry := range codes.Content {
		code := Str(entry, "code")
		if !reasonCode.MatchString(code) || len(code) > 64 {
			wrong(entry, "the code %q must be domain.reason in lower snake_case, 64 letters at the most", code)
			continue
		}
		if seen[code] {
			wrong(entry, "the code %s appears twice", code)
		}
		seen[code] = true
		number, err := strconv.Atoi(Str(entry, "number"))
		if err != nil || number <= last {
			wrong(entry, "the number of %s must be greater than the one before it, %d", code, last)
		}
		last = max(last, number)
		domain, _, _ := strings.Cut(code, ".")
		if Str(entry, "domain") != domain {
			wrong(entry, "the domain of %s must be %s", code, domain)
		}
		decision, allowing := Str(entry, "decision"), domain == "policy_allowed"
		if allowing != (decision == "allowed") || !allowing && decision != "denied" && decision != "needs_approval" {
			wrong(entry, "the decision of %s cannot be %q: policy_allowed is allowed, the rest denied or needs_approval", code, decision)
		}
		if Str(entry, "description") == "" {
			wrong(entry, "%s needs a description", code)
		}
		enum.Content = append(enum.Content, scalar(code))
		add(numbers, code, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: strconv.Itoa(number)})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	out := mapping("type", "string", "description", Str(f.Node, "description"))
	add(out, "enum", enum)
	add(out, "x-extensible-enum", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
	add(out, NumbersKey, numbers)
	return out, nil
}

package builtin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
)

// schema is what the filler understands of a JSON Schema: types, const, enum,
// bounds, formats, patterns, nested objects and arrays, local references and
// combinations. Negation, conditions and dependencies are not followed.
type schema struct {
	Type                               json.RawMessage
	Const                              json.RawMessage
	Enum                               []json.RawMessage
	Properties                         map[string]*schema
	Required                           []string
	Items                              *schema
	PrefixItems                        []*schema
	MinItems, MaxItems                 *int
	UniqueItems                        bool
	Minimum, Maximum                   json.RawMessage
	ExclusiveMinimum, ExclusiveMaximum json.RawMessage
	MultipleOf                         json.RawMessage
	MinLength, MaxLength               *int
	Pattern, Format                    string
	Title, Description                 string
	Default                            json.RawMessage
	Examples                           []json.RawMessage
	AnyOf, OneOf, AllOf                []*schema
	Ref                                string             `json:"$ref"`
	Defs                               map[string]*schema `json:"$defs"`
	Definitions                        map[string]*schema
}

// UnmarshalJSON takes the schemas true and false as one without demands: what
// false forbids is never filled, as no rule looks for it.
func (s *schema) UnmarshalJSON(b []byte) error {
	if t := bytes.TrimSpace(b); bytes.Equal(t, []byte("true")) || bytes.Equal(t, []byte("false")) {
		return nil
	}
	type plain schema
	return json.Unmarshal(b, (*plain)(s))
}

func parseSchema(raw json.RawMessage) (*schema, error) {
	s := &schema{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, err
	}
	return s, nil
}

// types lists the allowed types; a schema without any is typed by its keywords.
func (s *schema) types() []string {
	var one string
	if json.Unmarshal(s.Type, &one) == nil && one != "" {
		return []string{one}
	}
	var many []string
	if json.Unmarshal(s.Type, &many) == nil && len(many) > 0 {
		return many
	}
	switch {
	case len(s.Properties) > 0 || len(s.Required) > 0:
		return []string{"object"}
	case s.Items != nil || len(s.PrefixItems) > 0:
		return []string{"array"}
	case len(s.Minimum) > 0 || len(s.Maximum) > 0 || len(s.MultipleOf) > 0:
		return []string{"number"}
	default:
		return []string{"string"}
	}
}

func (s *schema) typ() string {
	for _, t := range s.types() {
		if t != "null" {
			return t
		}
	}
	return "null"
}

func (s *schema) nullable() bool {
	for _, t := range s.types() {
		if t == "null" {
			return true
		}
	}
	return false
}

// resolve follows a local reference and joins allOf.
func (s *schema) resolve(root *schema) (*schema, error) {
	for n := 0; s.Ref != ""; n++ {
		if n > 30 {
			return nil, fmt.Errorf("reference %q goes round in circles", s.Ref)
		}
		next := root.lookup(s.Ref)
		if next == nil {
			return nil, fmt.Errorf("reference %q leads nowhere in the schema", s.Ref)
		}
		s = next
	}
	if len(s.AllOf) == 0 {
		return s, nil
	}
	joined := *s
	joined.AllOf = nil
	joined.Properties = map[string]*schema{}
	joined.Required = append([]string(nil), s.Required...)
	for k, v := range s.Properties {
		joined.Properties[k] = v
	}
	for _, part := range s.AllOf {
		p := part
		if p.Ref != "" {
			if p = root.lookup(p.Ref); p == nil {
				return nil, fmt.Errorf("reference %q leads nowhere in the schema", part.Ref)
			}
		}
		joined.join(p)
	}
	return &joined, nil
}

func (s *schema) join(p *schema) {
	for k, v := range p.Properties {
		s.Properties[k] = v
	}
	s.Required = append(s.Required, p.Required...)
	take := func(to *json.RawMessage, from json.RawMessage) {
		if len(*to) == 0 {
			*to = from
		}
	}
	take(&s.Type, p.Type)
	take(&s.Const, p.Const)
	take(&s.Minimum, p.Minimum)
	take(&s.Maximum, p.Maximum)
	take(&s.ExclusiveMinimum, p.ExclusiveMinimum)
	take(&s.ExclusiveMaximum, p.ExclusiveMaximum)
	take(&s.MultipleOf, p.MultipleOf)
	take(&s.Default, p.Default)
	if len(s.Enum) == 0 {
		s.Enum = p.Enum
	}
	if s.Items == nil {
		s.Items = p.Items
	}
	for _, b := range []struct{ to, from **int }{
		{&s.MinLength, &p.MinLength}, {&s.MaxLength, &p.MaxLength}, {&s.MinItems, &p.MinItems}, {&s.MaxItems, &p.MaxItems},
	} {
		if *b.to == nil {
			*b.to = *b.from
		}
	}
	if s.Pattern == "" {
		s.Pattern = p.Pattern
	}
	if s.Format == "" {
		s.Format = p.Format
	}
}

func (s *schema) lookup(ref string) *schema {
	path, ok := strings.CutPrefix(ref, "#")
	if !ok {
		return nil
	}
	at := s
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if path == "" {
		return at
	}
	for i := 0; i+1 < len(parts); i += 2 {
		key := strings.NewReplacer("~1", "/", "~0", "~").Replace(parts[i+1])
		switch parts[i] {
		case "$defs":
			at = at.Defs[key]
		case "definitions":
			at = at.Definitions[key]
		case "properties":
			at = at.Properties[key]
		default:
			return nil
		}
		if at == nil {
			return nil
		}
	}
	if len(parts)%2 == 1 {
		return nil
	}
	return at
}

func rat(raw json.RawMessage) (*big.Rat, bool) {
	if len(raw) == 0 || len(raw) > 64 {
		return nil, false
	}
	// A huge exponent would be a huge number in memory.
	if i := bytes.IndexAny(raw, "eE"); i >= 0 && len(raw)-i > 5 {
		return nil, false
	}
	return new(big.Rat).SetString(string(raw))
}

// bounded brings a number within the schema's bounds and steps.
func (s *schema) bounded(v *big.Rat, whole bool) *big.Rat {
	step, stepped := rat(s.MultipleOf)
	stepped = stepped && step.Sign() > 0
	if !stepped && whole {
		step, stepped = big.NewRat(1, 1), true
	} else if stepped && whole && !step.IsInt() {
		step = new(big.Rat).SetInt(step.Num())
	}
	if stepped {
		v = multiple(step, floor(new(big.Rat).Quo(v, step)))
	}
	gap := step
	if !stepped {
		gap = big.NewRat(1, 1000)
	}
	low, hasLow := rat(s.Minimum)
	if x, ok := rat(s.ExclusiveMinimum); ok && (!hasLow || x.Cmp(low) >= 0) {
		low, hasLow = new(big.Rat).Add(x, gap), true
		if hi, ok := rat(s.Maximum); ok && low.Cmp(hi) > 0 && !stepped {
			low = new(big.Rat).Mul(new(big.Rat).Add(x, hi), big.NewRat(1, 2))
		}
	}
	high, hasHigh := rat(s.Maximum)
	if x, ok := rat(s.ExclusiveMaximum); ok && (!hasHigh || x.Cmp(high) <= 0) {
		high, hasHigh = new(big.Rat).Sub(x, gap), true
		if hasLow && high.Cmp(low) < 0 && !stepped {
			high = new(big.Rat).Mul(new(big.Rat).Add(x, low), big.NewRat(1, 2))
		}
	}
	if hasLow && v.Cmp(low) < 0 {
		v = low
		if stepped {
			v = multiple(step, ceil(new(big.Rat).Quo(low, step)))
		}
	}
	if hasHigh && v.Cmp(high) > 0 {
		v = high
		if stepped {
			v = multiple(step, floor(new(big.Rat).Quo(high, step)))
		}
	}
	return v
}

func multiple(step *big.Rat, n *big.Int) *big.Rat {
	return new(big.Rat).Mul(step, new(big.Rat).SetInt(n))
}

func floor(r *big.Rat) *big.Int { return new(big.Int).Div(r.Num(), r.Denom()) }

func ceil(r *big.Rat) *big.Int {
	n := floor(r)
	if !r.IsInt() {
		n.Add(n, big.NewInt(1))
	}
	return n
}

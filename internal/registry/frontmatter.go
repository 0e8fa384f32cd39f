package registry

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// frontMatter is what readers of SKILL.md find before its instructions.
type frontMatter struct {
	Name          string         `yaml:"name"`
	Description   string         `yaml:"description"`
	License       string         `yaml:"license,omitempty"`
	Compatibility map[string]any `yaml:"compatibility,omitempty"`
	Metadata      map[string]any `yaml:"metadata,omitempty"`
	AllowedTools  string         `yaml:"allowed-tools,omitempty"` // parted by spaces
}

// skillFile is SKILL.md: front matter whose name is the folder's, as the format's
// readers want it, and the instructions. The name for people is its title.
func skillFile(spec ds.SkillSpecV1, root string, tools []string) (string, error) {
	metadata := map[string]any{"title": spec.Name}
	for name, value := range spec.Metadata {
		metadata[name] = value
	}
	front := struct {
		Name          text `yaml:"name"`
		Description   text `yaml:"description"`
		License       text `yaml:"license,omitempty"`
		Compatibility any  `yaml:"compatibility,omitempty"`
		Metadata      any  `yaml:"metadata"`
		AllowedTools  text `yaml:"allowed-tools,omitempty"`
	}{
		Name: text(root), Description: text(spec.Description), Metadata: plain(metadata), AllowedTools: text(strings.Join(tools, " ")),
	}
	if len(spec.Compatibility) > 0 {
		front.Compatibility = plain(spec.Compatibility)
	}
	if spec.License != nil {
		front.License = text(*spec.License)
	}
	var out bytes.Buffer
	out.WriteString("---\n")
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(front); err != nil {
		return "", fmt.Errorf("write the front matter: %w", err)
	}
	if err := e.Close(); err != nil {
		return "", fmt.Errorf("write the front matter: %w", err)
	}
	out.WriteString("---\n\n" + strings.TrimRight(spec.InstructionsMarkdown, "\n") + "\n")
	return out.String(), nil
}

// text is written so that readers of YAML 1.1 and 1.2 find the same text.
type text string

// MarshalYAML quotes what the library writes as a block that it then cannot
// read, when a tab begins it, and the one word that it leaves bare and that
// readers of YAML 1.1 take for more than a text.
func (t text) MarshalYAML() (any, error) {
	if strings.ContainsAny(string(t), "\n\t") || t == "=" {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: string(t), Style: yaml.DoubleQuotedStyle}, nil
	}
	return string(t), nil
}

// plain is a JSON value for the encoder. Readers of YAML 1.1 take a number like
// 1e+06 for a text: it has its digits, or a point before the exponent.
func plain(v any) any {
	switch v := v.(type) {
	case string:
		return text(v)
	case float64:
		const exact = 1 << 53
		if v == math.Trunc(v) && math.Abs(v) <= exact {
			return int64(v)
		}
		digits := strconv.FormatFloat(v, 'g', -1, 64)
		if mantissa, exponent, ok := strings.Cut(digits, "e"); ok && !strings.Contains(mantissa, ".") {
			digits = mantissa + ".0e" + exponent
		}
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: digits}
	case []any:
		list := make([]any, 0, len(v))
		for _, item := range v {
			list = append(list, plain(item))
		}
		return list
	case map[string]any:
		object := make(map[text]any, len(v))
		for name, member := range v {
			object[text(name)] = plain(member)
		}
		return object
	}
	return v
}

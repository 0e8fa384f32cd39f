package registry

import (
	"bytes"
	"embed"
	"fmt"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

//go:embed builtin/*.md
var builtInFiles embed.FS

// builtInSkills reads the skills that come with the registry: each is a file with
// front matter, named after its id. They are of version 1 and name version 1 of
// built-in tools.
func builtInSkills() ([]ds.SkillSpecV1, error) {
	files, err := builtInFiles.ReadDir("builtin")
	if err != nil {
		return nil, fmt.Errorf("read the built-in skills: %w", err)
	}
	var all []ds.SkillSpecV1
	for _, f := range files {
		text, err := builtInFiles.ReadFile("builtin/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("read the built-in skills: %w", err)
		}
		front, instructions, ok := splitFrontMatter(text)
		var head struct {
			Name         string   `yaml:"name"`
			Description  string   `yaml:"description"`
			AllowedTools []string `yaml:"allowed-tools"`
		}
		if err := yaml.Unmarshal(front, &head); err != nil || !ok {
			return nil, fmt.Errorf("built-in skill %s has no front matter: %w", f.Name(), err)
		}
		spec := ds.SkillSpecV1{
			SkillID: strings.TrimSuffix(f.Name(), path.Ext(f.Name())), Version: 1, Name: head.Name, Description: head.Description,
			InstructionsMarkdown: string(instructions), AllowedTools: []ds.SkillSpecV1ToolRef{},
		}
		for _, id := range head.AllowedTools {
			spec.AllowedTools = append(spec.AllowedTools, ds.SkillSpecV1ToolRef{ToolID: id, Version: 1})
		}
		all = append(all, spec)
	}
	return all, nil
}

// splitFrontMatter takes the YAML between the first two lines of three dashes off
// a text.
func splitFrontMatter(text []byte) (front, rest []byte, ok bool) {
	body, ok := bytes.CutPrefix(text, []byte("---\n"))
	if !ok {
		return nil, nil, false
	}
	return bytes.Cut(body, []byte("\n---\n"))
}

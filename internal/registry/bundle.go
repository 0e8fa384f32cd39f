package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/openagentsinc/openagents-runtime/gen/api"
	"github.com/openagentsinc/openagents-runtime/gen/ds"
	"github.com/openagentsinc/openagents-runtime/internal/canon"
	"github.com/openagentsinc/openagents-runtime/internal/fault"
)

// The forms of a bundle and of the report on it.
const (
	BundleFormat  = "agent_skills.v1"
	ReportProfile = "agent_skills_shape.v1"
)

// Bounds of the front matter's fields, of those who read the format.
const (
	maxSlug        = 64
	maxDescription = 1024
)

// bundle is what a release holds.
type bundle struct {
	Format  string `json:"format"`
	SkillID string `json:"skill_id"`
	Version int32  `json:"version"`
	Root    string `json:"root"` // the folder that all files are in
	// Files have their texts by their paths.
	Files       map[string]string        `json:"files"`
	Directories map[string][]bundledFile `json:"directories"`
	Tools       []toolManifestRef        `json:"tool_manifest_refs"`
}

type bundledFile struct {
	Path   string `json:"path"` // in the bundle
	SHA256 string `json:"sha256"`
}

type toolManifestRef struct {
	ToolID        string `json:"tool_id"`
	Version       int32  `json:"version"`
	ToolPack      string `json:"tool_pack"`
	IntegrationID string `json:"integration_id,omitempty"`
	// Provider and MaxPerMinute are of the integration's manifest.
	Provider     string `json:"provider,omitempty"`
	MaxPerMinute int    `json:"max_per_minute,omitempty"`
	ContentHash  string `json:"content_hash"`
}

// report says what was checked of a bundle.
type report struct {
	Profile    string      `json:"profile"`
	Compatible bool        `json:"compatible"`
	Checks     []reportRow `json:"checks"`
}

type reportRow struct {
	Check   string `json:"check"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

type compiled struct {
	id, hash       string
	bundle, report json.RawMessage
}

// compile makes the release of a spec. The same spec and tools make the same.
func compile(spec ds.SkillSpecV1, tools []Entry) (compiled, error) {
	b, err := bundled(spec, tools)
	if err != nil {
		return compiled{}, err
	}
	rep := check(b)
	if !rep.Compatible {
		return compiled{}, fault.New(api.InvalidRequest, "the skill does not have the shape of the profile %s; details.compatibilityReport says where", ReportProfile).
			With("compatibilityReport", rep)
	}
	var c compiled
	if c.bundle, err = canon.Marshal(b); err != nil {
		return c, fmt.Errorf("bundle a skill: %w", err)
	}
	if c.report, err = canon.Marshal(rep); err != nil {
		return c, fmt.Errorf("bundle a skill: %w", err)
	}
	c.hash = canon.Hash(c.bundle)
	c.id, err = releaseID(spec.SkillID, spec.Version, c.hash)
	return c, err
}

func bundled(spec ds.SkillSpecV1, tools []Entry) (bundle, error) {
	if err := checkFiles(spec); err != nil {
		return bundle{}, err
	}
	b := bundle{
		Format: BundleFormat, SkillID: spec.SkillID, Version: spec.Version, Root: rootOf(spec), Files: map[string]string{},
		Directories: map[string][]bundledFile{}, Tools: []toolManifestRef{},
	}
	var names []string
	for _, e := range tools {
		var t ds.ToolSpecV1
		if err := json.Unmarshal(e.Spec, &t); err != nil {
			return b, fmt.Errorf("read a tool spec: %w", err)
		}
		integration, _ := t.IntegrationManifest["integration_id"].(string)
		rate, _ := RateOf(t.IntegrationManifest)
		b.Tools = append(b.Tools, toolManifestRef{
			t.ToolID, t.Version, t.ToolPack, integration, rate.Provider, rate.PerMinute, e.ContentHash,
		})
		names = append(names, toolName(t.ToolID, t.Version))
	}
	for _, d := range directories(spec) {
		b.Directories[d.name] = []bundledFile{}
		for _, f := range d.files {
			at := path.Join(b.Root, d.name, f.Path)
			b.Files[at] = f.Content
			b.Directories[d.name] = append(b.Directories[d.name], bundledFile{at, canon.Hash([]byte(f.Content))})
		}
		slices.SortFunc(b.Directories[d.name], func(x, y bundledFile) int { return strings.Compare(x.Path, y.Path) })
	}
	text, err := skillFile(spec, b.Root, names)
	b.Files[path.Join(b.Root, "SKILL.md")] = text
	return b, err
}

type directory struct {
	name  string
	files []ds.SkillSpecV1File
}

func directories(spec ds.SkillSpecV1) []directory {
	return []directory{{"scripts", spec.Scripts}, {"references", spec.References}, {"assets", spec.Assets}}
}

// rootOf is the folder of a skill: its name in small letters, digits and single
// dashes, or its id's when the name has none of them.
func rootOf(spec ds.SkillSpecV1) string {
	for _, from := range []string{spec.Name, spec.SkillID} {
		if s := slug(from); s != "" {
			return s
		}
	}
	return "skill"
}

func slug(s string) string {
	var out []byte
	for _, c := range []byte(strings.ToLower(s)) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			out = append(out, c)
		case len(out) > 0 && out[len(out)-1] != '-':
			out = append(out, '-')
		}
	}
	return strings.Trim(string(out[:min(len(out), maxSlug)]), "-")
}

// check reads a bundle as those who load it do.
func check(b bundle) report {
	rep := report{Profile: ReportProfile, Compatible: true, Checks: []reportRow{}}
	say := func(name, wrong string) {
		rep.Checks = append(rep.Checks, reportRow{name, wrong == "", wrong})
		rep.Compatible = rep.Compatible && wrong == ""
	}
	front, rest, ok := splitFrontMatter([]byte(b.Files[path.Join(b.Root, "SKILL.md")]))
	var read frontMatter
	wrong := ""
	if !ok || yaml.Unmarshal(front, &read) != nil {
		wrong = "SKILL.md does not begin with YAML between lines of three dashes"
	}
	say("front_matter", wrong)
	if wrong = ""; read.Name != b.Root {
		wrong = "the name is not the folder's"
	}
	say("name", wrong)
	wrong = ""
	if n := utf8.RuneCountInString(strings.TrimSpace(read.Description)); n == 0 || n > maxDescription {
		wrong = fmt.Sprintf("the description must have 1 to %d characters, not %d", maxDescription, n)
	}
	say("description", wrong)
	if wrong = ""; len(bytes.TrimSpace(rest)) == 0 {
		wrong = "there are no instructions"
	}
	say("instructions", wrong)
	wrong = ""
	for at := range b.Files {
		if path.Clean(at) != at || !strings.HasPrefix(at, b.Root+"/") {
			wrong = "a file is not in the skill's folder"
		}
	}
	say("directories", wrong)
	return rep
}

// checkFiles refuses files that would not unpack into their folder, one each.
func checkFiles(spec ds.SkillSpecV1) error {
	for _, d := range directories(spec) {
		taken := map[string]bool{} // in small letters: some file systems know no other
		for i, f := range d.files {
			at := fmt.Sprintf("/skillSpec/%s/%d/path", d.name, i)
			refuse := func(why string) error {
				return fault.New(api.InvalidRequest, "body %s: %s", at, why).With("pointer", at)
			}
			if f.Path == "." || path.Clean(f.Path) != f.Path || path.IsAbs(f.Path) || slices.Contains(strings.Split(f.Path, "/"), "..") {
				return refuse("must be a plain path below its folder, without . and .. and without empty steps")
			}
			key := strings.ToLower(f.Path)
			if taken[key] {
				return refuse("is there twice; capital letters do not count")
			}
			taken[key] = true
		}
		for i, f := range d.files {
			for dir := path.Dir(strings.ToLower(f.Path)); dir != "."; dir = path.Dir(dir) {
				if taken[dir] {
					at := fmt.Sprintf("/skillSpec/%s/%d/path", d.name, i)
					return fault.New(api.InvalidRequest, "body %s: lies in another file", at).With("pointer", at)
				}
			}
		}
	}
	return nil
}

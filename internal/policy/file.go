package policy

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// Lists are one list of tools: what it allows, none for all, and what it
// refuses whatever it allows.
type Lists struct {
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
}

// Limits bound what one owner may have at once. 0 has no bound.
type Limits struct {
	ParallelTools    int `json:"parallel_tools_per_owner,omitempty"`
	PendingApprovals int `json:"pending_approvals_per_owner,omitempty"`
}

// file is the service's tool policy as an operator writes it; tool_policy.v1.json
// in this folder is its schema, docs/policy.md its description.
type file struct {
	Format          string              `json:"format"`
	FormatVersion   int                 `json:"format_version"`
	DefaultProfile  string              `json:"default_profile,omitempty"`
	Profiles        map[string]Lists    `json:"profiles,omitempty"`
	Providers       map[string]Lists    `json:"providers,omitempty"`
	Agents          map[string]Lists    `json:"agents,omitempty"`
	Groups          map[string][]string `json:"groups,omitempty"`
	Aliases         map[string]string   `json:"aliases,omitempty"`
	DefaultTools    []string            `json:"default_tools,omitempty"`
	GuestTools      []string            `json:"guest_tools,omitempty"`
	RequireApproval *[]string           `json:"require_approval,omitempty"`
	ApprovalSeconds int64               `json:"approval_lifetime_seconds,omitempty"`
	Limits          Limits              `json:"limits"`
}

//go:embed tool_policy.v1.json
var fileSchema []byte

//go:embed default.json
var defaultFile []byte

// Rules are the service's tool policy, ready to use by many at once.
type Rules struct {
	file    file
	id      string
	groups  map[string][]string // folded name to folded members
	aliases map[string]string   // folded to folded
}

// Default is the policy of a service that has no file of its own.
func Default() *Rules {
	r, err := Parse(defaultFile)
	if err != nil {
		panic("the built-in tool policy: " + err.Error()) // a test reads it
	}
	return r
}

// Load reads the file that RUNTIME_TOOL_POLICY names; an empty path is Default.
func Load(path string) (*Rules, error) {
	if path == "" {
		return Default(), nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the tool policy: %w", err)
	}
	r, err := Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Parse reads a tool policy. Members that the schema does not know are refused;
// parts that are left out are those of Default.
func Parse(raw []byte) (*Rules, error) {
	canonical, err := canon.JSON(raw)
	if err != nil {
		return nil, fmt.Errorf("tool policy: %w", err)
	}
	if err := validate(canonical); err != nil {
		return nil, fmt.Errorf("tool policy: %w", err)
	}
	var f file
	if err := json.Unmarshal(defaultFile, &f); err != nil {
		return nil, fmt.Errorf("tool policy: the built-in: %w", err)
	}
	// An object that is given takes the place of the built-in one as a whole.
	given := map[string]json.RawMessage{}
	if err := json.Unmarshal(canonical, &given); err != nil {
		return nil, fmt.Errorf("tool policy: %w", err)
	}
	for name, drop := range map[string]func(){
		"profiles": func() { f.Profiles = nil }, "providers": func() { f.Providers = nil },
		"agents": func() { f.Agents = nil }, "groups": func() { f.Groups = nil }, "aliases": func() { f.Aliases = nil },
	} {
		if _, ok := given[name]; ok {
			drop()
		}
	}
	if err := json.Unmarshal(canonical, &f); err != nil {
		return nil, fmt.Errorf("tool policy: %w", err)
	}
	if _, ok := f.Profiles[f.DefaultProfile]; !ok {
		return nil, fmt.Errorf("tool policy: default_profile %q is not among profiles", f.DefaultProfile)
	}
	return newRules(f)
}

func validate(canonical []byte) error {
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(fileSchema))
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	const at = "https://schemas.openagents.com/runtime/tool_policy.v1.json"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(at, schema); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	compiled, err := c.Compile(at)
	if err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(canonical))
	if err != nil {
		return err
	}
	return compiled.Validate(doc)
}

func newRules(f file) (*Rules, error) {
	id, err := canon.HashJSON(f)
	if err != nil {
		return nil, fmt.Errorf("tool policy: %w", err)
	}
	r := &Rules{
		file: f, id: "tool-policy:" + id[len("sha256:"):][:32],
		groups: map[string][]string{}, aliases: map[string]string{},
	}
	for alias, name := range f.Aliases {
		from, okFrom := Name(alias)
		to, okTo := Name(name)
		if !okFrom || !okTo {
			return nil, fmt.Errorf("tool policy: alias %q: names are ASCII", alias)
		}
		r.aliases[from] = to
	}
	for group, members := range f.Groups {
		name, plain := Name(group)
		if !plain {
			return nil, fmt.Errorf("tool policy: group %q: names are ASCII", group)
		}
		if _, twice := r.groups[name]; twice || name == groupReads || name == groupWrites || name == groupClient {
			return nil, fmt.Errorf("tool policy: group %q is there already", group)
		}
		for _, m := range members {
			folded, _ := Name(m)
			r.groups[name] = append(r.groups[name], r.alias(folded))
		}
	}
	return r, nil
}

// ID names the policy by its content: policy_id of every input.
func (r *Rules) ID() string { return r.id }

// ApprovalLifetime is how long a person has to decide.
func (r *Rules) ApprovalLifetime() time.Duration {
	return time.Duration(r.file.ApprovalSeconds) * time.Second
}

// Limits bound what one owner may have at once.
func (r *Rules) Limits() Limits { return r.file.Limits }

func (r *Rules) alias(name string) string {
	if to, ok := r.aliases[name]; ok {
		return to
	}
	return name
}

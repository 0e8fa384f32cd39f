package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

// groupClient holds every tool that the caller of the API carries out.
const groupClient = "client"

// Run is what a run says of its tools: runs.tool_policy as startRun was given
// it, and whose the run is.
type Run struct {
	Allow           []string `json:"allow,omitempty"`
	Deny            []string `json:"deny,omitempty"`
	RequireApproval []string `json:"requireApproval,omitempty"`
	Profile         string   `json:"profile,omitempty"`
	GuestMode       bool     `json:"guestMode,omitempty"`
	// Guest says that the run's owner is a guest: guest mode whatever the run says.
	Guest   bool   `json:"-"`
	AgentID string `json:"-"`
}

// Tool is what policy must know of a tool.
type Tool struct {
	Name, Provider string
	Groups         []string
	Writes         bool
	NeedsApproval  bool
	Client         bool // the caller of the API carries it out
}

// Call is one call of a tool that is asked about.
type Call struct {
	ArgsHash string // sha256:<64 hex>; empty when it is not about one call
	Domain   string // the host that the call reaches, when it is known
	At       time.Time
}

// Input writes down everything that Decide is asked about a call. What spend,
// the loop detector and approvals know is added by the caller.
func (r *Rules) Input(run Run, tool Tool, call Call) ds.PolicyEvaluationV1Input {
	if folded, plain := Name(tool.Name); plain && r.alias(folded) != folded {
		tool.Name = r.alias(folded) // a tool is what its alias says, so that a list of either name meets it
	}
	groups := slices.Clone(tool.Groups)
	if tool.Client {
		groups = append([]string{groupClient}, groups...)
	}
	action := ds.PolicyEvaluationV1Action{
		Kind: ds.PolicyEvaluationV1ActionKindTool, ToolName: &tool.Name, Writes: &tool.Writes,
		Provider: some(tool.Provider), Domain: some(call.Domain), ArgsHash: some(call.ArgsHash),
	}
	if len(groups) > 0 {
		action.ToolGroup = &groups[0]
	}
	profile := cmp.Or(run.Profile, r.file.DefaultProfile)
	guest := run.Guest || run.GuestMode
	in := ds.PolicyEvaluationV1Input{
		Action: action,
		Policy: &ds.PolicyEvaluationV1Policy{
			PolicyID: &r.id, Profile: &profile, GuestMode: &guest,
			Layers: r.layers(run, profile, tool, groups),
		},
	}
	in.Policy.RequireApproval = r.entries(slices.Concat(*r.file.RequireApproval, run.RequireApproval), tool, groups, false)
	if tool.NeedsApproval {
		name, _ := Name(tool.Name)
		in.Policy.RequireApproval = append(in.Policy.RequireApproval, name)
	}
	if !call.At.IsZero() {
		at := call.At.UTC()
		in.EvaluatedAt = &at
	}
	return in
}

// Visible lists the tools that a model of the run is shown: those that no list
// refuses. Calls that a person must approve are shown.
func (r *Rules) Visible(run Run, tools []Tool) []Tool {
	var shown []Tool
	for _, t := range tools {
		if v := decide(r.Input(run, t, Call{}), ""); v.decision != Denied {
			shown = append(shown, t)
		}
	}
	return shown
}

// layers are the tool lists in their order. Each keeps its label, so that a
// refusal can say where it is from.
func (r *Rules) layers(run Run, profile string, tool Tool, groups []string) []ds.PolicyEvaluationV1Layer {
	var all []ds.PolicyEvaluationV1Layer
	add := func(label string, l Lists) {
		layer := ds.PolicyEvaluationV1Layer{
			Label: label, Allow: r.entries(l.Allow, tool, groups, true), Deny: r.entries(l.Deny, tool, groups, false),
		}
		if len(layer.Allow)+len(layer.Deny) > 0 {
			all = append(all, layer)
		}
	}
	lists, known := r.file.Profiles[profile]
	if !known {
		lists = nothing // a profile that is not there allows nothing
	}
	add("profile ("+profile+")", lists)
	if lists, ok := r.file.Providers[tool.Provider]; ok {
		add("provider ("+tool.Provider+")", lists)
	}
	if len(run.Allow) > 0 {
		add("run", Lists{run.Allow, run.Deny})
	} else {
		add("default", only(r.file.DefaultTools))
		add("run", Lists{Deny: run.Deny})
	}
	if lists, ok := r.file.Agents[run.AgentID]; ok && run.AgentID != "" {
		add("agent ("+run.AgentID+")", lists)
	}
	if run.Guest || run.GuestMode {
		add(guestLabel, only(r.file.GuestTools))
	}
	return all
}

// nothing is the list that allows no tool.
var nothing = Lists{Deny: []string{"*"}}

// only allows what is listed; nothing when nothing is.
func only(list []string) Lists {
	if len(list) == 0 {
		return nothing
	}
	return Lists{Allow: list}
}

// entries writes a list in the spelling that Decide compares: folded, aliases
// resolved, a group that holds this tool by name or by its own word replaced by
// the tool (Decide knows the tool's first group, and reads and writes, itself).
// In a list that allows, an entry that was not ASCII cannot be kept, for it would
// allow the tool that it looks like; it becomes one that no tool matches, so
// that a list of such entries alone still allows nothing.
func (r *Rules) entries(list []string, tool Tool, groups []string, allows bool) []string {
	name, _ := Name(tool.Name)
	var out []string
	for _, entry := range list {
		e, plain := Name(entry)
		if !plain && allows || e == "" {
			e = unusable
		}
		e = r.alias(e)
		if group, ok := strings.CutPrefix(e, groupPrefix); ok && r.inGroup(group, name, groups) {
			e = name
		}
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// unusable is a group that no tool can be in: names of groups are not empty.
const unusable = groupPrefix

func (r *Rules) inGroup(group, name string, groups []string) bool {
	for i, g := range groups {
		if own, plain := Name(g); plain && own == group {
			return i > 0 // the first is known to Decide
		}
	}
	return slices.ContainsFunc(r.groups[group], func(member string) bool { return glob(member, name) })
}

// warnings collects what lists name and nothing is.
type warnings struct {
	rules *Rules
	tools []Tool
	out   []string
}

func (w *warnings) warn(label string, list []string) {
	var unknown []string
	for _, entry := range list {
		if !w.rules.known(entry, w.tools) {
			unknown = append(unknown, entry)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		w.out = append(w.out, fmt.Sprintf("tools: %s names unknown entries %q; they match nothing", label, slices.Compact(unknown)))
	}
}

func (w *warnings) both(label string, l Lists) {
	w.warn(label+" allow", l.Allow)
	w.warn(label+" deny", l.Deny)
}

// Warnings names, in sorted order, what the service's lists mention and nothing
// is: misspelt names do not pass unnoticed. A list is never loosened for it. What
// the built-in policy names is no mistake where a tool is not configured.
func (r *Rules) Warnings(tools []Tool) []string {
	builtIn := Default().warnings(tools)
	return slices.DeleteFunc(r.warnings(tools), func(line string) bool { return slices.Contains(builtIn, line) })
}

func (r *Rules) warnings(tools []Tool) []string {
	w := warnings{rules: r, tools: tools}
	for name, l := range r.file.Profiles {
		w.both("profile ("+name+")", l)
	}
	for name, l := range r.file.Providers {
		w.both("provider ("+name+")", l)
	}
	for name, l := range r.file.Agents {
		w.both("agent ("+name+")", l)
	}
	for name, members := range r.file.Groups {
		w.warn("group ("+name+")", members)
	}
	w.warn("default tools", r.file.DefaultTools)
	w.warn("guest tools", r.file.GuestTools)
	w.warn("approval", *r.file.RequireApproval)
	slices.Sort(w.out)
	return w.out
}

// RunWarnings are Warnings of what a run says.
func (r *Rules) RunWarnings(run Run, tools []Tool) []string {
	w := warnings{rules: r, tools: tools}
	w.both("run", Lists{run.Allow, run.Deny})
	w.warn("run approval", run.RequireApproval)
	if run.Profile != "" {
		if _, ok := r.file.Profiles[run.Profile]; !ok {
			w.out = append(w.out, fmt.Sprintf("tools: the profile %q is unknown; it allows nothing", run.Profile))
		}
	}
	slices.Sort(w.out)
	return w.out
}

func (r *Rules) known(entry string, tools []Tool) bool {
	e, plain := Name(entry)
	if !plain {
		return false
	}
	e = r.alias(e)
	group, isGroup := strings.CutPrefix(e, groupPrefix)
	if isGroup {
		if _, ok := r.groups[group]; ok || group == groupReads || group == groupWrites || group == groupClient {
			return true
		}
	}
	return slices.ContainsFunc(tools, func(t Tool) bool {
		if isGroup {
			return slices.ContainsFunc(t.Groups, func(g string) bool { own, _ := Name(g); return own == group })
		}
		name, _ := Name(t.Name)
		return glob(e, name)
	})
}

func some(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

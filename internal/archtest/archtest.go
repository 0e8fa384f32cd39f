// Package archtest refuses imports, table owners and files that the drawing in docs/architecture.md does not allow.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path that all our packages begin with.
const Module = "github.com/openagentsinc/openagents-runtime/"

// arrows says which rooms each room may import. Everybody may import gen/*
// and crash besides. A room that is not listed may not exist.
var arrows = map[string]string{
	// 1 Basics: know no run and no table.
	"canon":     "",
	"fault":     "",
	"telemetry": "",
	"crash":     "",
	"devdb":     "",
	"redact":    "canon",
	"policy":    "canon",
	"loop":      "canon",
	"pg":        "telemetry migrations",
	"egress":    "fault telemetry",
	"auth":      "fault canon",
	"secret":    "auth egress",
	"blob":      "fault telemetry",

	// 2 Records: tables, and the rules for changing them.
	"runlog":     "canon redact telemetry",
	"run":        "runlog canon redact fault telemetry",
	"lease":      "runlog pg fault telemetry",
	"spend":      "runlog policy canon redact telemetry",
	"artifact":   "canon fault",
	"approval":   "runlog run canon redact policy fault telemetry",
	"agent":      "runlog fault",
	"registry":   "canon fault",
	"projection": "runlog",

	// 3 Work: calls that leave the process, and their receipts.
	"model":   "egress fault telemetry",
	"predict": "model artifact policy runlog redact blob canon fault telemetry",
	"tool":    "spend policy redact runlog canon fault telemetry",
	"tool/*":  "tool tool/outbound egress secret redact runlog fault",
	"memory":  "predict runlog",
	"compile": "predict artifact canon",

	"hook": "egress redact canon telemetry",

	// 4 Loops and doors.
	"executor": "run lease spend predict model tool approval policy hook memory loop runlog redact canon pg telemetry",
	"janitor":  "telemetry",
	"stream":   "runlog canon pg telemetry",
	"replay":   "runlog policy artifact predict spend canon",
	"shadow":   "runlog canon",
	"doctor":   "run lease spend approval artifact runlog",
	"server": "run lease stream spend tool approval agent registry artifact predict compile memory projection " +
		"replay doctor runlog auth policy redact canon fault telemetry pg",

	// For tests and tools.
	"archtest":     "",
	"testrun":      "devdb",
	"mutation":     "devdb",
	"bench":        "*",
	"contractgen":  "canon",
	"dbtest":       "*",
	"runtest":      "*",
	"contracttest": "*",
	"crashtest":    "*",
	"bounds":       "*",
	"rig":          "*",
}

// tableOwners says which room asks the queries of queries/<table>.sql. Rooms
// for tests may ask them all.
var tableOwners = map[string]string{
	"approvals":           "approval",
	"runs":                "run",
	"frames":              "run",
	"run_heads":           "runlog",
	"run_log":             "runlog",
	"run_log_deltas":      "runlog",
	"run_log_folds":       "runlog",
	"run_leases":          "lease",
	"checkpoints":         "executor",
	"ds_predict_receipts": "predict",
	"auth_nonces":         "auth",
	"tool_tasks":          "tool",
	// Written through tool by whoever decides.
	"ds_policy_evaluations": "tool",
	"tool_specs":            "registry",
	"skill_specs":           "registry",
	"skill_releases":        "registry",

	"spend_authorizations":       "spend",
	"spend_authorization_events": "spend",
	"spend_periods":              "spend",
	"spend_reservations":         "spend",
	"spend_ledger_entries":       "spend",
}

// Package is what the rules look at.
type Package struct {
	Path    string   // below Module, with forward slashes: internal/lease
	Imports []string // of its files that are not tests, below Module as well
}

// room answers the room that a path lies in: internal/model/builtin is in model.
// Rooms with a line of their own, such as tool/*, come before their parents.
func room(path string) (name string, ok bool) {
	inner, found := strings.CutPrefix(path, "internal/")
	if !found {
		return path, false
	}
	first, _, below := strings.Cut(inner, "/")
	if _, split := arrows[first+"/*"]; split && below {
		return inner, true
	}
	return first, true
}

func allowed(name string) (list string, ok bool) {
	if list, ok = arrows[name]; ok {
		return list, true
	}
	parent, _, below := strings.Cut(name, "/")
	if !below {
		return "", false
	}
	list, ok = arrows[parent+"/*"]
	return list, ok
}

// Forbidden names every import that no arrow allows, and every room that has no line.
func Forbidden(pkgs []Package) []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, p := range pkgs {
		switch {
		case strings.HasPrefix(p.Path, "gen/"):
			for _, i := range p.Imports {
				if !strings.HasPrefix(i, "gen/") {
					say("%s imports %s: generated code imports nothing of ours but gen/*", p.Path, i)
				}
			}
			continue
		case strings.HasPrefix(p.Path, "cmd/"):
			for _, i := range p.Imports {
				if strings.HasPrefix(i, "cmd/") && !strings.HasPrefix(i+"/", p.Path+"/") && !strings.HasPrefix(p.Path+"/", i+"/") {
					say("%s imports %s: nobody imports another command", p.Path, i)
				}
			}
			continue
		case p.Path == "migrations":
			if len(p.Imports) > 0 {
				say("migrations imports %s: it imports nothing of ours", strings.Join(p.Imports, " "))
			}
			continue
		}
		from, inside := room(p.Path)
		list, known := allowed(from)
		if !inside || !known {
			say("%s has no line in internal/archtest: add its arrows there and to docs/architecture.md, or move the code to a room that exists", p.Path)
			continue
		}
		for _, i := range p.Imports {
			if !mayImport(from, list, i) {
				say("%s imports %s: from %s only these arrows go out: %s; move the call to a room above, or change docs/architecture.md and internal/archtest together",
					p.Path, i, from, or(list, "none"))
			}
		}
	}
	return wrong
}

func mayImport(from, list, path string) bool {
	if strings.HasPrefix(path, "gen/") || path == "internal/crash" {
		return true
	}
	if strings.HasPrefix(path, "cmd/") {
		return false
	}
	to, inside := room(path)
	return list == "*" || (inside && to == from) || slices.Contains(strings.Fields(list), to)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Call is one use of a query's name outside gen/ and tests.
type Call struct {
	Path  string // package, below Module
	Query string
	Where string // file:line
}

// Trespass names every call of a table's query from a room that does not own
// the table. queries maps a query's name to its table.
func Trespass(queries map[string]string, calls []Call) []string {
	var wrong []string
	for _, c := range calls {
		from, _ := room(c.Path)
		table := queries[c.Query]
		if arrows[from] == "*" || tableOwners[table] == from {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("%s: %s asks %s, but the table %s belongs to %s; call a function of that room",
			c.Where, from, c.Query, table, or(tableOwners[table], "nobody: add it to tableOwners in internal/archtest and to docs/architecture.md")))
	}
	return wrong
}

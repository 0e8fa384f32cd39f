package policy

import (
	"strings"

	"github.com/openagentsinc/openagents-runtime/gen/ds"
)

const (
	groupPrefix = "group:"
	// Two groups are always there: every tool is in one of them.
	groupWrites = "writes" // changes something outside, or does not say
	groupReads  = "reads"

	guestLabel = "guest"
)

// toolLists asks every list of tools; a tool must pass each.
func toolLists(q question) verdict {
	name, plain := Name(val(q.action.ToolName))
	if q.action.Kind != ds.PolicyEvaluationV1ActionKindTool && name == "" {
		return verdict{}
	}
	guest, guestList := val(q.policy.GuestMode), false
	for _, layer := range q.policy.Layers {
		guestList = guestList || layer.Label == guestLabel
		if q.passes(layer) {
			continue
		}
		v := deny(ds.ReasonCodePolicyDeniedToolNotAllowed)
		if layer.Label == guestLabel {
			v = deny(ds.ReasonCodePolicyDeniedGuestMode)
		}
		v.layer = layer.Label
		return v
	}
	if guest && !guestList {
		// Guests have what a list gives them, so without one they have nothing.
		return deny(ds.ReasonCodePolicyDeniedGuestMode)
	}
	if name == "" || !plain || strings.Contains(name, "*") || strings.HasPrefix(name, groupPrefix) {
		return deny(ds.ReasonCodePolicyDeniedToolNotAllowed)
	}
	return verdict{}
}

func (q question) passes(layer ds.PolicyEvaluationV1Layer) bool {
	for _, entry := range layer.Deny {
		if q.toolMatches(entry) {
			return false
		}
	}
	if len(layer.Allow) == 0 {
		return true
	}
	return q.toolIn(layer.Allow)
}

// toolIn says whether a list that allows, or asks for approval, names the tool.
func (q question) toolIn(list []string) bool {
	for _, entry := range list {
		if q.toolMatches(entry) {
			return true
		}
	}
	return false
}

func (q question) toolMatches(entry string) bool {
	pattern, _ := Name(entry)
	if group, ok := strings.CutPrefix(pattern, groupPrefix); ok {
		switch group {
		case groupWrites:
			return q.action.Writes == nil || *q.action.Writes
		case groupReads:
			return q.action.Writes != nil && !*q.action.Writes
		}
		own, _ := Name(val(q.action.ToolGroup))
		return own != "" && glob(group, own)
	}
	name, _ := Name(val(q.action.ToolName))
	return pattern != "" && glob(pattern, name)
}

// glob matches * against any text, in time |pattern| × |s| at the most.
func glob(pattern, s string) bool {
	star, mark, p, i := -1, 0, 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

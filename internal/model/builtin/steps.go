package builtin

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

var numbered = regexp.MustCompile(`(?m)^[ \t]*(\d+)[.)][ \t]+(\S.*)$`)

// steps are the items of a list in what was asked that is numbered from 1 on, when
// there are two or more.
func (t thread) steps() []string {
	var all []string
	for _, m := range numbered.FindAllStringSubmatch(t.ask, -1) {
		if m[1] != strconv.Itoa(len(all)+1) {
			return nil
		}
		all = append(all, strings.TrimSpace(m[2]))
	}
	if len(all) < 2 {
		return nil
	}
	return all
}

// nextStep is the call for the first step that a tool can do and that has no
// result yet. Steps that no tool can do are passed over.
func (t thread) nextStep(tools []model.Tool) (*model.ToolCall, error) {
	done := 0
	for _, step := range t.steps() {
		one := t
		one.ask = step
		call, _, err := one.pick(tools)
		switch {
		case err != nil:
			return nil, err
		case call == nil:
		case done == len(t.results):
			return call, nil
		default:
			done++
		}
	}
	return nil, nil
}

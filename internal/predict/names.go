package predict

import (
	"regexp"
	"slices"
	"strings"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// maxName is the longest name of a function that providers take.
const maxName = 64

var notInNames = regexp.MustCompile(`[^a-zA-Z0-9_-]`)

// names are the names that a model knows tools by: providers take letters,
// digits, _ and - only, so http.fetch is http_fetch to a model.
type names struct{ toShown, toReal map[string]string }

// namesOf gives the tools of an input their names, the same for the same tools
// whatever their order.
func namesOf(in shape) names {
	n := names{map[string]string{}, map[string]string{}}
	var real []string
	for _, t := range in.Tools {
		real = append(real, t.Name)
	}
	for _, m := range in.Messages {
		for _, c := range m.ToolCalls {
			real = append(real, c.ToolName)
		}
	}
	slices.Sort(real)
	real = slices.Compact(real)
	// A name that can stay as it is comes before those that would become it.
	slices.SortStableFunc(real, func(a, b string) int { return plainFirst(a) - plainFirst(b) })
	for _, name := range real {
		shown := plain(name)
		if _, taken := n.toReal[shown]; taken || len(shown) > maxName {
			suffix := "_" + strings.TrimPrefix(canon.Hash([]byte(name)), "sha256:")[:8]
			shown = shown[:min(len(shown), maxName-len(suffix))] + suffix
		}
		n.toShown[name], n.toReal[shown] = shown, name
	}
	return n
}

func plain(name string) string { return notInNames.ReplaceAllString(name, "_") }

func plainFirst(name string) int {
	if plain(name) == name {
		return 0
	}
	return 1
}

func (n names) shown(name string) string { return n.toShown[name] }

// real is the tool that a model means. A name that no tool was shown under is
// left as it is: whoever looks for that tool finds none.
func (n names) real(shown string) string {
	if name, known := n.toReal[shown]; known {
		return name
	}
	return shown
}

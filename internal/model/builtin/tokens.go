package builtin

import (
	"strings"
	"unicode/utf8"

	"github.com/openagentsinc/openagents-runtime/internal/model"
)

// messageTokens is what a message costs beside its content.
const messageTokens = 4

// Tokens is this model's rule for counting: one token for every four bytes of
// UTF-8 begun.
func Tokens(s string) int64 { return int64(len(s)+3) / 4 }

func inputTokens(req model.Request) int64 {
	n := Tokens(string(req.Schema))
	for _, m := range req.Messages {
		n += messageTokens + Tokens(m.Content)
		for _, c := range m.ToolCalls {
			n += Tokens(c.Name + string(c.Arguments))
		}
	}
	for _, t := range req.Tools {
		n += messageTokens + Tokens(t.Name+t.Description+string(t.Parameters))
	}
	return n
}

// minDeltas is how many deltas a reply of at least as many characters has.
const minDeltas = 10

// split cuts a reply into deltas: by words when there are enough of them, else
// into pieces of even length.
func split(s string) []string {
	var out []string
	for _, w := range strings.SplitAfter(s, " ") {
		if w != "" {
			out = append(out, w)
		}
	}
	if len(out) >= minDeltas {
		return out
	}
	runes := []rune(s)
	n := min(len(runes), minDeltas)
	out = out[:0]
	for i := range n {
		out = append(out, string(runes[i*len(runes)/n:(i+1)*len(runes)/n]))
	}
	return out
}

// truncate keeps as much of s as limit tokens hold.
func truncate(s string, limit int) string {
	n := min(limit*4, len(s))
	for n > 0 && n < len(s) && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

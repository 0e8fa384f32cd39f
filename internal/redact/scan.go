package redact

import (
	"cmp"
	"slices"
)

// scan finds the secrets of a text, sorted and joined where they touch. It
// reads the text as it is and, where it has any, with its percent escapes, JSON
// escapes, invisible and look-alike characters undone.
func scan(s string, known indexes, depth int) []span {
	if len(s) < minSecret {
		return nil
	}
	var found []span
	detect(s, known, depth, func(from, to int) { found = append(found, span{from, to}) })
	for v, level := (view{text: s}), 0; level < maxViews; level++ {
		next, changed := v.undo()
		if !changed {
			break
		}
		v = next
		detect(v.text, known, depth, func(from, to int) {
			found = append(found, span{v.at(from), v.at(to)})
		})
	}
	return join(s, found)
}

const (
	minSecret = 4
	maxViews  = 3 // escapes inside escapes
	maxDepth  = 3 // base64 inside base64, JSON inside JSON
)

func detect(s string, known indexes, depth int, emit func(from, to int)) {
	tokens(s, emit)
	privateKeys(s, emit)
	schemes(s, emit)
	userInfo(s, emit)
	named(s, emit)
	preimages(s, emit)
	known.find(s, emit)
	if depth < maxDepth {
		wrapped(s, known, depth, emit)
	}
}

func join(s string, found []span) []span {
	slices.SortFunc(found, func(a, b span) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to)) })
	var out []span
	for _, sp := range found {
		if sp.from >= sp.to || s[sp.from:sp.to] == Redacted {
			continue
		}
		if n := len(out); n > 0 && sp.from <= out[n-1].to {
			out[n-1].to = max(out[n-1].to, sp.to)
			continue
		}
		out = append(out, sp)
	}
	return out
}

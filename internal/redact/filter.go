package redact

import "strings"

// Filter takes secrets out of a text that comes in pieces. It holds back what
// could still become part of a secret: the last word, what names it, an open
// private key.
type Filter struct {
	// Known holds secrets besides those of the process; nil for none.
	Known *Known
	held  string
}

// maxHeld is how much a Filter holds back; what is longer and unbroken is no
// text that a model writes, and is let go in parts, each redacted.
const maxHeld = 32 << 10

// Write takes the next piece and answers what can be shown of the text so far.
func (f *Filter) Write(piece string) string {
	f.held += piece
	cut := f.cut()
	if cut == 0 {
		return ""
	}
	safe := f.text(f.held[:cut])
	f.held = f.held[cut:]
	return safe
}

// Flush answers the rest, when the text has ended.
func (f *Filter) Flush() string {
	safe := f.text(f.held)
	f.held = ""
	return safe
}

func (f *Filter) text(s string) string {
	s = Text(s)
	if f.Known != nil {
		s = f.Known.Text(s)
	}
	return s
}

// cut is how much of what is held cannot be part of a secret that goes on.
func (f *Filter) cut() int {
	s := f.held
	if len(s) > maxHeld {
		// No secret that is looked for is as long; the last part of it waits.
		return len(s) - maxHeld/2
	}
	cut := wordStart(s, len(s))
	// A name with its sign, and the words that name what follows, wait with it.
	for _, name := range []string{"bearer", "basic", "l402", "lsat", "preimage"} {
		if from := max(0, cut-40); strings.Contains(strings.ToLower(s[from:]), name) {
			cut = min(cut, from+strings.Index(strings.ToLower(s[from:]), name))
		}
	}
	for range 3 {
		before := strings.TrimRight(s[:cut], " \t")
		if n := len(before); n > 0 && (before[n-1] == ':' || before[n-1] == '=' || n < cut && cut == len(s)) {
			cut = wordStart(s, n)
		}
	}
	line := s[strings.LastIndexByte(s, '\n')+1:]
	if i := indexFold(line, "authorization"); i >= 0 {
		cut = min(cut, len(s)-len(line)+wordStart(line, i))
	}
	if i := indexFold(line, "cookie"); i >= 0 {
		cut = min(cut, len(s)-len(line)+wordStart(line, i))
	}
	if i := strings.LastIndex(s, "-----BEGIN "); i >= 0 && !strings.Contains(s[i:], "-----END ") {
		cut = min(cut, i)
	} else if i >= 0 {
		if j := strings.LastIndex(s, "-----END "); strings.Count(s[j:], "-----") < 2 {
			cut = min(cut, i)
		}
	}
	for _, k := range []*Known{&process, f.Known} {
		if k == nil {
			continue
		}
		if x := k.index.Load(); x != nil && x.longest > 0 {
			cut = min(cut, wordStart(s, max(0, len(s)-x.longest)))
		}
	}
	return cut
}

// wordStart is where the unbroken text before end begins.
func wordStart(s string, end int) int {
	for end > 0 && s[end-1] > ' ' && s[end-1] < 0x80 {
		end--
	}
	return end
}

package redact

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Filter takes secrets out of a text that comes in pieces. It holds back what
// could still become part of a secret: the last word, what names it, an open
// private key. A short word is shown at once: should it turn out to be the
// beginning of a secret, the rest of that is taken out.
type Filter struct {
	// Known holds secrets besides those of the process; nil for none.
	Known *Known
	held  string
	shown int    // so much of what is held has been shown
	more  []byte // what follows what is held and is not looked at yet
	next  int    // a long text is looked at when it has grown so far
}

// freely is how much is looked at with every piece. What is longer is looked at
// as it grows, so that the time stays linear however small the pieces are.
const freely = 256

// maxHeld is how much a Filter holds back; what is longer and unbroken is no
// text that a model writes, and is let go in parts, each redacted.
const maxHeld = 32 << 10

// shortWord is too little of a secret to be one. No sign in it joins a name to a
// value.
var shortWord = regexp.MustCompile(`^[\p{L}\p{M}\p{N}]{0,6}[.,;!?]? *$`)

// Write takes the next piece and answers what can be shown of the text so far.
func (f *Filter) Write(piece string) string {
	f.more = append(f.more, piece...)
	if len(f.held)+len(f.more) < f.next {
		return ""
	}
	f.take()
	safe := f.show(f.cut())
	f.next = 0
	if len(f.held) > freely {
		f.next = len(f.held) + len(f.held)/4
	}
	if f.shown < len(f.held) && shortWord.MatchString(f.held) && !f.begun() {
		safe += f.held[f.shown:]
		f.shown = len(f.held)
	}
	return safe
}

// Flush answers the rest, when the text has ended.
func (f *Filter) Flush() string {
	f.take()
	return f.show(len(f.held))
}

func (f *Filter) take() {
	f.held += string(f.more)
	f.more = f.more[:0]
}

// show takes out of what is held, up to end, what has not been shown.
func (f *Filter) show(end int) string {
	if end <= f.shown {
		f.held, f.shown, f.next = f.held[end:], f.shown-end, 0
		return ""
	}
	s := textAfter(f.held[:end], f.shown, f.known())
	f.held, f.shown, f.next = f.held[end:], 0, 0
	return s
}

// textAfter is what text leaves of s behind its first bytes, which stay.
func textAfter(s string, shown int, known indexes) string {
	if shown == 0 {
		return text(s, known, 0)
	}
	for range maxPasses {
		found := scan(s, known, 0)
		for i := range found {
			found[i].from = max(found[i].from, shown)
		}
		found = slices.DeleteFunc(found, func(sp span) bool { return sp.from >= sp.to || s[sp.from:sp.to] == Redacted })
		if len(found) == 0 {
			return s[shown:]
		}
		s = replace(s, found)
	}
	return Redacted
}

// begun says whether what is held ends as a known secret begins.
func (f *Filter) begun() bool {
	return slices.ContainsFunc(f.known(), func(x *index) bool { return x.begun(f.held) > 0 })
}

func (f *Filter) known() indexes {
	all := indexes{process.index.Load()}
	if f.Known != nil {
		all = append(all, f.Known.index.Load())
	}
	return all
}

// cut is how much of what is held cannot be part of a secret that goes on.
func (f *Filter) cut() int {
	s := f.held
	if len(s) > maxHeld {
		// No secret that is looked for is as long; the last part of it waits.
		return f.outside(len(s) - maxHeld/2)
	}
	cut := len(s)
	for _, x := range f.known() {
		cut = min(cut, len(s)-x.begun(s))
	}
	cut = wordStart(s, cut)
	// What names the value that follows waits with it.
	for _, name := range namesBefore {
		from := max(0, cut-maxBefore)
		if i := find(s[from:], name).from(0); i >= 0 {
			cut = min(cut, from+i)
		}
	}
	for range 3 {
		before := strings.TrimRight(s[:cut], " \t")
		if n := len(before); n > 0 && (before[n-1] == ':' || before[n-1] == '=') {
			cut = wordStart(s, n)
		} else if n > 0 && n < cut && strings.HasPrefix(strings.TrimLeft(s[cut:]+"=", " "), "=") {
			cut = wordStart(s, n) // the sign may come yet
		}
	}
	if i := strings.LastIndex(s, pemBegin); i >= 0 {
		if j := strings.Index(s[i:], pemEnd); j < 0 || strings.Count(s[i+j:], "-----") < 2 {
			cut = min(cut, i)
		}
	}
	// The value of a header is its line.
	start := strings.LastIndexByte(s[:cut], '\n') + 1
	for _, name := range []string{"authorization", "cookie"} {
		if i := find(s[start:], name).from(0); i >= 0 && start+i <= cut {
			cut = min(cut, wordStart(s, start+i))
		}
	}
	return f.outside(cut)
}

const maxBefore = 40

// namesBefore are words that make a secret of what follows them.
var namesBefore = []string{"bearer", "basic", "l402", "lsat", "preimage"}

// outside moves a cut before the secret that it would divide.
func (f *Filter) outside(cut int) int {
	for _, sp := range scan(f.held, f.known(), 0) {
		if sp.from < cut && cut < sp.to {
			return sp.from
		}
	}
	return cut
}

// wordStart is where the unbroken text before end begins. A letter beyond ASCII
// breaks it, unless a reader takes it for one of ASCII or does not see it.
func wordStart(s string, end int) int {
	for end > 0 {
		if s[end-1] < utf8.RuneSelf {
			if s[end-1] <= ' ' {
				return end
			}
			end--
			continue
		}
		r, n := utf8.DecodeLastRuneInString(s[:end])
		if text := seen(r, s[end-n:end]); r != utf8.RuneError && len(text) > 1 {
			return end
		}
		end -= n
	}
	return 0
}

package redact

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// MinKnown is how many bytes a secret has at the least that is looked for.
	MinKnown = 8
	// MaxKnown is how many secrets are looked for; the oldest goes first.
	MaxKnown = 4096
)

// Known is a set of secrets that are taken out wherever they appear: as they
// are, in base64 at any alignment, in hex, and behind the escapes of JSON and
// URLs. It is ready to use, by many at once.
type Known struct {
	mu      sync.Mutex
	secrets []string
	index   atomic.Pointer[index]
}

// Add adds a secret. One shorter than MinKnown is not taken.
func (k *Known) Add(secret string) bool {
	secret = strings.TrimSpace(secret)
	if len(secret) < MinKnown {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.secrets {
		if s == secret {
			return true
		}
	}
	k.secrets = append(k.secrets, secret)
	if len(k.secrets) > MaxKnown {
		k.secrets = append([]string(nil), k.secrets[1:]...)
	}
	k.index.Store(newIndex(k.secrets))
	return true
}

// index finds many secrets in one pass: by their first bytes.
type index struct {
	first   [1 << 16]bool // by two bytes
	byStart map[[MinKnown]byte][]string
	broken  []string // those that hold a space or a letter beyond ASCII
}

func newIndex(secrets []string) *index {
	x := &index{byStart: map[[MinKnown]byte][]string{}}
	for _, s := range secrets {
		for _, form := range forms(s) {
			start := [MinKnown]byte([]byte(form[:MinKnown]))
			x.byStart[start] = append(x.byStart[start], form)
			x.first[uint16(form[0])<<8|uint16(form[1])] = true
			if strings.ContainsAny(form, " \t\r\n") || !ascii(form) {
				x.broken = append(x.broken, form)
			}
		}
	}
	return x
}

// forms are the spellings of a secret that no undoing of escapes reaches.
func forms(s string) []string {
	quoted, loose := string(quote(s)), url.QueryEscape(s)
	html, err := json.Marshal(s)
	if err != nil {
		html = quote(s)
	}
	// A secret that itself looks escaped would be undone too far: its escaped
	// spellings are looked for as they are.
	all := []string{s, quoted[1 : len(quoted)-1], string(html[1 : len(html)-1]), loose, url.PathEscape(s), strings.ReplaceAll(s, " ", "+"), hex.EncodeToString([]byte(s)), strings.ToUpper(hex.EncodeToString([]byte(s)))}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			// Letters that other bytes share with the secret are left out.
			text := enc.EncodeToString(append(make([]byte, shift), s...))
			text = text[(shift*8+5)/6:]
			if (shift+len(s))%3 != 0 {
				text = text[:len(text)-1]
			}
			if len(text) >= MinKnown {
				all = append(all, text)
			}
		}
	}
	return all
}

// begun is how many bytes at the end of s may be the beginning of a secret that
// does not stand in one word.
func (x *index) begun(s string) int {
	if x == nil {
		return 0
	}
	most := 0
	for _, form := range x.broken {
		for n := min(len(form)-1, len(s)); n > most; n-- {
			if strings.HasSuffix(s, form[:n]) {
				most = n
			}
		}
	}
	return most
}

// indexes are the sets of secrets that one text is asked for.
type indexes []*index

func (all indexes) find(s string, emit func(from, to int)) {
	for _, x := range all {
		x.find(s, emit)
	}
}

func (x *index) find(s string, emit func(from, to int)) {
	if x == nil {
		return
	}
	for i := 0; i+MinKnown <= len(s); i++ {
		if !x.first[uint16(s[i])<<8|uint16(s[i+1])] {
			continue
		}
		longest := 0
		for _, form := range x.byStart[[MinKnown]byte([]byte(s[i:i+MinKnown]))] {
			if len(form) > longest && strings.HasPrefix(s[i:], form) {
				longest = len(form)
			}
		}
		if longest > 0 {
			emit(i, i+longest)
		}
	}
}

func ascii(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

package auth

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// Scope is what a token may be used for. Each includes the ones below it.
type Scope string

const (
	Operator Scope = "operator"
	Service  Scope = "service"
	Read     Scope = "read"
)

var scopeRank = map[Scope]int{Read: 1, Service: 2, Operator: 3}

// Claims are what a token says, and sign.
type Claims struct {
	IssuedAt   int64  `json:"iat"`         // unix seconds
	ExpiresAt  int64  `json:"exp"`         // unix seconds, exclusive
	Nonce      string `json:"nonce"`       // 16 to 128 of visible ASCII, once per kid
	KeyID      string `json:"kid"`         // of the secret that signs
	Audience   string `json:"aud"`         // the deployment that is meant
	Scope      Scope  `json:"scope"`       //
	Actor      string `json:"actor"`       // who acts, 1 to 128 printable characters, for the audit
	Method     string `json:"method"`      // GET
	Target     string `json:"target"`      // path and "?query" exactly as sent
	BodySHA256 string `json:"body_sha256"` // lowercase hex, of the raw body as sent

	RunID      string `json:"run_id,omitempty"`
	ThreadID   string `json:"thread_id,omitempty"`
	UserID     *int64 `json:"user_id,omitempty"` // > 0
	GuestScope string `json:"guest_scope,omitempty"`
}

// Left is how long the token is still good for.
func (c Claims) Left(now time.Time) time.Duration { return time.Unix(c.ExpiresAt, 0).Sub(now) }

var (
	sha256Pattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	methodPattern = regexp.MustCompile(`^[A-Z]{1,16}$`)
	guestPattern  = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
)

// parseClaims reads the claims as they stand, types unchecked. Names that come
// twice are refused: two readers would disagree about what was signed.
func parseClaims(raw []byte) (map[string]any, bool) {
	canonical, err := canon.JSON(raw)
	if err != nil {
		return nil, false
	}
	var m map[string]any
	d := json.NewDecoder(bytes.NewReader(canonical))
	d.UseNumber()
	if d.Decode(&m) != nil || m == nil {
		return nil, false
	}
	return m, true
}

// typedClaims checks each claim alone and names the first that is wrong. Names
// are matched to the letter, which decoding into a struct would not do.
func typedClaims(m map[string]any) (c Claims, wrong string) {
	text := func(name string, to *string, needed bool, valid func(string) bool) {
		v, there := m[name]
		if wrong != "" || !there && !needed {
			return
		}
		s, ok := v.(string)
		if !ok || !valid(s) {
			wrong = name
			return
		}
		*to = s
	}
	number := func(name string, to *int64) {
		n, _ := m[name].(json.Number)
		i, err := n.Int64()
		if wrong == "" && (err != nil || i <= 0) {
			wrong = name
		}
		*to = i
	}
	number("iat", &c.IssuedAt)
	number("exp", &c.ExpiresAt)
	text("nonce", &c.Nonce, true, func(s string) bool { return len(s) >= 16 && len(s) <= 128 && visible(s) })
	text("kid", &c.KeyID, true, kidPattern.MatchString)
	text("aud", &c.Audience, true, func(s string) bool { return s != "" })
	text("scope", (*string)(&c.Scope), true, func(s string) bool { return scopeRank[Scope(s)] > 0 })
	text("actor", &c.Actor, true, func(s string) bool { return printable(s, 128) })
	text("method", &c.Method, true, methodPattern.MatchString)
	text("target", &c.Target, true, func(s string) bool { return strings.HasPrefix(s, "/") })
	text("body_sha256", &c.BodySHA256, true, sha256Pattern.MatchString)
	text("run_id", &c.RunID, false, func(s string) bool { return printable(s, 256) })
	text("thread_id", &c.ThreadID, false, func(s string) bool { return printable(s, 256) })
	text("guest_scope", &c.GuestScope, false, guestPattern.MatchString)
	if _, there := m["user_id"]; there {
		c.UserID = new(int64)
		number("user_id", c.UserID)
	}
	return c, wrong
}

func printable(s string, longest int) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= longest &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

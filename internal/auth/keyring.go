// Package auth answers who is calling.
//
// A caller shows a token in X-OA-RUNTIME-SIGNATURE that a shared secret signed
// for exactly this request, and, where one is configured, an OIDC identity token
// in Authorization. Both are checked; neither stands in for the other.
package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
)

// minSecretBytes is the length of a SHA-256 digest: a shorter HMAC key is weaker
// than what it makes.
const minSecretBytes = 32

const devSecret = "development-only-secret-known-to-everybody"

var kidPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Keyring holds the secrets that sign tokens. The first signs, all verify, so a
// new secret is rolled out by adding it last everywhere, then moving it first,
// then dropping the old one. Printing a Keyring shows key ids only.
type Keyring struct {
	keys []key
}

type key struct {
	id     string
	secret []byte
}

// ParseKeyring reads `kid:secret` pairs separated by commas. A kid has 1 to 64 of
// [A-Za-z0-9._-] and comes once; a secret has at least 32 bytes of visible ASCII
// without a comma. Errors name the kid or the place, never a secret.
func ParseKeyring(s string) (Keyring, error) {
	if strings.TrimSpace(s) == "" {
		return Keyring{}, errors.New("the signing keyring is empty: set it to kid:secret, for example by " +
			`printf 'k1:%s' "$(openssl rand -hex 32)"`)
	}
	var k Keyring
	for i, pair := range strings.Split(strings.TrimSpace(s), ",") {
		kid, secret, ok := strings.Cut(strings.TrimSpace(pair), ":")
		switch {
		case !ok:
			return Keyring{}, fmt.Errorf("signing key %d: write it as kid:secret", i+1)
		case !kidPattern.MatchString(kid):
			return Keyring{}, fmt.Errorf("signing key %d: a kid has 1 to 64 of [A-Za-z0-9._-]", i+1)
		case slices.ContainsFunc(k.keys, func(o key) bool { return o.id == kid }):
			return Keyring{}, fmt.Errorf("signing key %d: kid %s comes twice", i+1, kid)
		case len(secret) < minSecretBytes:
			return Keyring{}, fmt.Errorf("signing key %s: its secret has %d bytes, at least %d are needed",
				kid, len(secret), minSecretBytes)
		case !visible(secret):
			return Keyring{}, fmt.Errorf("signing key %s: its secret holds something else than visible ASCII", kid)
		case secret == devSecret:
			return Keyring{}, fmt.Errorf("signing key %s: its secret is the published development secret, make your own", kid)
		}
		k.keys = append(k.keys, key{id: kid, secret: []byte(secret)})
	}
	return k, nil
}

// DevKeyring is one published key, kid "dev". Whoever accepts it accepts
// everybody, so it is for loopback only.
func DevKeyring() Keyring {
	return Keyring{keys: []key{{id: "dev", secret: []byte(devSecret)}}}
}

func (k Keyring) find(kid string) (key, bool) {
	for _, candidate := range k.keys {
		if candidate.id == kid {
			return candidate, true
		}
	}
	return key{}, false
}

// IDs are the key ids, the signing one first.
func (k Keyring) IDs() []string {
	ids := make([]string, len(k.keys))
	for i := range k.keys {
		ids[i] = k.keys[i].id
	}
	return ids
}

func (k Keyring) String() string       { return "keyring(" + strings.Join(k.IDs(), ",") + ")" }
func (k Keyring) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Format keeps secrets out of every verb, %d and %#v included.
func (k Keyring) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// MarshalText keeps secrets out of encoders.
func (k Keyring) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k key) mac(message string) []byte {
	h := hmac.New(sha256.New, k.secret)
	h.Write([]byte(message))
	return h.Sum(nil)
}

// visible says whether s is ASCII from ! to ~ throughout.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

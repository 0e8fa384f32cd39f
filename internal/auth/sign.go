package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/canon"
)

// SignatureHeader carries the token: `v1.<P>.<S>`, where P is the unpadded
// base64url of the claims as JSON and S that of HMAC-SHA256(secret, ASCII of P).
const SignatureHeader = "X-OA-RUNTIME-SIGNATURE"

const tokenVersion = "v1"

// defaultLifetime is what Sign gives a token that states no exp.
const defaultLifetime = 60 * time.Second

// Strict refuses a last digit with spare bits set, so one token has one spelling.
var base64url = base64.RawURLEncoding.Strict()

// Sign makes a token. What is zero in the claims is filled in: iat is now, exp
// a minute later, nonce random, kid the keyring's first. Claims that no verifier
// would take are an error that names the claim.
func Sign(k Keyring, c Claims, now time.Time) (string, error) {
	if len(k.keys) == 0 {
		return "", errors.New("sign a token: the keyring is empty")
	}
	if c.IssuedAt == 0 {
		c.IssuedAt = now.Unix()
	}
	if c.ExpiresAt == 0 {
		c.ExpiresAt = c.IssuedAt + int64(defaultLifetime/time.Second)
	}
	if c.Nonce == "" {
		c.Nonce = rand.Text()
	}
	if c.KeyID == "" {
		c.KeyID = k.keys[0].id
	}
	signer, ok := k.find(c.KeyID)
	if !ok {
		return "", errors.New("sign a token: the keyring has no such kid")
	}
	raw, err := canon.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("sign a token: %w", err)
	}
	m, ok := parseClaims(raw)
	if !ok {
		return "", errors.New("sign a token: the claims are no JSON object")
	}
	if _, wrong := typedClaims(m); wrong != "" {
		return "", fmt.Errorf("sign a token: claim %s is missing or malformed", wrong)
	}
	p := base64url.EncodeToString(raw)
	return tokenVersion + "." + p + "." + base64url.EncodeToString(signer.mac(p)), nil
}

// BodyHash is the body_sha256 of a body; nil is the empty body.
func BodyHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

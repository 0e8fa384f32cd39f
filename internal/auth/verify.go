package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/openagentsinc/openagents-runtime/internal/crash"
)

// Headers that name the principal a request acts for. The token's claims must
// say the same.
const (
	UserHeader  = "X-OA-USER-ID"     // decimal, > 0
	GuestHeader = "X-OA-GUEST-SCOPE" // 1 to 128 of [A-Za-z0-9._:-]
)

const (
	maxTokenBytes      = 8 << 10
	defaultMaxLifetime = 300 * time.Second
	defaultSkew        = 30 * time.Second
)

// Verifier decides about requests. Its fields are set once, before use.
type Verifier struct {
	Keys        Keyring
	Audience    string            // what the aud claim must be
	MaxLifetime time.Duration     // longest exp - iat; 300 s when zero
	Skew        time.Duration     // how far ahead iat may be; 30 s when zero
	Nonces      NonceStore        // required
	Identity    *IdentityVerifier // nil: no second layer
	Now         func() time.Time  // crash.Now, the wall clock, when nil
}

// Request is what of a request is verified.
type Request struct {
	Method     string
	Target     string // request target as received: path and "?query"
	Header     http.Header
	BodySHA256 string // BodyHash of the raw body
	RunID      string // named by the path, "" when it names none
	ThreadID   string // the same
	Scope      Scope  // what the operation needs; "" when only Caller.Require decides
}

// Caller is who was let in. Its fields come from what was signed.
type Caller struct {
	Scope      Scope
	Actor      string
	UserID     *int64
	GuestScope string
	KeyID      string
	Identity   string // e-mail or subject of the identity token, "" without the second layer
	Claims     Claims
}

// Owner is whose things a caller may see: a guest scope or a user, never both.
type Owner struct {
	UserID     int64 // 0 for a guest
	GuestScope string
}

// Owner is the guest scope when there is one, else the user: guests may share
// one user account and still never see each other's runs. A caller who names
// neither is refused with invalid_principal.
func (c Caller) Owner() (Owner, error) {
	switch {
	case c.GuestScope != "":
		return Owner{GuestScope: c.GuestScope}, nil
	case c.UserID != nil:
		return Owner{UserID: *c.UserID}, nil
	default:
		return Owner{}, refuse(InvalidPrincipal, "send "+UserHeader+" or "+GuestHeader+" and sign the same as a claim")
	}
}

// Require refuses a caller whose token has less than the scope.
func (c Caller) Require(s Scope) error {
	if rank := scopeRank[s]; rank == 0 || scopeRank[c.Scope] < rank {
		return forbid(ScopeInsufficient, fmt.Sprintf("this operation needs a token of scope %s", s))
	}
	return nil
}

// Verify lets a request in or says why not, as a *Refusal; any other error means
// that the answer could not be found out. A token is used up only when all else
// is right, so a refused one can be sent again with the fault mended.
func (v *Verifier) Verify(ctx context.Context, r Request) (Caller, error) {
	if v.Nonces == nil || v.Audience == "" {
		return Caller{}, errors.New("auth: a Verifier needs an audience and a nonce store")
	}
	claims, err := v.signed(r.Header)
	if err != nil {
		return Caller{}, err
	}
	if err := v.timely(claims); err != nil {
		return Caller{}, err
	}
	if claims.Audience != v.Audience {
		return Caller{}, refuse(AudienceMismatch, "the token was signed for another deployment: check aud")
	}
	if err := bound(claims, r); err != nil {
		return Caller{}, err
	}
	if err := principal(claims, r); err != nil {
		return Caller{}, err
	}
	caller := Caller{
		Scope: claims.Scope, Actor: claims.Actor, UserID: claims.UserID,
		GuestScope: claims.GuestScope, KeyID: claims.KeyID, Claims: claims,
	}
	if r.Scope != "" {
		if err := caller.Require(r.Scope); err != nil {
			return Caller{}, err
		}
	}
	if v.Identity != nil {
		if caller.Identity, err = v.Identity.Verify(ctx, r.Header); err != nil {
			return Caller{}, err
		}
	}
	fresh, err := v.Nonces.Remember(ctx, nonceHash(claims), v.forgettable(claims))
	if err != nil {
		return Caller{}, fmt.Errorf("auth: remember a nonce: %w", err)
	}
	if !fresh {
		return Caller{}, refuse(NonceReplayed, "the token was used before: sign each request with a new nonce")
	}
	return caller, nil
}

// signed returns the claims of a token whose signature is right.
func (v *Verifier) signed(h http.Header) (Claims, error) {
	tokens := h.Values(SignatureHeader)
	if len(tokens) == 0 || len(tokens) == 1 && tokens[0] == "" {
		return Claims{}, refuse(MissingToken, "send a v1 token in "+SignatureHeader)
	}
	malformed := refuse(MalformedToken, "send one "+SignatureHeader+" of the form v1.<claims>.<signature>, "+
		"both unpadded base64url, the claims one JSON object without repeated names, at most 8 KiB in all")
	if len(tokens) > 1 || len(tokens[0]) > maxTokenBytes || !visible(tokens[0]) {
		return Claims{}, malformed
	}
	parts := strings.Split(tokens[0], ".")
	if len(parts) != 3 || parts[0] != tokenVersion {
		return Claims{}, malformed
	}
	raw, err := base64url.DecodeString(parts[1])
	if err != nil {
		return Claims{}, malformed
	}
	signature, err := base64url.DecodeString(parts[2])
	if err != nil {
		return Claims{}, malformed
	}
	m, ok := parseClaims(raw)
	if !ok {
		return Claims{}, malformed
	}
	kid, _ := m["kid"].(string)
	signer, known := v.Keys.find(kid)
	if !known {
		signer = nobody
	}
	// Computed and compared for an unknown kid too: neither the answer nor its
	// time tells which kids exist.
	if !hmac.Equal(signer.mac(parts[1]), signature) || !known {
		return Claims{}, refuse(InvalidSignature, "the signature is not right: check the kid, the secret, "+
			"and that the signed text is the claims segment as sent")
	}
	claims, wrong := typedClaims(m)
	if wrong != "" {
		return Claims{}, refuse(InvalidClaims, "claim "+wrong+" is missing or malformed")
	}
	return claims, nil
}

// nobody stands in for a key that is not there.
var nobody = key{secret: []byte(rand.Text() + rand.Text())}

func (v *Verifier) timely(c Claims) error {
	now := crash.Now
	if v.Now != nil {
		now = v.Now
	}
	at := now().Unix()
	longest := int64(orDefault(v.MaxLifetime, defaultMaxLifetime) / time.Second)
	switch {
	case c.ExpiresAt <= c.IssuedAt:
		return refuse(InvalidClaims, "claim exp must be later than iat")
	case c.ExpiresAt-c.IssuedAt > longest:
		return refuse(TokenLifetime, fmt.Sprintf("the token lives too long: exp may be at most %d s after iat", longest))
	case c.ExpiresAt <= at:
		return refuse(TokenExpired, "the token has expired: sign each request when it is sent, and check the clock")
	case c.IssuedAt > at+int64(v.skew()/time.Second):
		return refuse(TokenNotYetValid, "the token was issued in the future: check the clock")
	}
	return nil
}

func (v *Verifier) skew() time.Duration { return orDefault(v.Skew, defaultSkew) }

// forgettable is when no verifier takes the token any more: one margin for a
// verifier whose clock is behind, one for a database whose clock is ahead.
func (v *Verifier) forgettable(c Claims) time.Time {
	return time.Unix(c.ExpiresAt, 0).Add(2 * v.skew())
}

func bound(c Claims, r Request) error {
	for _, b := range []struct{ claim, signed, sent string }{
		{"method", c.Method, r.Method},
		{"target", c.Target, r.Target},
		{"body_sha256", c.BodySHA256, r.BodySHA256},
	} {
		if b.signed != b.sent {
			return refuse(RequestMismatch, "claim "+b.claim+" is not that of this request: "+
				"sign the method, the path with its query, and the bytes of the body as they are sent")
		}
	}
	return nil
}

// principal checks that what a request says about whose it is was signed.
func principal(c Claims, r Request) error {
	user, err := one(r.Header, UserHeader, func(s string) bool {
		n, err := strconv.ParseInt(s, 10, 64)
		return err == nil && n > 0 && strconv.FormatInt(n, 10) == s
	})
	if err != nil {
		return err
	}
	guest, err := one(r.Header, GuestHeader, guestPattern.MatchString)
	if err != nil {
		return err
	}
	signedUser := ""
	if c.UserID != nil {
		signedUser = strconv.FormatInt(*c.UserID, 10)
	}
	for _, m := range []struct{ claim, signed, where, sent string }{
		{"user_id", signedUser, "header " + UserHeader, user},
		{"guest_scope", c.GuestScope, "header " + GuestHeader, guest},
		{"run_id", c.RunID, "the path's run id", r.RunID},
		{"thread_id", c.ThreadID, "the path's thread id", r.ThreadID},
	} {
		if m.sent != "" && m.signed != m.sent {
			return forbid(ClaimMismatch, "claim "+m.claim+" must equal "+m.where)
		}
	}
	return nil
}

// one is a header's only value, or "" when it is not sent.
func one(h http.Header, name string, valid func(string) bool) (string, error) {
	switch values := h.Values(name); {
	case len(values) == 0:
		return "", nil
	case len(values) > 1 || !valid(values[0]):
		return "", refuse(InvalidPrincipal, name+" must come once and be well formed, or not at all")
	default:
		return values[0], nil
	}
}

func nonceHash(c Claims) []byte {
	sum := sha256.Sum256([]byte(c.KeyID + "\x00" + c.Nonce))
	return sum[:]
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

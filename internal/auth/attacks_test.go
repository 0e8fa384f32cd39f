package auth_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

// attack spoils one thing of a request that would be let in.
type attack struct {
	name   string
	reason auth.Reason
	status int
	claims func(*auth.Claims)               // before signing
	change map[string]string                // claims as raw JSON, signed with the right secret
	token  func(right string) string        // after signing
	send   func(*auth.Request, http.Header) // what is sent
}

func setToken(values ...string) func(*auth.Request, http.Header) {
	return func(_ *auth.Request, h http.Header) { h[http.CanonicalHeaderKey(auth.SignatureHeader)] = values }
}

func header(name string, values ...string) func(*auth.Request, http.Header) {
	return func(_ *auth.Request, h http.Header) { h[http.CanonicalHeaderKey(name)] = values }
}

var legacyScheme = strings.Repeat("0123456789abcdef", 4)

var attacks = []attack{
	{name: "A1 no signature", reason: auth.MissingToken, status: 401, send: func(_ *auth.Request, h http.Header) { h.Del(auth.SignatureHeader) }},
	{name: "A1 empty signature", reason: auth.MissingToken, status: 401, send: setToken("")},
	{name: "A1 two signature headers", reason: auth.MalformedToken, status: 401, send: func(_ *auth.Request, h http.Header) {
		h.Add(auth.SignatureHeader, h.Get(auth.SignatureHeader))
	}},
	{name: "A1 an empty header before the right one", reason: auth.MalformedToken, status: 401, send: func(_ *auth.Request, h http.Header) {
		setToken("", h.Get(auth.SignatureHeader))(nil, h)
	}},
	{name: "A1 two tokens in one header", reason: auth.MalformedToken, status: 401, token: func(s string) string { return s + "," + s }},
	{name: "A1 another scheme", reason: auth.MalformedToken, status: 401, send: setToken(legacyScheme)},
	{name: "A1 another version", reason: auth.MalformedToken, status: 401, token: func(s string) string { return "v2" + s[2:] }},
	{name: "A1 version in capitals", reason: auth.MalformedToken, status: 401, token: func(s string) string { return "V1" + s[2:] }},
	{name: "A1 only a prefix", reason: auth.MalformedToken, status: 401, send: setToken("v1..")},
	{name: "A1 four parts", reason: auth.MalformedToken, status: 401, token: func(s string) string { return s + ".AAAA" }},
	{name: "A1 padded", reason: auth.MalformedToken, status: 401, token: func(s string) string { return s + "=" }},
	{name: "A1 spaces around", reason: auth.MalformedToken, status: 401, token: func(s string) string { return " " + s }},
	{name: "A1 a newline inside base64", reason: auth.MalformedToken, status: 401, token: func(s string) string { return s[:20] + "\n" + s[20:] }},
	{name: "A1 oversize", reason: auth.MalformedToken, status: 401, claims: func(c *auth.Claims) { c.Target = "/" + strings.Repeat("a", 8<<10) }},
	{name: "A1 spare bits of the last digit", reason: auth.MalformedToken, status: 401, token: func(s string) string {
		const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		last := strings.IndexByte(digits, s[len(s)-1])
		return s[:len(s)-1] + digits[last^1:last^1+1]
	}},
	{name: "A1 signature cut", reason: auth.InvalidSignature, status: 401, token: func(s string) string { return s[:strings.LastIndexByte(s, '.')+1] }},
	{name: "A1 half a signature", reason: auth.InvalidSignature, status: 401, token: func(s string) string { return s[:len(s)-23] }},
	{name: "A1 signature in hex", reason: auth.InvalidSignature, status: 401, token: func(s string) string { return s[:strings.LastIndexByte(s, '.')+1] + legacyScheme }},

	{name: "A2 another method", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Method = "PUT" }},
	{name: "A2 method in small letters", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Method = "post" }},
	{name: "A2 another path", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Target = "/internal/v1/runs/r1/cancel?wait=1" }},
	{name: "A2 another query", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Target += "&x=1" }},
	{name: "A2 query left out", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Target = "/internal/v1/runs/r1/frames" }},
	{name: "A2 same path spelled otherwise", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Target = "/internal/v1/runs/r%31/frames?wait=1" }},
	{name: "A2 path with dots", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.Target = "/internal/v1/runs/x/../r1/frames?wait=1" }},
	{name: "A2 another deployment", reason: auth.AudienceMismatch, status: 401, claims: func(c *auth.Claims) { c.Audience = "runtime.staging" }},
	{name: "A2 another user in the header", reason: auth.ClaimMismatch, status: 403, send: header(auth.UserHeader, "43")},
	{name: "A2 a user the token does not name", reason: auth.ClaimMismatch, status: 403, claims: func(c *auth.Claims) { c.UserID = nil }},
	{name: "A2 a guest the token does not name", reason: auth.ClaimMismatch, status: 403, send: header(auth.GuestHeader, "session:a")},
	{name: "A2 another guest", reason: auth.ClaimMismatch, status: 403, claims: func(c *auth.Claims) { c.GuestScope = "session:b" }, send: header(auth.GuestHeader, "session:a")},
	{name: "A2 two users", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "42", "43")},
	{name: "A2 user zero", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "0")},
	{name: "A2 user below zero", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "-42")},
	{name: "A2 user with a plus", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "+42")},
	{name: "A2 user with a zero before", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "042")},
	{name: "A2 user past int64", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "9223372036854775808")},
	{name: "A2 user in other digits", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "٤٢")},
	{name: "A2 user empty", reason: auth.InvalidPrincipal, status: 401, send: header(auth.UserHeader, "")},
	{name: "A2 guest with a quote", reason: auth.InvalidPrincipal, status: 401, send: header(auth.GuestHeader, "a' OR 1=1")},
	{name: "A2 guest too long", reason: auth.InvalidPrincipal, status: 401, send: header(auth.GuestHeader, strings.Repeat("a", 129))},
	{name: "A2 guest empty", reason: auth.InvalidPrincipal, status: 401, send: header(auth.GuestHeader, "")},
	{name: "A2 another run", reason: auth.ClaimMismatch, status: 403, send: func(r *auth.Request, _ http.Header) { r.RunID = "r2" }},
	{name: "A2 a run the token does not name", reason: auth.ClaimMismatch, status: 403, claims: func(c *auth.Claims) { c.RunID = "" }},
	{name: "A2 another thread", reason: auth.ClaimMismatch, status: 403, claims: func(c *auth.Claims) { c.ThreadID = "t1" }, send: func(r *auth.Request, _ http.Header) { r.ThreadID = "t2" }},
	{name: "A2 more than the scope allows", reason: auth.ScopeInsufficient, status: 403, send: func(r *auth.Request, _ http.Header) { r.Scope = auth.Operator }},
	{name: "A2 a scope nobody has", reason: auth.ScopeInsufficient, status: 403, send: func(r *auth.Request, _ http.Header) { r.Scope = "root" }},

	{name: "A3 another body", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.BodySHA256 = auth.BodyHash([]byte(`{"frameId":"f2"}`)) }},
	{name: "A3 same JSON, other bytes", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.BodySHA256 = auth.BodyHash([]byte(`{"frameId": "f1"}`)) }},
	{name: "A3 body left out", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.BodySHA256 = auth.BodyHash(nil) }},
	{name: "A3 body hash unknown", reason: auth.RequestMismatch, status: 401, send: func(r *auth.Request, _ http.Header) { r.BodySHA256 = "" }},
	{name: "A3 body hash in capitals", reason: auth.InvalidClaims, status: 401, change: map[string]string{"body_sha256": `"` + strings.Repeat("AB", 32) + `"`}},

	{name: "A4 expired", reason: auth.TokenExpired, status: 401, claims: func(c *auth.Claims) { c.IssuedAt, c.ExpiresAt = now.Unix()-61, now.Unix()-1 }},
	{name: "A4 expires now", reason: auth.TokenExpired, status: 401, claims: func(c *auth.Claims) { c.IssuedAt, c.ExpiresAt = now.Unix()-60, now.Unix() }},
	{name: "A4 from the future", reason: auth.TokenNotYetValid, status: 401, claims: func(c *auth.Claims) { c.IssuedAt = now.Unix() + 31 }},
	{name: "A4 ends before it begins", reason: auth.InvalidClaims, status: 401, claims: func(c *auth.Claims) { c.IssuedAt, c.ExpiresAt = now.Unix()+20, now.Unix()+10 }},
	{name: "A4 lasts no time", reason: auth.InvalidClaims, status: 401, claims: func(c *auth.Claims) { c.IssuedAt, c.ExpiresAt = now.Unix(), now.Unix() }},
	{name: "A4 lives too long", reason: auth.TokenLifetime, status: 401, claims: func(c *auth.Claims) { c.IssuedAt, c.ExpiresAt = now.Unix(), now.Unix()+301 }},
	{name: "A4 lives for ever", reason: auth.TokenLifetime, status: 401, change: map[string]string{"exp": "9007199254740991", "iat": "1"}},
	{name: "A4 time as text", reason: auth.InvalidClaims, status: 401, change: map[string]string{"iat": `"1771459200"`}},
	{name: "A4 time with a fraction", reason: auth.InvalidClaims, status: 401, change: map[string]string{"exp": "1771459260.5"}},
	{name: "A4 time below zero", reason: auth.InvalidClaims, status: 401, change: map[string]string{"iat": "-1"}},
	{name: "A4 time zero", reason: auth.InvalidClaims, status: 401, change: map[string]string{"iat": "0"}},
	{name: "A4 time null", reason: auth.InvalidClaims, status: 401, change: map[string]string{"exp": "null"}},
	{name: "A4 time left out", reason: auth.InvalidClaims, status: 401, change: map[string]string{"exp": ""}},
	{name: "A4 time past int64", reason: auth.MalformedToken, status: 401, change: map[string]string{"exp": "9223372036854775808"}},
	{name: "A4 time past any number", reason: auth.MalformedToken, status: 401, change: map[string]string{"exp": "1e400"}},
	{name: "A4 time of 1e300", reason: auth.InvalidClaims, status: 401, change: map[string]string{"exp": "1e300"}},

	{name: "A8 retired or unknown key", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": `"k0"`}},
	{name: "A8 the other key's id", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": `"k2"`}},
	{name: "A8 no key id", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": ""}},
	{name: "A8 empty key id", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": `""`}},
	{name: "A8 key id with a path", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": `"../../dev/null"`}},
	{name: "A8 key id with SQL", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": `"k1' OR '1'='1"`}},
	{name: "A8 key id of another type", reason: auth.InvalidSignature, status: 401, change: map[string]string{"kid": `["k1"]`}},
	{name: "A8 the published development key", reason: auth.InvalidSignature, status: 401, send: func(_ *auth.Request, h http.Header) {
		c := newCall().claims
		token, err := auth.Sign(auth.DevKeyring(), c, now)
		if err != nil {
			panic(err)
		}
		h.Set(auth.SignatureHeader, token)
	}},

	{name: "A9 a JWT without algorithm", reason: auth.MalformedToken, status: 401, send: setToken(
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + ".")},
	{name: "A9 signed with an empty key", reason: auth.InvalidSignature, status: 401, send: setToken(signText("", `{"kid":""}`))},
	{name: "A9 an algorithm in the claims changes nothing", reason: auth.InvalidSignature, status: 401, token: func(s string) string {
		return signText("", `{"alg":"none","kid":"k1"}`)
	}},

	{name: "claims twice", reason: auth.MalformedToken, status: 401, change: map[string]string{"x": `1,"user_id":7`}},
	{name: "claims twice, spelled otherwise", reason: auth.MalformedToken, status: 401, change: map[string]string{"x": `1,"user\u005fid":7`}},
	{name: "claims no object", reason: auth.MalformedToken, status: 401, send: setToken(signText(secret1, `[]`))},
	{name: "claims null", reason: auth.MalformedToken, status: 401, send: setToken(signText(secret1, `null`))},
	{name: "claims followed by more", reason: auth.MalformedToken, status: 401, send: setToken(signText(secret1, `{} {}`))},
	{name: "claims too deep", reason: auth.MalformedToken, status: 401, change: map[string]string{"x": strings.Repeat("[", 200) + strings.Repeat("]", 200)}},
	{name: "claim names in capitals do not count", reason: auth.InvalidClaims, status: 401, change: map[string]string{"nonce": "", "NONCE": `"nonce-0123456789"`}},
	{name: "nonce too short", reason: auth.InvalidClaims, status: 401, change: map[string]string{"nonce": `"fifteen-letters"`}},
	{name: "nonce too long", reason: auth.InvalidClaims, status: 401, change: map[string]string{"nonce": `"` + strings.Repeat("n", 129) + `"`}},
	{name: "nonce with a space", reason: auth.InvalidClaims, status: 401, change: map[string]string{"nonce": `"nonce 0123456789"`}},
	{name: "scope unknown", reason: auth.InvalidClaims, status: 401, change: map[string]string{"scope": `"admin"`}},
	{name: "scope in capitals", reason: auth.InvalidClaims, status: 401, change: map[string]string{"scope": `"Operator"`}},
	{name: "scope a list", reason: auth.InvalidClaims, status: 401, change: map[string]string{"scope": `["operator"]`}},
	{name: "audience a list", reason: auth.InvalidClaims, status: 401, change: map[string]string{"aud": `["runtime.test"]`}},
	{name: "actor with a newline", reason: auth.InvalidClaims, status: 401, change: map[string]string{"actor": `"a\nb"`}},
	{name: "actor with an escape sequence", reason: auth.InvalidClaims, status: 401, change: map[string]string{"actor": `"\u001b[2J"`}},
	{name: "actor too long", reason: auth.InvalidClaims, status: 401, change: map[string]string{"actor": `"` + strings.Repeat("é", 129) + `"`}},
	{name: "actor empty", reason: auth.InvalidClaims, status: 401, change: map[string]string{"actor": `""`}},
	{name: "user as text", reason: auth.InvalidClaims, status: 401, change: map[string]string{"user_id": `"42"`}},
	{name: "user zero in the token", reason: auth.InvalidClaims, status: 401, change: map[string]string{"user_id": `0`}},
	{name: "user null", reason: auth.InvalidClaims, status: 401, change: map[string]string{"user_id": `null`}},
	{name: "run null", reason: auth.InvalidClaims, status: 401, change: map[string]string{"run_id": `null`}},
	{name: "guest malformed", reason: auth.InvalidClaims, status: 401, change: map[string]string{"guest_scope": `"a b"`}},
}

func TestAttacksAreRefused(t *testing.T) {
	t.Parallel()
	covered := map[auth.Reason]bool{
		// identity_test.go and nonce_test.go
		auth.NonceReplayed: true, auth.IdentityMissing: true, auth.IdentityInvalid: true, auth.IdentityUnavailable: true,
	}
	for _, a := range attacks {
		covered[a.reason] = true
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			v := verifier(t)
			v.Nonces = broken{} // a refused token never gets this far
			c := newCall()
			if a.claims != nil {
				a.claims(&c.claims)
			}
			c = c.sign(t, v.Keys)
			if a.change != nil {
				c.Header.Set(auth.SignatureHeader, signText(secret1, claimsText(t, a.change)))
			}
			if a.token != nil {
				c.Header.Set(auth.SignatureHeader, a.token(c.Header.Get(auth.SignatureHeader)))
			}
			if a.send != nil {
				a.send(&c.Request, c.Header)
			}
			_, err := v.Verify(t.Context(), c.Request)
			require.Equal(t, a.status, refused(t, err, a.reason).Status())
		})
	}
	for _, reason := range auth.Reasons() {
		require.True(t, covered[reason], "no attack ends in %s", reason)
	}
}

// What the attacks spoil is otherwise let in, up to the edges.
func TestWhatIsStillRight(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]map[string]string{
		"nothing changed":         {},
		"unknown claims":          {"jti": `"x"`, "NONCE": `1`, "deep": `[[[{"a":null}]]]`},
		"as old as it may be":     {"iat": "1771458901", "exp": "1771459201"},
		"as early as it may be":   {"iat": "1771459230", "exp": "1771459530"},
		"a time in exponent form": {"exp": "1.77145926e9"},
		"longest nonce":           {"nonce": `"` + strings.Repeat("~", 128) + `"`},
		"longest actor":           {"actor": `"` + strings.Repeat("é", 128) + `"`},
		"a thread not asked for":  {"thread_id": `"t1"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verifier(t)
			c := newCall().sign(t, v.Keys)
			c.Header.Set(auth.SignatureHeader, signText(secret1, claimsText(t, change)))
			_, err := v.Verify(t.Context(), c.Request)
			require.NoError(t, err)
		})
	}
}

// A8: an unknown key and a wrong signature are one answer, to the letter.
func TestKeyIDsCannotBeGuessed(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	answer := func(token string) string {
		c := newCall()
		c.Header.Set(auth.SignatureHeader, token)
		_, err := v.Verify(t.Context(), c.Request)
		return err.Error()
	}
	require.Equal(t,
		answer(signText("a-guess-of-the-secret-0123456789abc", claimsText(t, nil))),
		answer(signText(secret1, claimsText(t, map[string]string{"kid": `"k9"`}))))
}

// A7 asks for a constant-time comparison. What can be checked without a stopwatch:
// an unknown kid costs one HMAC of the claims, as a wrong signature does.
func TestAnUnknownKeyIsHashedToo(t *testing.T) {
	v := verifier(t)
	allocs := func(token string) float64 {
		c := newCall()
		c.Header.Set(auth.SignatureHeader, token)
		return testing.AllocsPerRun(200, func() { _, _ = v.Verify(t.Context(), c.Request) })
	}
	wrong := allocs(signText("a-guess-of-the-secret-0123456789abc", claimsText(t, nil)))
	unknown := allocs(signText(secret1, claimsText(t, map[string]string{"kid": `"k9"`})))
	require.InDelta(t, wrong, unknown, 1)
}

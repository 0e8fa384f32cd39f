package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/openagentsinc/openagents-runtime/internal/auth"
)

type rawJSON = json.RawMessage

func unmarshal(t testing.TB, b []byte, to any) { require.NoError(t, json.Unmarshal(b, to)) }

func TestARightTokenLetsItsCallerIn(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	c := newCall()
	c.Scope = auth.Service
	caller, err := v.Verify(t.Context(), c.sign(t, v.Keys).Request)
	require.NoError(t, err)
	require.Equal(t, auth.Service, caller.Scope)
	require.Equal(t, "laravel", caller.Actor)
	require.Equal(t, "k1", caller.KeyID)
	require.EqualValues(t, 42, *caller.UserID)
	require.Equal(t, "r1", caller.Claims.RunID)
	owner, err := caller.Owner()
	require.NoError(t, err)
	require.Equal(t, auth.Owner{UserID: 42}, owner)
}

func TestGuestsOfOneAccountAreDifferentOwners(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	owners := map[auth.Owner]bool{}
	for _, guest := range []string{"session:a", "session:b"} {
		c := newCall()
		c.claims.GuestScope = guest
		c.Header.Set(auth.GuestHeader, guest)
		caller, err := v.Verify(t.Context(), c.sign(t, v.Keys).Request)
		require.NoError(t, err)
		owner, err := caller.Owner()
		require.NoError(t, err)
		require.Zero(t, owner.UserID)
		owners[owner] = true
	}
	require.Len(t, owners, 2)
}

// Taking a header away must not turn a guest into the account behind it.
func TestTheOwnerIsWhatWasSigned(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	c := newCall()
	c.claims.GuestScope = "session:a"
	caller, err := v.Verify(t.Context(), c.sign(t, v.Keys).Request)
	require.NoError(t, err)
	owner, err := caller.Owner()
	require.NoError(t, err)
	require.Equal(t, auth.Owner{GuestScope: "session:a"}, owner)
}

func TestACallerWithoutPrincipalOwnsNothing(t *testing.T) {
	t.Parallel()
	_, err := auth.Caller{}.Owner()
	require.Equal(t, 401, refused(t, err, auth.InvalidPrincipal).Status())
}

func TestScopesIncludeOneAnother(t *testing.T) {
	t.Parallel()
	order := []auth.Scope{auth.Read, auth.Service, auth.Operator}
	for i, has := range order {
		for j, needs := range order {
			err := auth.Caller{Scope: has}.Require(needs)
			if i >= j {
				require.NoError(t, err)
				continue
			}
			require.Equal(t, 403, refused(t, err, auth.ScopeInsufficient).Status())
		}
		require.Error(t, auth.Caller{Scope: has}.Require("root"))
		require.Error(t, auth.Caller{Scope: "root"}.Require(has))
	}
}

func TestARefusedTokenIsNotUsedUp(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	good := newCall().sign(t, v.Keys).Request

	bad := good
	bad.RunID = "r2"
	_, err := v.Verify(t.Context(), bad)
	refused(t, err, auth.ClaimMismatch)
	bad = good
	bad.Scope = auth.Operator
	_, err = v.Verify(t.Context(), bad)
	refused(t, err, auth.ScopeInsufficient)

	_, err = v.Verify(t.Context(), good)
	require.NoError(t, err)
	_, err = v.Verify(t.Context(), good)
	refused(t, err, auth.NonceReplayed)
}

func TestANonceIsKeptLongerThanItsToken(t *testing.T) {
	t.Parallel()
	v, store := verifier(t), &seen{}
	v.Nonces = store
	_, err := v.Verify(t.Context(), newCall().sign(t, v.Keys).Request)
	require.NoError(t, err)
	for _, until := range store.hashes {
		require.Equal(t, now.Add(60*time.Second+2*30*time.Second), until)
	}
}

type broken struct{ auth.NonceStore }

func (broken) Remember(context.Context, []byte, time.Time) (bool, error) {
	return true, errors.New("no database")
}

func TestWhatCannotBeCheckedIsNotLetIn(t *testing.T) {
	t.Parallel()
	var refusal *auth.Refusal
	v := verifier(t)
	v.Nonces = broken{}
	_, err := v.Verify(t.Context(), newCall().sign(t, v.Keys).Request)
	require.ErrorContains(t, err, "no database")
	require.False(t, errors.As(err, &refusal))

	v.Nonces = nil
	_, err = v.Verify(t.Context(), newCall().sign(t, v.Keys).Request)
	require.Error(t, err)
	v = verifier(t)
	v.Audience = ""
	_, err = v.Verify(t.Context(), newCall().sign(t, v.Keys).Request)
	require.Error(t, err)
	v = verifier(t)
	signed := newCall().sign(t, v.Keys).Request
	v.Keys = auth.Keyring{}
	_, err = v.Verify(t.Context(), signed)
	refused(t, err, auth.InvalidSignature)
}

// Whichever byte of what is bound or signed changes, the request is refused.
func TestAnyChangedByteIsRefused(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	v.Nonces = broken{} // reached only when a change went unnoticed
	signed := newCall().sign(t, v.Keys)
	token := signed.Header.Get(auth.SignatureHeader)
	body := `{"frameId":"f1"}`
	rapid.Check(t, func(rt *rapid.T) {
		r := signed.Request
		r.Header = r.Header.Clone()
		flip := func(s string) string {
			at := rapid.IntRange(0, len(s)-1).Draw(rt, "at")
			b := byte(rapid.IntRange(1, 255).Draw(rt, "xor"))
			return s[:at] + string([]byte{s[at] ^ b}) + s[at+1:]
		}
		switch rapid.SampledFrom([]string{"method", "target", "body", "token", "user"}).Draw(rt, "what") {
		case "method":
			r.Method = flip(r.Method)
		case "target":
			r.Target = flip(r.Target)
		case "body":
			r.BodySHA256 = auth.BodyHash([]byte(flip(body)))
		case "token":
			r.Header.Set(auth.SignatureHeader, flip(token))
		case "user":
			r.Header.Set(auth.UserHeader, flip("42"))
		}
		_, err := v.Verify(context.Background(), r)
		var refusal *auth.Refusal
		if !errors.As(err, &refusal) {
			rt.Fatalf("not refused: %v", err)
		}
	})
}

type vector struct {
	Name, Secret, Kid, Claims, Token, Method, Target, Body string
	BodySHA256                                             string `json:"body_sha256"`
}

func TestTokenVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("../../openapi/fixtures/auth/token.json")
	require.NoError(t, err)
	var vectors []vector
	unmarshal(t, raw, &vectors)
	require.NotEmpty(t, vectors)
	for _, f := range vectors {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			var c auth.Claims
			unmarshal(t, []byte(f.Claims), &c)
			k := keyring(t, f.Kid+":"+f.Secret)
			token, err := auth.Sign(k, c, time.Unix(c.IssuedAt, 0))
			require.NoError(t, err)
			require.Equal(t, f.Token, token)
			require.Equal(t, f.BodySHA256, auth.BodyHash([]byte(f.Body)))

			v := auth.Verifier{Keys: k, Audience: c.Audience, Nonces: &seen{}, Now: func() time.Time { return time.Unix(c.IssuedAt, 0) }}
			r := auth.Request{Method: f.Method, Target: f.Target, BodySHA256: f.BodySHA256, RunID: c.RunID, ThreadID: c.ThreadID,
				Header: map[string][]string{"X-Oa-Runtime-Signature": {f.Token}}}
			if c.UserID != nil {
				r.Header.Set(auth.UserHeader, fmt.Sprint(*c.UserID))
			}
			if c.GuestScope != "" {
				r.Header.Set(auth.GuestHeader, c.GuestScope)
			}
			caller, err := v.Verify(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, c, caller.Claims)
		})
	}
}

func TestSignSaysWhichClaimIsWrong(t *testing.T) {
	t.Parallel()
	k := keyring(t, "k1:"+secret1)
	for claim, spoil := range map[string]func(*auth.Claims){
		"nonce":       func(c *auth.Claims) { c.Nonce = "short" },
		"scope":       func(c *auth.Claims) { c.Scope = "root" },
		"actor":       func(c *auth.Claims) { c.Actor = "a\nb" },
		"target":      func(c *auth.Claims) { c.Target = "internal/v1" },
		"method":      func(c *auth.Claims) { c.Method = "get" },
		"body_sha256": func(c *auth.Claims) { c.BodySHA256 = "" },
		"aud":         func(c *auth.Claims) { c.Audience = "" },
		"guest_scope": func(c *auth.Claims) { c.GuestScope = "a b" },
		"user_id":     func(c *auth.Claims) { c.UserID = new(int64) },
		"kid":         func(c *auth.Claims) { c.KeyID = "other" },
		"UTF-8":       func(c *auth.Claims) { c.Actor = "\xff" },
	} {
		c := newCall().claims
		spoil(&c)
		_, err := auth.Sign(k, c, now)
		require.ErrorContains(t, err, claim)
	}
	_, err := auth.Sign(auth.Keyring{}, newCall().claims, now)
	require.ErrorContains(t, err, "empty")
}

func FuzzVerify(f *testing.F) {
	f.Add("")
	f.Add("v1..")
	f.Add(signText(secret1, claimsText(f, nil)))
	f.Add(signText(secret1, `{"kid":{"kid":"k1"},"iat":1e400}`))
	f.Fuzz(func(t *testing.T, token string) {
		v := verifier(t)
		c := newCall()
		c.Header.Set(auth.SignatureHeader, token)
		if _, err := v.Verify(t.Context(), c.Request); err != nil {
			var refusal *auth.Refusal
			require.ErrorAs(t, err, &refusal)
			return
		}
		require.True(t, strings.HasPrefix(token, "v1."))
	})
}
